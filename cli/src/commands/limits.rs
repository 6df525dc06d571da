//! `listmill admin limits …`: the lever against overload.

use anyhow::Result;
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::factor::{Factor, Tightened};
use listmill_shared::store::limit_factor::Lever;
use serde_json::json;

use crate::args::LimitsCommand;
use crate::output::Output;

pub async fn run(app: &App, out: &Output, command: LimitsCommand) -> Result<()> {
    let (now, by) = (app.now(), Origin::operator());
    match command {
        LimitsCommand::Tighten { factor, lasts, note } => {
            let ends_at = now + lasts.as_millis() as i64;
            let tightened = Tightened { factor, ends_at };
            app.store.set_limit_factor(&tightened, note.as_deref(), &by, now).await?;
            tracing::warn!(
                thousandths = factor.thousandths(),
                ends_at = %rfc3339(ends_at),
                note = note.as_deref().unwrap_or_default(),
                "request limits tightened by an operator"
            );
        }
        LimitsCommand::Relax { note } => {
            let tightened = Tightened { factor: Factor::ONE, ends_at: now };
            app.store.set_limit_factor(&tightened, note.as_deref(), &by, now).await?;
            tracing::warn!(
                note = note.as_deref().unwrap_or_default(),
                "request limits made whole again by an operator"
            );
        }
        LimitsCommand::Show => {}
    }
    show(out, &app.store.limit_lever().await?, app.now())
}

fn show(out: &Output, lever: &Lever, now: i64) -> Result<()> {
    let factor = lever.tightened.at(now);
    let tight = now < lever.tightened.ends_at;
    let ends_at = tight.then(|| rfc3339(lever.tightened.ends_at));
    let set_at = (lever.set_at > 0).then(|| rfc3339(lever.set_at));
    let part = factor.thousandths() as f64 / 1_000.0;
    out.object(&json!({
        "factor": part, "tightened": tight, "ends_at": ends_at, "set_at": set_at, "note": lever.note,
    }))?;
    let note = lever.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    out.say(match (ends_at, set_at) {
        (Some(ends_at), _) => format!(
            "every request limit is at {part} of its figure until {ends_at}{note}; \
             `listmill admin limits relax` ends that now"
        ),
        (None, Some(set_at)) => format!("request limits are whole; last changed at {set_at}{note}"),
        (None, None) => String::from("request limits are whole, and never were anything else"),
    });
    Ok(())
}
