//! The settings in force, to be shown: in the order of the documented defaults, with what those say of them.
//!
//! What must not be shown is hidden by its type ([`super::Secret`], [`super::ServerUrl`]), here as in logs.

use serde_json::{Map, Value};

use super::{DEFAULTS, Settings};

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// What the shipped file says of it.
    pub help: String,
    /// Its value; `hidden` if it must not be shown, empty if there is none.
    pub value: String,
    /// The shipped one, likewise.
    pub default: String,
}

impl Shown {
    /// Does it differ from what is shipped? Of what is hidden: is it set?
    pub fn differs(&self) -> bool {
        self.value != self.default
    }
}

impl Settings {
    /// Every setting of this process.
    pub fn shown(&self) -> Vec<Shown> {
        let of = |settings: &Settings| match serde_json::to_value(settings) {
            Ok(Value::Object(all)) => all,
            _ => Map::new(),
        };
        let ours = of(self);
        let shipped = Settings::load(None, []).map(|shipped| of(&shipped)).unwrap_or_default();
        let value =
            |all: &Map<String, Value>, name: &str| all.get(name).map(text).unwrap_or_default();
        documented()
            .into_iter()
            .filter(|(name, _)| ours.contains_key(name))
            .map(|(name, help)| Shown {
                value: value(&ours, &name),
                default: value(&shipped, &name),
                name,
                help,
            })
            .collect()
    }
}

/// Names and descriptions, in the order of the shipped file. Settings that stand together share one.
fn documented() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let (mut help, mut open) = (String::new(), false);
    for line in DEFAULTS.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            if !open {
                help.clear();
            }
            open = true;
            // What is indented is an example of the file.
            if !comment.starts_with("   ") {
                help.push_str(comment);
            }
            continue;
        }
        if line.is_empty() {
            if !open {
                help.clear();
            }
            continue;
        }
        open = false;
        let table = line.strip_prefix('[').and_then(|rest| rest.split(['.', ']']).next());
        let name = match (table, line.split_once(" = ")) {
            (Some(table), _) => table,
            // Inside a table.
            (None, Some(_)) if all.last().is_some_and(|(name, _)| name == "pace_hosts") => continue,
            (None, Some((name, _))) => name,
            (None, None) => continue,
        };
        if all.last().is_none_or(|(last, _)| last != name) {
            all.push((name.to_owned(), help.trim().to_owned()));
        }
    }
    all
}

/// For people: durations in their largest whole unit, lists with commas.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(on) => String::from(if *on { "on" } else { "off" }),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(all) => match (all.get("secs"), all.get("nanos"), all.len()) {
            (Some(secs), Some(nanos), 2) => {
                duration(secs.as_u64().unwrap_or(0), nanos.as_u64().unwrap_or(0))
            }
            _ => {
                let one = |(name, value): (&String, &Value)| format!("{name}: {}", text(value));
                all.iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(one)
                    .collect::<Vec<_>>()
                    .join("; ")
            }
        },
    }
}

fn duration(secs: u64, nanos: u64) -> String {
    if nanos > 0 || secs == 0 {
        return format!("{}ms", secs * 1_000 + nanos / 1_000_000);
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let fits = units.iter().find(|(unit, _)| secs.is_multiple_of(*unit));
    fits.map_or_else(String::new, |(unit, name)| format!("{}{name}", secs / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_there_and_secrets_are_not() {
        let secret = "s3cr3t-value";
        let pairs = [
            ("LISTMILL_HTTP_KEY", secret),
            ("LISTMILL_KEY_PEPPER", secret),
            ("LISTMILL_DATABASE_URL", "postgres://me:s3cr3t-value@host/db"),
            ("LISTMILL_REDIS_URL", "redis://:s3cr3t-value@host"),
            ("LISTMILL_BATCH_SIZE", "20"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::load(None, pairs).unwrap();
        let shown = settings.shown();
        let known: toml::Table = toml::from_str(DEFAULTS).unwrap();
        assert_eq!(shown.len(), known.len(), "{shown:#?}");
        assert!(!format!("{shown:?}").contains(secret));
        let find = |name: &str| shown.iter().find(|one| one.name == name).unwrap();
        assert_eq!((find("http_key").value.as_str(), find("http_key").differs()), ("hidden", true));
        assert_eq!(
            (find("http_header").value.as_str(), find("http_header").differs()),
            ("", false)
        );
        assert_eq!(find("database_url").value, "postgres://…@host/db");
        assert_eq!(
            (find("batch_size").value.as_str(), find("batch_size").default.as_str()),
            ("20", "500")
        );
        assert_eq!(find("retry_delays").value, "1m, 5m, 15m");
        assert_eq!(find("lease_ttl").value, "30s");
        assert_eq!(find("pace").value, "on");
        assert!(shown.iter().all(|one| !one.help.is_empty()), "{shown:#?}");
        let differing: Vec<&str> =
            shown.iter().filter(|one| one.differs()).map(|one| one.name.as_str()).collect();
        assert_eq!(differing.len(), 5, "{differing:?}");
    }
}
