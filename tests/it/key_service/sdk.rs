//! The published clients, unchanged, pointed at us: installed from their registries, run as programs of theirs
//! (`tests/sdk`). Skipped, and said so, only where the registry cannot be reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use listmill_tests::admin::{Outcome, run};
use listmill_tests::process::Launch;
use listmill_tests::{Deployment, Setup, Size, scratch};

use super::root_key;

const PATIENCE: Duration = Duration::from_secs(300);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk").join(name)
}

async fn program(
    folder: &Path,
    name: impl Into<PathBuf>,
    args: &[&str],
    env: &[(&str, String)],
) -> Outcome {
    let mut launch = Launch::new(name, folder).args(args);
    launch.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    run(launch, PATIENCE).await
}

/// Did it install? Fails where it did not for another reason than that nobody can be reached.
fn installed(outcome: &Outcome) -> bool {
    if outcome.code == Some(0) {
        return true;
    }
    assert!(outcome.says_unreachable(), "{outcome:#?}");
    println!("SKIPPED: the package registry cannot be reached: {}", outcome.line);
    false
}

async fn start() -> (Deployment, Vec<(&'static str, String)>) {
    let app = Setup::new(Size::Embedded).start().await;
    let account = app.create_account(0).await;
    let (_, root) = root_key(&app, &account, &[]).await;
    let env = vec![("LISTMILL_URL", app.apis[0].base()), ("LISTMILL_ROOT_KEY", root)];
    (app, env)
}

fn expect_ok(outcome: Outcome) {
    assert_eq!(outcome.expect_success().stdout.trim(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typescript() {
    let folder = scratch::folder("typescript");
    let args = ["install", "--no-audit", "--no-fund", "--prefix", ".", "@unkey/api@2.5.1"];
    if installed(&program(&folder, "npm", &args, &[]).await) {
        // Beside what was installed, so that it is found.
        std::fs::copy(script("typescript.mjs"), folder.join("test.mjs")).expect("copied");
        let (app, env) = start().await;
        expect_ok(program(&folder, "node", &["test.mjs"], &env).await);
        app.finish().await;
    }
    scratch::remove(&folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    let folder = scratch::folder("python");
    program(&folder, "python3", &["-m", "venv", "venv"], &[]).await.expect_success();
    let python = folder.join("venv/bin/python");
    let args =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "unkey.py==3.2.2"];
    if installed(&program(&folder, &python, &args, &[]).await) {
        let (app, env) = start().await;
        let script = script("python_client.py");
        expect_ok(program(&folder, &python, &[script.to_str().expect("a path")], &env).await);
        app.finish().await;
    }
    scratch::remove(&folder);
}
