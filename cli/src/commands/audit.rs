//! `listmill admin audit …`: is the audit log as it was written, and its rows for whoever keeps them.

use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::app::audit::Verified;
use listmill_shared::domain::audit::{Break, INSTALLATION};
use listmill_shared::domain::id::AccountId;
use serde_json::{Value, json};

use super::admin;
use crate::args::AuditCommand;
use crate::output::{Output, grouped};

/// Runs one of the commands.
pub async fn run(app: &App, out: &Output, command: AuditCommand) -> Result<ExitCode> {
    match command {
        AuditCommand::Verify { account } => verify(app, out, owner(app, account).await?).await,
        AuditCommand::Export { account } => {
            export(app, owner(app, account).await?).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn owner(app: &App, name: Option<String>) -> Result<Option<AccountId>> {
    match name {
        Some(name) => admin::account(app, &name).await.map(Some),
        None => Ok(None),
    }
}

async fn verify(app: &App, out: &Output, owner: Option<AccountId>) -> Result<ExitCode> {
    let mut progress = None;
    let mut told = |done, all| {
        progress
            .get_or_insert_with(|| out.progress("reading the audit log", all, "rows"))
            .set(done);
    };
    let found = app.verify_audit(owner, &mut told).await.context("cannot read the audit log")?;
    if let Some(progress) = progress {
        progress.finish();
    }
    out.object(&object(&found))?;
    for one in &found.breaks {
        out.say(format!("  BROKEN  {}: {one}", name(one.chain)));
    }
    let more = found.broken - found.breaks.len() as u64;
    if more > 0 {
        out.say(format!("  …and {} places more", grouped(more)));
    }
    let (rows, chains) = (grouped(found.rows), grouped(found.chains));
    out.say(match found.broken {
        0 => format!("  the audit log is as it was written: {rows} rows in {chains} chains"),
        n => format!("  broken in {} places: {rows} rows in {chains} chains", grouped(n)),
    });
    Ok(if found.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn name(chain: AccountId) -> String {
    if chain == INSTALLATION { String::from("installation") } else { chain.to_string() }
}

fn object(found: &Verified) -> Value {
    let place = |one: &Break| {
        json!({
            "account": (one.chain != INSTALLATION).then_some(one.chain),
            "row": one.seq,
            "how": one.how.as_str(),
            "detail": one.to_string(),
        })
    };
    json!({
        "ok": found.broken == 0,
        "rows": found.rows,
        "chains": found.chains,
        "broken": found.broken,
        "breaks": found.breaks.iter().map(place).collect::<Vec<_>>(),
    })
}

/// To stdout, whatever the output is.
async fn export(app: &App, owner: Option<AccountId>) -> Result<()> {
    let mut walk = app.walk_audit(owner);
    let mut stdout = BufWriter::new(std::io::stdout());
    while let Some(piece) = walk.next().await.context("cannot read the audit log")? {
        let mut write = || {
            for row in &piece.rows {
                writeln!(stdout, "{}", listmill_api::audit_line(row))?;
            }
            stdout.flush()
        };
        match write() {
            // A reader that went away (`| head`) has what it wanted.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write to stdout")?,
        }
    }
    Ok(())
}
