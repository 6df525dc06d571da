//! `bench scale`: the pipeline with more and more workers, for one account and for several.
//!
//! Workers are processes of this program, started for a run and ended after it; rounds go through all
//! numbers in turn, so that a machine that changes its pace changes it for all of them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};

use super::process::{DATABASE, Meter, Usage};
use super::{Bench, Outcome, Part, parts};
use crate::args::ScaleArgs;
use crate::output::{grouped, rate};

/// Workers have made themselves known by then.
const START: Duration = Duration::from_secs(20);
/// They end by themselves within this time.
const END: Duration = Duration::from_secs(30);
/// A worker that was not heard of for so long, in milliseconds, is gone.
const SEEN: i64 = 10_000;

/// Runs with so many accounts and workers.
struct Case {
    accounts: u64,
    workers: u64,
    runs: Vec<Run>,
}

/// What one run came to.
struct Run {
    /// Addresses a second.
    rate: f64,
    /// CPU time of an address over all processes, in microseconds.
    cpu: f64,
    /// That of the database's, where it is on this machine.
    database: f64,
}

impl Case {
    fn median(&self) -> f64 {
        let mut rates: Vec<f64> = self.runs.iter().map(|run| run.rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }

    fn mean(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / self.runs.len().max(1) as f64
    }
}

/// The credits of each account: enough for every run.
pub fn purses(args: &ScaleArgs, addresses: u64) -> Vec<u64> {
    let most = args.of.iter().copied().max().unwrap_or(1);
    let runs = args.rounds * args.workers.len() as u64 * args.of.len() as u64;
    vec![addresses * runs; most as usize]
}

pub async fn run(bench: &Bench<'_>, args: &ScaleArgs) -> Result<Outcome> {
    let store = &bench.app.store;
    let heard = store.concurrency(bench.app.now() - SEEN).await?;
    ensure!(heard == 0, "stop the deployment's workers first: the bench starts its own");
    let mut cases = Vec::new();
    for &accounts in &args.of {
        for &workers in &args.workers {
            cases.push(Case { accounts, workers, runs: Vec::new() });
        }
    }
    let mut first = 0;
    for _ in 0..args.rounds {
        for case in &mut cases {
            case.runs.push(measure(bench, args, case, &mut first).await?);
        }
    }
    let out = &bench.context.output;
    let head = ["ACCOUNTS", "WORKERS", "ADDRESSES/S", "OF FIRST", "CPU/ADDRESS", "DATABASE'S"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut objects = Vec::new();
    for case in &cases {
        let one = cases.iter().find(|one| one.accounts == case.accounts).map_or(0.0, Case::median);
        let (cpu, database) = (case.mean(|run| run.cpu), case.mean(|run| run.database));
        rows.push(vec![
            case.accounts.to_string(),
            case.workers.to_string(),
            grouped(case.median() as u64),
            format!("{:.0} %", 100.0 * case.median() / one.max(1.0)),
            format!("{cpu:.2} µs"),
            format!("{database:.2} µs"),
        ]);
        objects.push(json!({
            "accounts": case.accounts,
            "workers": case.workers,
            "addresses_per_second": case.median(),
            "runs": case.runs.iter().map(|run| run.rate).collect::<Vec<_>>(),
            "cpu_micros_each": cpu,
            "database_cpu_micros_each": database,
        }));
    }
    out.say("");
    out.table("  ", 0, &rows);
    let (exact, books) = bench.books().await?;
    let object = json!({ "mode": "scale", "cases": objects, "reconciliation": books });
    Ok(Outcome { ok: exact, object })
}

async fn measure(bench: &Bench<'_>, args: &ScaleArgs, case: &Case, first: &mut u64) -> Result<Run> {
    let total = bench.load.addresses;
    let each = args
        .concurrency
        .map_or(bench.app.settings.worker_concurrency as u64, |all| all.div_ceil(case.workers));
    let mut workers = Vec::new();
    for _ in 0..case.workers {
        workers.push(start(each).context("cannot start a worker")?);
    }
    let all = (case.workers * each) as i64;
    let started = Instant::now();
    while bench.app.store.concurrency(bench.app.now() - SEEN).await? < all {
        ensure!(started.elapsed() < START, "{} workers did not start", case.workers);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lists: Vec<Part> = parts(total, case.accounts)
        .into_iter()
        .map(|part| Part { first: part.first + *first, ..part })
        .collect();
    *first += total;
    let meter = Meter::start(bench.wanted());
    let submission = bench.submit_all(&lists).await?;
    let waited = bench.wait(&submission.tasks).await?;
    let usage = meter.stop().await;
    ensure!(waited.failed.is_empty(), "{}", waited.failed.join(", "));
    let took = waited.ended - submission.started;
    for worker in &mut workers {
        end(worker).await?;
    }
    // Their names stay a while: the next run must not count them.
    while bench.app.store.concurrency(bench.app.now() - SEEN).await? > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let of_all = |wanted: fn(&Usage) -> bool| {
        usage.iter().filter(|one| wanted(one)).map(|one| one.cpu_seconds).sum::<f64>() * 1e6
            / total as f64
    };
    Ok(Run {
        rate: rate(total, took),
        cpu: of_all(|one| !one.client),
        database: of_all(|one| one.name == DATABASE),
    })
}

fn start(concurrency: u64) -> Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.arg("worker").env("LISTMILL_WORKER_BIND", "").kill_on_drop(true);
    command.env("LISTMILL_WORKER_CONCURRENCY", concurrency.to_string());
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

async fn end(worker: &mut Child) -> Result<()> {
    let id = worker.id().and_then(|id| Pid::from_raw(id as i32));
    kill_process(id.context("a worker ended by itself")?, Signal::TERM)?;
    let ended = tokio::time::timeout(END, worker.wait()).await;
    ended.context("a worker does not end")??;
    Ok(())
}
