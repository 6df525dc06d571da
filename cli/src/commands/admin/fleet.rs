//! `listmill admin worker` and `queue`: who works, and what waits.

use anyhow::{Result, ensure};
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::{Millis, rfc3339};
use listmill_shared::store::workers::Worker;
use serde_json::{Value, json};

use super::rotate::about;
use crate::args::WorkerCommand;
use crate::output::{Output, signed};

pub async fn worker(app: &App, out: &Output, command: WorkerCommand) -> Result<()> {
    match command {
        WorkerCommand::List => list(app, out).await,
        WorkerCommand::Drain { name } => {
            let told = app.drain_worker(&name, &Origin::operator()).await?;
            ensure!(
                told,
                "no worker {name:?} that can be drained lives; `listmill admin worker list` shows those \
                 that do, and one inside `up` ends with its process"
            );
            out.object(&json!({ "name": name, "state": "draining" }))?;
            out.say(format!(
                "{name} ends what it has begun and exits; what starts it again starts a new worker"
            ));
            Ok(())
        }
    }
}

/// What a worker does, as the operator's page calls it.
fn state(app: &App, worker: &Worker) -> &'static str {
    match (app.is_silent(worker), worker.drain, worker.concurrency) {
        (true, ..) => "silent",
        (false, true, _) => "draining",
        (false, false, 0) => "provider_down",
        (false, false, _) => "verifying",
    }
}

async fn list(app: &App, out: &Output) -> Result<()> {
    let workers = app.store.workers().await?;
    let objects: Vec<Value> = workers.iter().map(|one| object(app, one)).collect();
    out.object(&json!({ "data": objects }))?;
    if workers.is_empty() {
        out.say("no workers; `listmill worker` starts one");
        return Ok(());
    }
    let head =
        ["WORKER", "STATE", "FROM", "VERSION", "LAST SEEN", "AT ONCE", "A SECOND", "BATCHES"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(workers.iter().map(|one| {
        vec![
            one.name.clone(),
            state(app, one).to_owned(),
            one.source.clone(),
            one.version.clone(),
            format!("{} ago", about((app.now() - one.seen_at).max(0))),
            signed(one.concurrency),
            signed(one.pace),
            signed(one.leases),
        ]
    }));
    out.table("", 5, &rows);
    Ok(())
}

fn object(app: &App, worker: &Worker) -> Value {
    // 0: its program is from before it was told.
    let started_at = Some(worker.started_at).filter(|at| *at > 0).map(rfc3339);
    json!({
        "name": worker.name,
        "state": state(app, worker),
        "source": worker.source,
        "version": worker.version,
        "concurrency": worker.concurrency,
        "addresses_per_second": worker.pace,
        "batches": worker.leases,
        "can_drain": worker.can_drain,
        "started_at": started_at,
        "seen_at": rfc3339(worker.seen_at),
    })
}

/// What waits for workers.
pub async fn queue(app: &App, out: &Output) -> Result<()> {
    let waits = app.waits().await?;
    let (now, batches) = (app.now(), &waits.batches);
    let addresses: i64 = waits.accounts.iter().map(|one| one.addresses).sum();
    let accounts: Vec<Value> = waits
        .accounts
        .iter()
        .map(|one| {
            json!({
                "account_id": one.account_id,
                "email": one.email,
                "tasks": one.tasks,
                "batches": one.batches,
                "addresses": one.addresses,
                "oldest_task_at": rfc3339(one.since),
            })
        })
        .collect();
    out.object(&json!({
        "addresses": addresses,
        "batches": {
            "pending": batches.pending, "queued": batches.queued,
            "leased": batches.leased, "deferred": batches.deferred,
        },
        "waiting_since": batches.waiting_since.map(rfc3339),
        "oldest_queued_task": waits.oldest.map(|one| json!({
            "id": one.id, "created_at": rfc3339(one.created_at),
        })),
        "accounts": accounts,
    }))?;
    let ago = |at: Millis| about((now - at).max(0));
    super::show_facts(
        out,
        &[
            ("addresses that wait", signed(addresses)),
            ("batches not sent yet, those of paused tasks too", signed(batches.pending)),
            ("batches sent", signed(batches.queued)),
            ("batches at work", signed(batches.leased)),
            ("batches set aside", signed(batches.deferred)),
            ("longest wait", batches.waiting_since.map_or_else(|| String::from("none"), ago)),
            (
                "oldest task that is not begun",
                waits.oldest.map_or_else(
                    || String::from("none"),
                    |one| format!("{} ({})", one.id, ago(one.created_at)),
                ),
            ),
        ],
    );
    if waits.accounts.is_empty() {
        return Ok(());
    }
    out.say("");
    let head = ["ACCOUNT", "OLDEST TASK", "TASKS", "BATCHES", "ADDRESSES"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(waits.accounts.iter().map(|one| {
        vec![
            one.email.clone(),
            format!("{} ago", ago(one.since)),
            signed(one.tasks),
            signed(one.batches),
            signed(one.addresses),
        ]
    }));
    out.table("", 2, &rows);
    Ok(())
}
