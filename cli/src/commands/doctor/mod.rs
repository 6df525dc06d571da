//! `listmill doctor`: looks at what a deployment stands on, before it stands on it.
//!
//! The checks run at the same time, each bounded; a finding is shown as soon as it is there.

mod machine;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use listmill_shared::app::doctor::{Finding, State};
use listmill_shared::settings::{ProviderKind, Settings};
use listmill_worker::doctor::{Targets, examine};
use listmill_worker::provider::smtp_config;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::Context;
use crate::output::Output;

/// However badly everything hangs.
const WHOLE: Duration = Duration::from_secs(29);

pub async fn run(context: Context) -> Result<ExitCode> {
    let out = context.output;
    out.say("Looking around; this takes half a minute at most.\n");
    let (findings, mut found) = unbounded_channel();
    let looking = async {
        let all = async {
            tokio::join!(
                machine::settings(&context.settings, &findings),
                machine::files(&context.settings, &findings),
                machine::database(&context, &findings),
                machine::redis(&context, &findings),
                machine::own_mail(&context.settings, &findings),
                mail(&context, &findings),
            );
        };
        if tokio::time::timeout(WHOLE, all).await.is_err() {
            let found = "not everything could be looked at in time";
            let _ = findings.send(Finding::warning("time", found, "Run this again."));
        }
        drop(findings);
        Ok(())
    };
    let showing = async {
        let mut all = Vec::new();
        while let Some(finding) = found.recv().await {
            show(&out, &finding);
            all.push(finding);
        }
        all
    };
    let both = async { tokio::join!(looking, showing) };
    let (looked, all) = context.shutdown.or_interrupted(async { Ok(both.await) }).await?;
    looked.and_then(|()| tell(&out, &all))
}

/// What asking mail servers needs.
async fn mail(context: &Context, findings: &UnboundedSender<Finding>) {
    let settings: &Settings = &context.settings;
    if settings.provider != ProviderKind::Smtp {
        let found = "the provider asks no mail servers, so DNS, port 25, reverse DNS and blocklists were \
                     not looked at (LISTMILL_PROVIDER=smtp would)";
        let _ = findings.send(Finding::ok("mail", found));
        return;
    }
    let problem = match smtp_config(settings) {
        Err(error) => Some(error.to_string()),
        Ok(config) => {
            let (targets, clock) = (Targets::of(&config), &context.clock);
            let looked = examine(&config, &targets, clock, &context.ids, findings.clone()).await;
            looked.err().map(|error| error.to_string())
        }
    };
    if let Some(problem) = problem {
        let advice = "Put the setting right; the message names it.";
        let _ = findings.send(Finding::problem("mail", problem, advice));
    }
}

fn show(out: &Output, finding: &Finding) {
    out.say(format!("{:8} {:12} {}", word(finding.state), finding.check, finding.found));
    if let Some(advice) = &finding.advice {
        out.say(format!("{:21} → {advice}", ""));
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Problem => "PROBLEM",
    }
}

/// The sum; exit 1 if there is a problem.
fn tell(out: &Output, findings: &[Finding]) -> Result<ExitCode> {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (problems, warnings) = (count(State::Problem), count(State::Warning));
    out.say(match (problems, warnings) {
        (0, 0) => String::from("\nAll is well."),
        (0, warnings) => format!("\nNo problem; {warnings} warning(s)."),
        _ => format!("\n{problems} problem(s), {warnings} warning(s)."),
    });
    out.object(&json!({
        "ok": problems == 0,
        "problems": problems,
        "warnings": warnings,
        "checks": findings,
    }))?;
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
