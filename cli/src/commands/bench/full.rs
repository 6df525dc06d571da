//! `bench full`: is a database that has grown as fast as an empty one?
//!
//! The first account is a newcomer with little stored; the second owns a part of what the database is filled
//! with. The routes take turns, so that a machine that changes its pace changes it for all of them.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::json;

use super::latency::Latencies;
use super::load::{List, Submission};
use super::{Bench, Outcome, Part, parts};
use crate::args::FullArgs;
use crate::output::{grouped, rate, readable};

/// Tasks that are filled in together.
const AT_ONCE: usize = 64;
/// Addresses of the task that the second account's routes are asked about.
const SMALL: u64 = 10_000;
/// Both accounts have so many tasks of so many addresses before anything is measured, so that a page of tasks
/// or of the ledger is as long when the database is empty.
const PAGE: usize = 50;
const TINY: u64 = 10;
/// Whose each account is.
const ACCOUNTS: [&str; 2] = ["newcomer", "owner of many"];

/// A route, asked by one of the two accounts.
struct Route {
    account: usize,
    what: &'static str,
    path: String,
    latencies: Latencies,
}

/// What was measured at one time.
struct Measured {
    /// Addresses a second, the median.
    rate: f64,
    routes: Vec<Route>,
}

/// The credits of each account: the newcomer's probes, then what is stored, the second's probes too.
pub fn purses(args: &FullArgs, filling: Vec<u64>) -> Vec<u64> {
    let page = PAGE as u64 * TINY;
    let mut purses = vec![2 * args.rounds * args.probe + page];
    purses.extend(filling);
    purses[1] += 2 * SMALL + page;
    purses
}

pub async fn run(bench: &Bench<'_>, args: &FullArgs) -> Result<Outcome> {
    let out = &bench.context.output;
    let tiny = |account| List { part: Part { first: 0, count: TINY }, account, partial: false };
    for account in 0..ACCOUNTS.len() {
        submit(bench, &vec![tiny(account); PAGE]).await?;
    }
    let empty = measure(bench, args).await.context("with nothing stored")?;
    let began = Instant::now();
    fill(bench).await?;
    out.say(format!(
        "\nfilled with {} addresses in {} tasks, {} addresses a second",
        grouped(bench.load.addresses),
        grouped(bench.load.tasks),
        grouped(rate(bench.load.addresses, began.elapsed()) as u64)
    ));
    let full = measure(bench, args).await.context("with the database filled")?;

    let head = ["ACCOUNT", "WHAT", "EMPTY", "P99", "FULL", "P99", "FULL/EMPTY"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut routes = Vec::new();
    for (before, after) in empty.routes.iter().zip(&full.routes) {
        let (was, is) = (before.latencies.percentile(50.0), after.latencies.percentile(50.0));
        let ratio = is.as_secs_f64() / was.as_secs_f64().max(1e-6);
        rows.push(vec![
            ACCOUNTS[before.account].to_owned(),
            before.what.to_owned(),
            readable(was),
            readable(before.latencies.percentile(99.0)),
            readable(is),
            readable(after.latencies.percentile(99.0)),
            format!("{ratio:.2}"),
        ]);
        routes.push(json!({
            "account": ACCOUNTS[before.account],
            "what": before.what,
            "empty": before.latencies.object(),
            "full": after.latencies.object(),
        }));
    }
    out.say("");
    out.table("  ", 0, &rows);
    let share = 100.0 * full.rate / empty.rate.max(1.0);
    let (was, is) = (grouped(empty.rate as u64), grouped(full.rate as u64));
    out.say(format!("\npipeline: {was} addresses a second empty, {is} full ({share:.0} %)"));
    let (exact, books) = bench.books().await?;
    let object = json!({
        "mode": "full",
        "addresses": bench.load.addresses,
        "tasks": bench.load.tasks,
        "rates": { "empty": empty.rate, "full": full.rate },
        "routes": routes,
        "reconciliation": books,
    });
    Ok(Outcome { ok: exact, object })
}

async fn measure(bench: &Bench<'_>, args: &FullArgs) -> Result<Measured> {
    let mut rates = Vec::new();
    let mut last = None;
    for _ in 0..args.rounds {
        let (submission, per_second) = pipeline(bench, 0, args.probe).await?;
        rates.push(per_second);
        last = submission.tasks.into_iter().next();
    }
    rates.sort_by(f64::total_cmp);
    let (small, _) = pipeline(bench, 1, SMALL).await?;
    let newcomer = last.context("no round was run")?.view.id;
    let owner = &small.tasks.first().context("the task is missing")?.view.id;
    let mut routes = routes(0, &newcomer);
    routes.extend(self::routes(1, owner));
    let mut bar = bench.context.output.progress("asking", args.calls, "rounds");
    for call in 0..args.calls {
        for route in &mut routes {
            let key = &bench.accounts[route.account].secret;
            let asked = Instant::now();
            bench.client.call(Method::GET, &route.path, key).await?.success(route.what)?;
            route.latencies.add(asked.elapsed());
        }
        bar.set(call + 1);
    }
    bar.finish();
    Ok(Measured { rate: rates[rates.len() / 2], routes })
}

/// One task of one account, from its first byte to its last result.
async fn pipeline(bench: &Bench<'_>, account: usize, count: u64) -> Result<(Submission, f64)> {
    let list = List { part: Part { first: 0, count }, account, partial: false };
    let submission = bench.submit_lists(&[list]).await?;
    let waited = bench.wait(&submission.tasks).await?;
    ensure!(waited.failed.is_empty(), "{}", waited.failed.join(", "));
    let per_second = rate(count, waited.ended - submission.started);
    Ok((submission, per_second))
}

async fn fill(bench: &Bench<'_>) -> Result<()> {
    let owners = bench.accounts.len() - 1;
    let lists: Vec<List> = parts(bench.load.addresses, bench.load.tasks)
        .into_iter()
        .enumerate()
        .map(|(number, part)| List { part, account: 1 + number % owners, partial: false })
        .collect();
    for some in lists.chunks(AT_ONCE) {
        submit(bench, some).await?;
    }
    Ok(())
}

/// Submits lists and waits until they are done.
async fn submit(bench: &Bench<'_>, lists: &[List]) -> Result<()> {
    let submission = bench.submit_lists(lists).await?;
    let waited = bench.wait(&submission.tasks).await?;
    ensure!(waited.failed.is_empty(), "{}", waited.failed.join(", "));
    Ok(())
}

fn routes(account: usize, task: &str) -> Vec<Route> {
    let results = format!("/v1/tasks/{task}/results");
    [
        ("the task", format!("/v1/tasks/{task}")),
        ("tasks, a page", format!("/v1/tasks?limit={PAGE}")),
        ("results, a page", format!("{results}?limit=100")),
        ("results of a status", format!("{results}?status=undeliverable&limit=100")),
        ("results of a reason nobody has", format!("{results}?reason=no_mx")),
        ("one result", format!("{results}/{}", SMALL / 2)),
        ("credits", String::from("/v1/account/credits")),
        ("ledger, a page", format!("/v1/ledger?limit={PAGE}")),
        ("ledger of a task", format!("/v1/ledger?task={task}")),
        ("keys", String::from("/v1/keys")),
    ]
    .map(|(what, path)| Route { account, what, path, latencies: Latencies::default() })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purses_pay_for_the_probes_too() {
        let args = FullArgs { probe: 1_000, rounds: 3, calls: 1 };
        assert_eq!(purses(&args, vec![5, 7]), [6_500, 20_505, 7]);
    }
}
