//! `listmill admin key suspend` and `unsuspend`.

use anyhow::{Context as _, Result, bail};
use listmill_shared::app::App;
use listmill_shared::app::keys::KeyError;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::key::Suspension;
use listmill_shared::store::abuse_acts::Lifted;
use serde_json::{Value, json};

use super::{key_id_of, key_object, no_key, show_changed};
use crate::args::EndArgs;
use crate::commands::abuse;
use crate::output::Output;

pub async fn suspend(
    app: &App,
    out: &Output,
    key_id: &str,
    reason: String,
    note: Option<String>,
    end: &EndArgs,
) -> Result<()> {
    let (id, by) = (key_id_of(app, key_id)?, Origin::operator());
    let until = end.ends_at(app.now());
    let suspended = app.suspend_key(id, Suspension { reason, until, note }, &by).await;
    let key = match suspended {
        Err(KeyError::NotFound) => bail!(no_key(id)),
        suspended => suspended?.key,
    };
    show_changed(app, out, &key)?;
    if let Some(until) = until {
        out.say(format!("it ends by itself at {}", rfc3339(until)));
    }
    Ok(())
}

/// Says what had suspended the key, and what is reset.
pub async fn unsuspend(app: &App, out: &Output, key_id: &str, why: Option<&str>) -> Result<()> {
    let id = key_id_of(app, key_id)?;
    let lifted = app.lift_suspension(id, &Origin::operator()).await?;
    let lifted = lifted.with_context(|| no_key(id))?;
    tracing::info!(key = %id, reason = why.unwrap_or_default(), "suspension lifted");
    let (was, key) = &*lifted.keys;
    let mut object = key_object(app, key);
    object["was_suspended"] = json!(was.suspended.as_ref().map(|one| json!({
        "reason": one.reason, "until": one.until.map(rfc3339), "note": one.note,
    })));
    object["signal"] = lifted.signal.as_ref().map_or(Value::Null, abuse::object);
    object["reset"] = reset(&lifted);
    out.object(&object)?;
    let status = key.status(app.now());
    out.say(format!("key {id} ({}) is {status} from now on", key.label));
    match (&was.suspended, &lifted.signal) {
        (None, _) => out.say("it was not suspended"),
        (Some(one), None) => {
            let note = one.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            out.say(format!("it was suspended by an operator or a report: {}{note}", one.reason));
        }
        (Some(_), Some(signal)) => {
            out.say("it was suspended by abuse protection:");
            out.say(format!("  {}", abuse::line(signal)));
        }
    }
    let strikes: Vec<String> = lifted
        .strikes
        .iter()
        .map(|(rule, strikes)| format!("{} strikes of {}", strikes, rule.as_str()))
        .collect();
    out.say(format!(
        "reset: {}; {} counts; {} networks are known from now on",
        if strikes.is_empty() { String::from("no strikes") } else { strikes.join(", ") },
        lifted.counts,
        lifted.networks,
    ));
    Ok(())
}

fn reset(lifted: &Lifted) -> Value {
    let strikes: Vec<Value> = lifted
        .strikes
        .iter()
        .map(|(rule, strikes)| json!({ "rule": rule.as_str(), "strikes": strikes }))
        .collect();
    json!({ "strikes": strikes, "counts": lifted.counts, "known_networks": lifted.networks })
}
