//! Who may import whom. Inside a crate: `app → store, throttle → queue → domain`. Each outside
//! library that shapes a room stays in that room. The worker cannot even name an API key.

use std::path::{Path, PathBuf};

/// What must not be named where.
struct Rule {
    /// Files below this path.
    under: &'static str,
    /// Except below these.
    except: &'static [&'static str],
    /// Must not say any of these.
    never: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { under: "shared/src", except: &["shared/src/store/"], never: &["sqlx::", "use sqlx"] },
    Rule {
        under: "shared/src",
        except: &["shared/src/queue/", "shared/src/throttle/", "shared/src/settings"],
        never: &["redis::"],
    },
    Rule { under: "shared/src", except: &["shared/src/throttle/"], never: &["governor::"] },
    Rule {
        under: "shared/src/domain",
        except: &[],
        never: &["crate::store", "crate::queue", "crate::throttle", "crate::app", "tokio::"],
    },
    Rule {
        under: "shared/src/store",
        except: &[],
        never: &["crate::queue", "crate::throttle", "crate::app"],
    },
    Rule {
        under: "shared/src/queue",
        except: &[],
        never: &["crate::store", "crate::throttle", "crate::app"],
    },
    Rule { under: "shared/src/throttle", except: &[], never: &["crate::store", "crate::app"] },
    Rule { under: "shared/src", except: &[], never: &["axum::", "apalis::"] },
    Rule {
        under: "shared/src",
        except: &["shared/src/app/submit/read/workbook/", "shared/src/app/submit/archive.rs"],
        never: &["calamine::", "zip::"],
    },
    Rule {
        under: "api/src",
        except: &[],
        never: &["listmill_worker", "sqlx::", "apalis::", "redis::"],
    },
    Rule { under: "worker/src", except: &["worker/src/runtime.rs"], never: &["apalis::"] },
    Rule {
        under: "worker/src",
        except: &[],
        never: &[
            "listmill_api",
            "axum::",
            "sqlx::",
            "redis::",
            "domain::key",
            "KeyId",
            "app::keys",
        ],
    },
    Rule { under: "cli/src", except: &[], never: &["sqlx::", "axum::", "apalis::", "redis::"] },
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn imports_point_the_right_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut wrong = Vec::new();
    for rule in RULES {
        let mut files = Vec::new();
        sources(&root.join(rule.under), &mut files);
        assert!(!files.is_empty(), "{} has no sources", rule.under);
        for path in files {
            let name = path.strip_prefix(root).expect("inside").to_string_lossy().into_owned();
            if rule.except.iter().any(|except| name.starts_with(except)) {
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("source");
            for (number, line) in source.lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                for never in rule.never.iter().filter(|never| code.contains(**never)) {
                    wrong.push(format!("{name}:{}: {never} in {:?}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
