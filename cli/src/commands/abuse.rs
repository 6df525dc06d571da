//! `listmill admin abuse …`: what abuse protection has found.

use anyhow::Result;
use listmill_shared::app::App;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::store::abuse::Signal;
use serde_json::{Value, json};

use crate::args::AbuseCommand;
use crate::output::Output;

pub async fn run(app: &App, out: &Output, command: AbuseCommand) -> Result<()> {
    match command {
        AbuseCommand::List { subject, limit } => {
            let signals = app.store.signals(subject.as_deref(), None, limit).await?;
            let objects: Vec<Value> = signals.iter().map(object).collect();
            out.object(&json!({ "signals": objects }))?;
            if signals.is_empty() {
                out.say("no signals");
            }
            signals.iter().for_each(|signal| out.say(line(signal)));
        }
    }
    Ok(())
}

/// For programs.
pub fn object(signal: &Signal) -> Value {
    json!({
        "id": signal.id.to_string(),
        "at": rfc3339(signal.at),
        "rule": signal.rule.as_str(),
        "subject": signal.subject,
        "account_id": signal.account,
        "count": signal.counted,
        "strikes": signal.strikes,
        "action": signal.action.as_str(),
        "ends_at": rfc3339(signal.ends_at),
        "detail": detail(signal),
    })
}

/// For people.
pub fn line(signal: &Signal) -> String {
    format!(
        "{}  {}  {}  count {}  strike {}  {} until {}  {}",
        rfc3339(signal.at),
        signal.rule.as_str(),
        signal.subject,
        signal.counted,
        signal.strikes,
        signal.action.as_str(),
        rfc3339(signal.ends_at),
        signal.detail,
    )
}

fn detail(signal: &Signal) -> Value {
    serde_json::from_str(&signal.detail).unwrap_or(Value::Null)
}
