//! `bench crowd`: how long ten addresses of somebody who has nothing under way wait behind others'.
//!
//! Account 0 is the newcomer's; each crowd has accounts of its own. A crowd is submitted, and once
//! the first of its addresses is done the newcomer comes, again and again while half of the crowd's
//! work is left. Then the rest is cancelled and the crowd comes again, until all probes are made: its
//! accounts can pay for as many crowds as there are probes. A wait counts also when the crowd has
//! gone before it ended: to wait until then is the worst that can happen. How often it did is said.
//!
//! Tasks that wait for credits are submitted once: they do not go away.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};

use super::generate::{Addresses, DOMAINS, tails};
use super::latency::Latencies;
use super::load::{List, Submitted};
use super::{Bench, Outcome, Part};
use crate::args::{CrowdArgs, Scenario};
use crate::output::{grouped, readable};

/// What the newcomer brings.
const TEN: u64 = 10;
/// Addresses of the newcomer are numbered from here: nobody else's are.
const NEWCOMER: u64 = 9_000_000_000;
const POLL: Duration = Duration::from_millis(5);
/// Cancellations on their way at once.
const AT_ONCE: usize = 8;
/// Nothing that is waited for here may take longer.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// What one scenario submits.
struct Crowd {
    scenario: Scenario,
    /// Submitted as often as needed.
    working: Vec<List>,
    /// Submitted once: nobody pays for them.
    waiting: Vec<List>,
}

/// What was measured behind one crowd.
struct Waits {
    /// `nobody`, or the scenario's name.
    behind: String,
    tasks: u64,
    addresses: u64,
    waits: Latencies,
    /// How often the crowd was submitted.
    came: u64,
    /// How often it had gone when a wait was over.
    gone: u64,
}

/// The credits of each account, in the order in which [`crowds`] numbers them.
pub fn purses(args: &CrowdArgs) -> Vec<u64> {
    let crowds = crowds(args);
    let accounts = crowds.iter().flat_map(Crowd::lists).map(|list| list.account).max();
    let mut purses = vec![0; accounts.unwrap_or(0) + 1];
    purses[0] = TEN * args.probes * (crowds.len() as u64 + 1);
    for list in crowds.iter().flat_map(|crowd| &crowd.working) {
        purses[list.account] += list.part.count * args.probes;
    }
    purses
}

/// The crowds that were asked for. No two lists hold the same address.
fn crowds(args: &CrowdArgs) -> Vec<Crowd> {
    let (mut account, mut first) = (0, 0);
    let mut lists = |accounts: u64, tasks: u64, each: u64, partial: bool| -> Vec<List> {
        let mut lists = Vec::new();
        for _ in 0..accounts {
            account += 1;
            for _ in 0..tasks {
                lists.push(List { part: Part { first, count: each }, account, partial });
                first += each;
            }
        }
        lists
    };
    let crowd = |scenario| {
        let mut waiting = Vec::new();
        let working = match scenario {
            Scenario::Long => lists(1, args.long.tasks, args.long.each, false),
            Scenario::Short => lists(1, args.short.tasks, args.short.each, false),
            Scenario::Many => lists(args.many.tasks, 1, args.many.each, false),
            Scenario::Paused => {
                waiting = lists(1, args.paused.tasks, args.paused.each, true);
                lists(1, 1, args.beside, false)
            }
            Scenario::Huge => lists(1, 1, args.huge, false),
        };
        Crowd { scenario, working, waiting }
    };
    args.wanted().into_iter().map(crowd).collect()
}

impl Crowd {
    fn lists(&self) -> impl Iterator<Item = &List> {
        self.working.iter().chain(&self.waiting)
    }

    fn name(&self) -> String {
        let name = self.scenario.to_possible_value();
        name.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub async fn run(bench: &Bench<'_>, args: &CrowdArgs) -> Result<Outcome> {
    let out = &bench.context.output;
    let mut newcomer = Newcomer { bench, next: NEWCOMER };
    let mut all = vec![newcomer.behind_nobody(args.probes).await?];
    for crowd in crowds(args) {
        all.push(newcomer.behind(&crowd, args.probes).await?);
    }
    let head = ["BEHIND", "TASKS", "ADDRESSES", "MEDIAN", "P99", "LONGEST"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(all.iter().map(Waits::row));
    out.say(format!(
        "\nWait of {TEN} addresses, {} times each, from submission to completion",
        args.probes
    ));
    out.table("  ", 1, &rows);
    for one in all.iter().filter(|one| one.gone > 0) {
        out.say(format!("  {}: the crowd had gone before {} of them", one.behind, one.gone));
    }
    let (exact, books) = bench.books().await?;
    let object = json!({
        "mode": "crowd",
        "addresses": TEN,
        "probes": args.probes,
        "behind": all.iter().map(Waits::object).collect::<Vec<_>>(),
        "reconciliation": books,
    });
    Ok(Outcome { ok: exact, object })
}

impl Waits {
    fn row(&self) -> Vec<String> {
        vec![
            self.behind.clone(),
            grouped(self.tasks),
            grouped(self.addresses),
            readable(self.waits.percentile(50.0)),
            readable(self.waits.percentile(99.0)),
            readable(self.waits.max()),
        ]
    }

    fn object(&self) -> Value {
        json!({
            "crowd": self.behind,
            "tasks": self.tasks,
            "addresses": self.addresses,
            "wait": self.waits.object(),
            "crowds_submitted": self.came,
            "crowds_gone_before_the_end": self.gone,
        })
    }
}

/// Comes with ten addresses, others every time.
struct Newcomer<'a> {
    bench: &'a Bench<'a>,
    next: u64,
}

impl Newcomer<'_> {
    async fn behind_nobody(&mut self, probes: u64) -> Result<Waits> {
        let mut waits = Latencies::default();
        for _ in 0..probes {
            waits.add(self.wait().await?);
        }
        let behind = String::from("nobody");
        Ok(Waits { behind, tasks: 0, addresses: 0, waits, came: 0, gone: 0 })
    }

    async fn behind(&mut self, crowd: &Crowd, probes: u64) -> Result<Waits> {
        let bench = self.bench;
        let (mut waits, mut came, mut gone) = (Latencies::default(), 0, 0);
        let waiting = bench.submit_lists(&crowd.waiting).await?.tasks;
        bench.until_all_wait(&waiting).await?;
        let all: u64 = crowd.working.iter().map(|list| list.part.count).sum();
        while waits.count() < probes {
            let working = bench.submit_lists(&crowd.working).await?.tasks;
            came += 1;
            bench.until_at_work(&working).await?;
            let mut left = all;
            while waits.count() < probes && left * 2 > all {
                waits.add(self.wait().await?);
                left = all - bench.processed(&working).await?;
                gone += u64::from(left == 0);
            }
            bench.disperse(&working).await?;
        }
        bench.disperse(&waiting).await?;
        let tasks = crowd.lists().count() as u64;
        let addresses = crowd.lists().map(|list| list.part.count).sum();
        Ok(Waits { behind: crowd.name(), tasks, addresses, waits, came, gone })
    }

    /// From sending the list to the first answer that says `completed`.
    async fn wait(&mut self) -> Result<Duration> {
        let bench = self.bench;
        let secret = &bench.accounts[0].secret;
        let made = Arc::new(AtomicU64::new(0));
        let body = Addresses::new(self.next, TEN, tails(DOMAINS), made);
        self.next += TEN;
        let body = Body::wrap_stream(stream::iter(body.map(Ok::<_, Infallible>)));
        let started = Instant::now();
        let id = bench.client.submit("bench-newcomer", secret, body).await?.id;
        bench.remember(&id, 0);
        loop {
            let view = bench.client.task(&id, secret).await?;
            if view.status == "completed" {
                return Ok(started.elapsed());
            }
            ensure!(!view.has_ended(), "the newcomer's task {id} is {}", view.status);
            patient(started, "the newcomer's task is not done")?;
            tokio::time::sleep(POLL).await;
        }
    }
}

fn patient(since: Instant, what: &str) -> Result<()> {
    if since.elapsed() > GIVE_UP_AFTER {
        bail!("{what} after {} s: is a worker running?", GIVE_UP_AFTER.as_secs());
    }
    Ok(())
}

impl Bench<'_> {
    /// Until each of these is paused: there is nothing to pay for it with.
    async fn until_all_wait(&self, tasks: &[Submitted]) -> Result<()> {
        let started = Instant::now();
        for task in tasks {
            while self.look(task).await?.pause_reason.is_none() {
                patient(started, "a task without credits is not paused")?;
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Until the first address of the first of these is done.
    async fn until_at_work(&self, tasks: &[Submitted]) -> Result<()> {
        let started = Instant::now();
        for task in tasks.iter().cycle() {
            if self.look(task).await?.counts.processed > 0 {
                break;
            }
            patient(started, "the crowd has not begun")?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// How much of their work is done.
    async fn processed(&self, tasks: &[Submitted]) -> Result<u64> {
        let looking = stream::iter(tasks).map(|task| self.look(task)).buffer_unordered(AT_ONCE);
        looking.try_fold(0, |sum, view| async move { Ok(sum + view.counts.processed) }).await
    }

    async fn look(&self, task: &Submitted) -> Result<crate::client::TaskView> {
        self.client.task(&task.view.id, &self.accounts[task.account].secret).await
    }

    /// Cancels what has not ended.
    async fn disperse(&self, tasks: &[Submitted]) -> Result<()> {
        let cancelling = stream::iter(tasks).map(|task| async move {
            let path = format!("/v1/tasks/{}/cancel", task.view.id);
            let key = &self.accounts[task.account].secret;
            let answer = self.client.call(Method::POST, &path, key).await?;
            // 409: it was faster than we were.
            if answer.status != 409 {
                answer.success("cancelling")?;
            }
            anyhow::Ok(())
        });
        let cancelled = cancelling.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await;
        cancelled.map(drop).context("the crowd was not sent away")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{BenchMode, Cli, Command};

    fn args(line: &str) -> CrowdArgs {
        let words = format!("listmill bench crowd {line}");
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Command::Bench(bench) = cli.command else { panic!("{line}") };
        let Some(BenchMode::Crowd(args)) = bench.mode else { panic!("{line}") };
        args
    }

    #[test]
    fn all_crowds_come_unless_some_are_named() {
        assert_eq!(crowds(&args("")).len(), 5);
        let some = crowds(&args("--scenario huge --scenario long"));
        let names: Vec<String> = some.iter().map(Crowd::name).collect();
        assert_eq!(names, ["long", "huge"]);
    }

    #[test]
    fn purses_pay_for_every_time_a_crowd_comes() {
        let args = args("--scenario paused --scenario many --probes 3 --many 2x7");
        // The newcomer, two accounts of seven, one that cannot pay, and the one beside it.
        assert_eq!(purses(&args), [90, 21, 21, 0, 600_000]);
    }

    #[test]
    fn no_address_is_in_two_lists() {
        let crowds = crowds(&args(""));
        let mut next = 0;
        for list in crowds.iter().flat_map(|crowd| crowd.waiting.iter().chain(&crowd.working)) {
            assert_eq!(list.part.first, next);
            next += list.part.count;
        }
        assert!(next < NEWCOMER);
    }
}
