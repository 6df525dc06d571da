//! `listmill admin task`: tasks, whosever they are, and the lines that an operator draws through them.

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::app::control::{ControlError, Settlement};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::{Task, TaskStatus};
use serde_json::{Value, json};

use super::account;
use crate::args::{PageArgs, TaskCommand};
use crate::output::{Output, signed};

pub async fn run(app: &App, out: &Output, command: TaskCommand) -> Result<()> {
    let by = Origin::operator();
    match command {
        TaskCommand::List { account, status, page } => {
            list(app, out, account.as_deref(), status, &page).await
        }
        TaskCommand::Show { task } => show(app, out, &find(app, task).await?),
        TaskCommand::Cancel { task } => {
            let owner = find(app, task).await?.account;
            let cancelled = app.cancel_by(task, owner, &by).await;
            let (task, settlement) = cancelled.map_err(|error| said(error, task))?;
            out.object(&json!({ "task": object(app, &task)?, "settlement": settled(settlement) }))?;
            out.say(format!("{} is cancelled: not one further credit is charged for it", task.id));
            out.say(format!(
                "{} charged, {} refunded, {} released; {} addresses were not processed",
                signed(settlement.charged),
                signed(settlement.refunded),
                signed(settlement.released),
                signed(settlement.not_processed),
            ));
            Ok(())
        }
        TaskCommand::Pause { task } => {
            let owner = find(app, task).await?.account;
            let paused = app.pause_by(task, owner, &by).await.map_err(|error| said(error, task))?;
            out.object(&object(app, &paused)?)?;
            out.say(format!("{task} is paused until somebody resumes it"));
            Ok(())
        }
        TaskCommand::Resume { task } => {
            let owner = find(app, task).await?.account;
            let resumed = app.resume_by(task, owner, &by).await;
            let resumed = resumed.map_err(|error| said(error, task))?;
            out.object(&object(app, &resumed)?)?;
            out.say(format!("{task} goes on: it is {}", resumed.status));
            Ok(())
        }
        TaskCommand::Erase { task } => {
            let owner = find(app, task).await?.account;
            app.erase_by(task, owner, &by).await.map_err(|error| said(error, task))?;
            out.object(&json!({ "id": task, "erased": true }))?;
            out.say(format!("{task} is erased with its results; what it cost stays in the ledger"));
            Ok(())
        }
    }
}

async fn find(app: &App, id: TaskId) -> Result<Task> {
    let task = app.store.any_task(id).await?;
    task.with_context(|| format!("no task {id}, or it was erased"))
}

/// What was refused, and the command that helps.
fn said(error: ControlError, task: TaskId) -> anyhow::Error {
    let help = match &error {
        ControlError::Insufficient => {
            "; `listmill admin credits grant` fills it, and the task goes on by itself"
        }
        ControlError::WrongState(status) if !status.has_ended() => {
            "; `listmill admin task cancel` ends it"
        }
        _ => "",
    };
    anyhow::anyhow!("cannot change {task}: {error}{help}")
}

fn object(app: &App, task: &Task) -> Result<Value> {
    let mut object = listmill_api::task_object(task, app.now(), app.settings.results_ttl)?;
    object["account_id"] = json!(task.account);
    Ok(object)
}

fn settled(settlement: Settlement) -> Value {
    let Settlement { charged, refunded, released, not_processed } = settlement;
    json!({
        "charged": charged, "refunded": refunded, "released": released,
        "not_processed": not_processed,
    })
}

async fn list(
    app: &App,
    out: &Output,
    owner: Option<&str>,
    status: Option<TaskStatus>,
    page: &PageArgs,
) -> Result<()> {
    let owner = match owner {
        Some(owner) => Some(account(app, owner).await?),
        None => None,
    };
    let before: Option<TaskId> =
        page.cursor.as_deref().map(str::parse).transpose().context("--cursor is no task's id")?;
    let mut tasks = app.store.search_tasks(owner, status, before, page.limit + 1).await?;
    let more = tasks.len() as i64 > page.limit;
    tasks.truncate(page.limit as usize);
    let next = tasks.last().filter(|_| more).map(|task| task.id);
    let data: Vec<Value> = tasks.iter().map(|task| object(app, task)).collect::<Result<_>>()?;
    out.object(&json!({ "data": data, "next_cursor": next }))?;
    if tasks.is_empty() {
        out.say("no such tasks");
        return Ok(());
    }
    let head = ["TASK", "STATUS", "ACCOUNT", "SUBMITTED", "NAME", "DONE", "OF", "CHARGED"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(tasks.iter().map(|task| {
        vec![
            task.id.to_string(),
            state(task),
            task.account.to_string(),
            rfc3339(task.created_at),
            task.name.clone().unwrap_or_default(),
            signed(task.tally.processed()),
            signed(task.submitted.unique),
            signed(task.tally.charged),
        ]
    }));
    out.table("", 5, &rows);
    if let Some(next) = next {
        out.say(format!("more: --cursor {next}"));
    }
    Ok(())
}

/// Its status, and why it stands still.
fn state(task: &Task) -> String {
    match task.pause_reason {
        Some(reason) => format!("{} ({})", task.status, reason.as_str()),
        None => task.status.to_string(),
    }
}

fn show(app: &App, out: &Output, task: &Task) -> Result<()> {
    out.object(&object(app, task)?)?;
    let (submitted, tally) = (&task.submitted, &task.tally);
    let or_not = |at: Option<i64>| at.map_or_else(|| String::from("not yet"), rfc3339);
    let facts = [
        ("task", task.id.to_string()),
        ("name", task.name.clone().unwrap_or_default()),
        ("status", state(task)),
        ("account", task.account.to_string()),
        ("submitted", rfc3339(task.created_at)),
        ("begun", or_not(task.started_at)),
        ("ended", or_not(task.finished_at)),
        ("addresses", signed(submitted.unique)),
        ("with a result", signed(tally.processed())),
        ("deliverable", signed(tally.deliverable)),
        ("undeliverable", signed(tally.undeliverable)),
        ("risky", signed(tally.risky)),
        ("unknown", signed(tally.unknown)),
        ("credits held", signed(task.held)),
        ("credits charged", signed(tally.charged)),
        ("credits refunded", signed(tally.refunded)),
    ];
    super::show_facts(out, &facts);
    Ok(())
}
