//! `listmill admin key find` and `hygiene`: which key is this, and which keys ask for trouble.
//!
//! A key itself is taken from stdin only. What stands on a command line is seen by every user of the machine
//! and kept in the shell's history.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use listmill_shared::app::App;
use listmill_shared::domain::clock::{Millis, rfc3339};
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::domain::key::{Key, Secret};
use listmill_shared::store::keys::Filter;
use serde_json::{Value, json};

use super::{PAGE, key_object};
use crate::output::Output;

/// Bytes read from stdin.
const INPUT: u64 = 4_096;
/// What begins like a key and is as long as this is taken for one, mistyped or not.
const LIKE_A_KEY: usize = 20;
/// A key that is unused for so long should not be there any more.
const LONG: Millis = 90 * 86_400_000;

/// Finds keys by id, first characters or a part of the label; `-`: by the key itself, from stdin.
pub async fn find(app: &App, out: &Output, what: &str) -> Result<()> {
    let prefix = &app.settings.key_prefix;
    let what = what.trim();
    let keys: Vec<Key> = if what == "-" {
        super::super::open_keyring(app).await?;
        let found = app.find_key(Some(&from_stdin(prefix)?)).await?;
        found.key.map(Arc::unwrap_or_clone).into_iter().collect()
    } else {
        refuse_a_key(prefix, what)?;
        ensure!(
            !what.is_empty(),
            "say what to find: an id, the first characters, a part of the label, or -"
        );
        match what.parse::<KeyId>() {
            Ok(id) => app.store.key(id, None).await?.into_iter().collect(),
            Err(_) => matching(app, None, |key| fits(key, prefix, what)).await?,
        }
    };
    let objects: Vec<Value> = keys.iter().map(|key| key_object(app, key)).collect();
    out.object(&json!({ "keys": objects }))?;
    if keys.is_empty() {
        bail!("no key is found; a deleted one is found only by itself, from stdin (-)");
    }
    let mut rows = vec![row(["KEY", "BEGINS", "STATUS", "LABEL", "ACCOUNT", "CREATED", "WHY"])];
    rows.extend(keys.iter().map(|key| {
        row([
            &key.id.to_string(),
            &format!("{}…", key.start),
            key.status(app.now()),
            &key.label,
            &key.account.to_string(),
            &rfc3339(key.created_at),
            key.suspended.as_ref().map(|one| one.reason.as_str()).unwrap_or_default(),
        ])
    }));
    out.table("", 7, &rows);
    Ok(())
}

fn row(cells: [&str; 7]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// A key on a command line is leaked already.
fn refuse_a_key(prefix: &str, what: &str) -> Result<()> {
    let like = what.starts_with(prefix) && what.len() >= LIKE_A_KEY;
    ensure!(
        !like && Secret::find_in(prefix, what.as_bytes()).next().is_none(),
        "a key does not belong on a command line: every user of this machine can see it there, and the \
         shell keeps it in its history. Give it by stdin (listmill admin key find - <file), or ask by its \
         first 8 characters. This one should be rotated"
    );
    Ok(())
}

fn from_stdin(prefix: &str) -> Result<Secret> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(INPUT)
        .read_to_string(&mut text)
        .context("stdin cannot be read")?;
    // What was read is not shown: it may be a key with a slip in it.
    // One of another form may have been imported.
    Secret::parse(prefix, text.trim()).ok().or_else(|| Secret::foreign(text.trim())).context(
        "what came by stdin is no key: neither our form nor up to 512 visible characters of ASCII",
    )
}

fn fits(key: &Key, prefix: &str, what: &str) -> bool {
    let start = what.starts_with(prefix) && key.start.starts_with(what);
    start || key.label.to_lowercase().contains(&what.to_lowercase())
}

/// Keys that are not deleted and for which `wanted` holds, oldest first, read a page at a time.
async fn matching(
    app: &App,
    owner: Option<AccountId>,
    wanted: impl Fn(&Key) -> bool,
) -> Result<Vec<Key>> {
    let filter = Filter { account: owner, ..Filter::default() };
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = app.store.keys(&filter, cursor, PAGE).await?;
        cursor = page.last().map(|key| key.id);
        let full = page.len() as i64 == PAGE;
        found.extend(page.into_iter().filter(&wanted));
        if !full {
            return Ok(found);
        }
    }
}

/// What the rules look at.
struct Facts {
    created_at: Millis,
    expires_at: Option<Millis>,
    /// When its rotation is due.
    due_at: Option<Millis>,
    /// When it was used last; `None` = never.
    last_used: Option<Millis>,
    everything: bool,
    anywhere: bool,
}

fn facts(key: &Key, reminder: Millis, last_used: Option<Millis>) -> Facts {
    Facts {
        due_at: key.rotation_due_at(reminder),
        created_at: key.created_at,
        expires_at: key.expires_at,
        last_used,
        everything: key.scopes.is_everything(),
        anywhere: key.allow.is_empty(),
    }
}

/// A rule: its name, what it means, and whether a key breaks it.
type Rule = (&'static str, &'static str, fn(&Facts, Millis) -> bool);

const RULES: [Rule; 5] = [
    ("no_expiry", "never ends by itself", has_no_expiry),
    ("old", "has been the same for as long as key_rotation_reminder says: rotate it", is_old),
    ("unused", "unused for 90 days: delete it", is_unused),
    ("all_scopes", "may do everything: give it the scopes that it needs", has_all_scopes),
    (
        "no_allow_list",
        "works from anywhere: give it the networks that it is used from",
        has_no_allow_list,
    ),
];

fn has_no_expiry(facts: &Facts, _: Millis) -> bool {
    facts.expires_at.is_none()
}

fn is_old(facts: &Facts, now: Millis) -> bool {
    facts.due_at.is_some_and(|due| due <= now)
}

/// A key that was never used counts from when it was made.
fn is_unused(facts: &Facts, now: Millis) -> bool {
    now - facts.last_used.unwrap_or(facts.created_at) >= LONG
}

fn has_all_scopes(facts: &Facts, _: Millis) -> bool {
    facts.everything
}

fn has_no_allow_list(facts: &Facts, _: Millis) -> bool {
    facts.anywhere
}

/// The rules that a key breaks.
fn broken(facts: &Facts, now: Millis) -> Vec<&'static Rule> {
    RULES.iter().filter(|(_, _, breaks)| breaks(facts, now)).collect()
}

/// Lists active keys that ask for trouble, and why.
pub async fn hygiene(app: &App, out: &Output, owner: Option<AccountId>) -> Result<()> {
    let now = app.now();
    let keys = matching(app, owner, |key| key.alive(now).is_ok()).await?;
    let mut used = HashMap::new();
    for some in keys.chunks(PAGE as usize) {
        let ids: Vec<KeyId> = some.iter().map(|key| key.id).collect();
        used.extend(app.store.last_used(&ids).await?);
    }
    let reminder = app.rotation_reminder();
    let due = keys.iter().filter(|key| key.rotation_due_at(reminder).is_some_and(|at| at <= now));
    let due = due.count();
    let last = |key: &Key| used.get(&key.id).map(|last| last.at);
    let judged: Vec<_> =
        keys.iter().map(|key| (key, broken(&facts(key, reminder, last(key)), now))).collect();
    let bad = || judged.iter().filter(|(_, rules)| !rules.is_empty());
    let objects: Vec<Value> = bad()
        .map(|(key, rules)| {
            let mut object = key_object(app, key);
            object["findings"] = rules.iter().map(|(name, _, _)| *name).collect();
            object
        })
        .collect();
    out.object(&json!({ "active": keys.len(), "rotation_due": due, "keys": objects }))?;
    for (key, rules) in bad() {
        out.say(format!("{}  {}…  {}  ({})", key.id, key.start, key.label, key.account));
        for (name, what, _) in rules {
            out.say(format!("    {name}: {what}"));
        }
    }
    let (troubled, active) = (objects.len(), keys.len());
    out.say(format!(
        "{troubled} of {active} active keys ask for trouble; {due} are due for rotation"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 86_400_000;

    fn names(facts: &Facts) -> Vec<&'static str> {
        broken(facts, 100 * DAY).iter().map(|(name, _, _)| *name).collect()
    }

    #[test]
    fn each_rule_finds_its_own() {
        let good = || Facts {
            created_at: 20 * DAY,
            expires_at: Some(200 * DAY),
            due_at: Some(110 * DAY),
            last_used: Some(99 * DAY),
            everything: false,
            anywhere: false,
        };
        assert!(names(&good()).is_empty());
        assert_eq!(names(&Facts { expires_at: None, ..good() }), ["no_expiry"]);
        assert_eq!(names(&Facts { due_at: Some(100 * DAY), ..good() }), ["old"]);
        assert_eq!(names(&Facts { last_used: Some(10 * DAY), ..good() }), ["unused"]);
        assert_eq!(names(&Facts { last_used: None, created_at: 0, ..good() }), ["unused"]);
        assert_eq!(names(&Facts { everything: true, ..good() }), ["all_scopes"]);
        assert_eq!(names(&Facts { anywhere: true, ..good() }), ["no_allow_list"]);
    }

    #[test]
    fn a_key_is_refused_as_an_argument_and_not_repeated() {
        let key = Secret::from_random("VEC", &[7; 31]).reveal().to_owned();
        let mut slip = key.clone();
        slip.pop();
        for what in [&key, &slip, &format!("it is {key}")] {
            let error = refuse_a_key("VEC", what).unwrap_err().to_string();
            assert!(!error.contains(&slip[3..]), "{error}");
        }
        for what in ["VECabcde", "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e", "production", ""] {
            assert!(refuse_a_key("VEC", what).is_ok(), "{what}");
        }
    }
}
