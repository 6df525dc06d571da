//! `listmill admin key rotate`, `cut`, and `create --link`.

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::app::key_links::Link;
use listmill_shared::app::keys::By;
use listmill_shared::app::rotation::{Rotated, Rotation};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::{Millis, parse_rfc3339, rfc3339};
use listmill_shared::domain::id::{AccountId, KeyId, TaskId};
use listmill_shared::domain::key::fields::Fields;
use listmill_shared::domain::request::LastUse;
use listmill_shared::domain::task::TaskStatus;
use serde_json::{Value, json};

use super::{key_id_of, key_object};
use crate::args::RotateArgs;
use crate::commands::open_keyring;
use crate::output::Output;

/// Puts a new key in the place of one, and says by whom the old one is still used.
pub async fn rotate(app: &App, out: &Output, args: RotateArgs) -> Result<()> {
    let id = key_id_of(app, &args.key_id)?;
    let at = args.at.as_deref().map(|text| {
        parse_rfc3339(text)
            .with_context(|| format!("{text:?} is no time such as 2030-01-31T12:00:00Z"))
    });
    let how =
        Rotation { grace_ms: args.grace.as_millis() as i64, at: at.transpose()?, link: args.link };
    open_keyring(app).await?;
    let (by, salt) = (Origin::operator(), app.ids.bytes::<32>());
    let rotated = app.rotate_key(id, None, how, By::nobody(&by), &salt).await;
    let rotated = rotated.with_context(|| format!("cannot rotate the key {id}"))?;
    let last = app.store.last_used(&[id]).await?.remove(&id);
    out.object(&object(app, &rotated, last.as_ref()))?;
    let Rotated { key, secret, link, old, tasks } = &rotated;
    match link {
        Some(link) => say_link(app, out, link),
        None => out.say(format!("{}\n", secret.reveal())),
    }
    let shown = if link.is_some() { "" } else { "; its secret is shown this once: keep it" };
    out.say(format!("key {} ({}) takes the place of {}{shown}", key.id, key.label, old.id));
    if let Some(begin) = key.not_before.filter(|begin| *begin > app.now()) {
        out.say(format!(
            "it opens from {} on; deleting it until then takes that back",
            rfc3339(begin)
        ));
    }
    let now = app.now();
    match old.expires_at {
        Some(end) if end > now => {
            out.say(format!(
                "the old one opens until {} ({} more); now: listmill admin key cut {}",
                rfc3339(end),
                about(end - now),
                old.id
            ));
        }
        _ => out.say("the old one opens nothing any more"),
    }
    out.say(used(last.as_ref(), tasks, now));
    Ok(())
}

fn object(app: &App, rotated: &Rotated, last: Option<&LastUse>) -> Value {
    let Rotated { key, secret, link, old, tasks } = rotated;
    let tasks: Vec<Value> =
        tasks.iter().map(|(id, status)| json!({ "id": id, "status": status.as_str() })).collect();
    let mut object = json!({
        "id": key.id,
        "start": key.start,
        "not_before": key.not_before.map(rfc3339),
        "old": {
            "id": old.id,
            "ends_at": old.expires_at.map(rfc3339),
            "last_used": last.map(|last| json!({
                "at": rfc3339(last.at), "ip": last.ip, "route": last.route,
            })),
            "tasks": tasks,
        },
    });
    match link {
        Some(link) => {
            object["link"] = json!(app.link_url(&link.token));
            object["link_expires_at"] = json!(rfc3339(link.ends_at));
        }
        None => object["key"] = json!(secret.reveal()),
    }
    object
}

/// Ends a rotated key now.
pub async fn cut(app: &App, out: &Output, key_id: &str) -> Result<()> {
    let id = key_id_of(app, key_id)?;
    let by = Origin::operator();
    let receipt = app.cut_key(id, None, By::nobody(&by)).await;
    let receipt = receipt.with_context(|| format!("cannot end the key {id}"))?;
    let last = app.store.last_used(&[id]).await?.remove(&id);
    out.object(&key_object(app, &receipt.key))?;
    out.say(format!("key {id} ({}) opens nothing from now on", receipt.key.label));
    out.say(used(last.as_ref(), &receipt.tasks, app.now()));
    Ok(())
}

/// Makes a key, and prints the link that shows its secret once.
pub async fn create_with_link(
    app: &App,
    out: &Output,
    owner: AccountId,
    fields: Fields,
) -> Result<KeyId> {
    open_keyring(app).await?;
    let (by, salt) = (Origin::operator(), app.ids.bytes::<32>());
    let (key, link) = app.create_key_with_link(owner, fields, By::nobody(&by), &salt).await?;
    out.object(&json!({
        "key_id": key.id,
        "link": app.link_url(&link.token),
        "link_expires_at": rfc3339(link.ends_at),
    }))?;
    say_link(app, out, &link);
    Ok(key.id)
}

fn say_link(app: &App, out: &Output, link: &Link) {
    out.say(format!("{}\n", app.link_url(&link.token)));
    out.say(format!(
        "the link shows the secret once, to whoever uses it first, until {}",
        rfc3339(link.ends_at)
    ));
    if app.settings.public_url.is_empty() {
        out.say("put the API's address before it, or set LISTMILL_PUBLIC_URL");
    }
}

/// By whom a key is still used.
fn used(last: Option<&LastUse>, tasks: &[(TaskId, TaskStatus)], now: Millis) -> String {
    let tasks = match tasks.len() {
        0 => String::new(),
        1 => String::from("; 1 task of it goes on"),
        n => format!("; {n} tasks of it go on"),
    };
    match last {
        None => format!("the old one was never used{tasks}"),
        Some(last) => {
            let from = last.ip.as_deref().unwrap_or("an unknown address");
            let (ago, route) = (about((now - last.at).max(0)), &last.route);
            format!("the old one was used last by {from}, {ago} ago ({route}){tasks}")
        }
    }
}

/// A time's length in its largest unit.
pub(super) fn about(millis: Millis) -> String {
    let seconds = millis / 1_000;
    let (count, unit) = match seconds {
        ..=119 => (seconds, "second"),
        120..=7_199 => (seconds / 60, "minute"),
        7_200..=172_799 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::id::Ids;

    #[test]
    fn it_is_said_by_whom_a_key_is_still_used() {
        let ids = Ids::seeded(1);
        let task = || (TaskId::new(&ids, 1), TaskStatus::Running);
        let ip = Some(String::from("10.2.3.4"));
        let last = LastUse { at: 1_000, ip, route: String::from("/v1/tasks") };
        let now = 1_000 + 4 * 60_000;
        assert_eq!(
            used(Some(&last), &[task(), task()], now),
            "the old one was used last by 10.2.3.4, 4 minutes ago (/v1/tasks); 2 tasks of it go on"
        );
        assert_eq!(used(None, &[], now), "the old one was never used");
    }

    #[test]
    fn lengths_are_told_in_their_largest_unit() {
        for (millis, text) in [
            (1_000, "1 second"),
            (90_000, "90 seconds"),
            (240_000, "4 minutes"),
            (86_400_000, "24 hours"),
            (8 * 86_400_000, "8 days"),
        ] {
            assert_eq!(about(millis), text);
        }
    }
}
