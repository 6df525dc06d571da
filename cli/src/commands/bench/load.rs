//! Submitting, waiting, downloading: the modes that move addresses.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Body, Method};
use serde_json::json;

use super::generate::{Addresses, tails};
use super::latency::Latencies;
use super::process::Meter;
use super::{Bench, Outcome, Part, report};
use crate::client::TaskView;
use crate::output::{grouped, rate};

/// Lists sent at once; well below the server's `max_submissions`.
const SUBMITTERS: usize = 8;
/// Polls on their way at once.
const POLLERS: usize = 8;
const POLL: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(100);
/// Standing still this long deserves a hint…
const HINT_AFTER: Duration = Duration::from_secs(10);
/// …and this long is the end.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// A list to be submitted.
#[derive(Debug, Clone, Copy)]
pub struct List {
    pub part: Part,
    /// Whose it is.
    pub account: usize,
    /// Taken also when its account cannot pay for it.
    pub partial: bool,
}

/// A submitted task and which account it belongs to.
pub struct Submitted {
    pub view: TaskView,
    pub account: usize,
}

/// What submitting came to.
pub struct Submission {
    pub tasks: Vec<Submitted>,
    pub started: Instant,
    pub took: Duration,
}

/// What waiting came to.
pub struct Waited {
    polls: Latencies,
    pub ended: Instant,
    /// Tasks that ended otherwise than completed.
    pub failed: Vec<String>,
}

impl Bench<'_> {
    /// Submits one list for each part, the accounts taking turns.
    pub async fn submit_all(&self, parts: &[Part]) -> Result<Submission> {
        let accounts = self.accounts.len();
        let list = |(number, part): (usize, &Part)| List {
            part: *part,
            account: number % accounts,
            partial: false,
        };
        let lists: Vec<List> = parts.iter().enumerate().map(list).collect();
        self.submit_lists(&lists).await
    }

    /// Submits lists; from the first byte of the first to the answer to the last.
    pub async fn submit_lists(&self, lists: &[List]) -> Result<Submission> {
        let total: u64 = lists.iter().map(|list| list.part.count).sum();
        let rows = total * self.repeat;
        let mut bar = self.context.output.progress("submitting", rows, "addresses");
        let (tails, made) = (tails(self.domains), Arc::new(AtomicU64::new(0)));
        let started = Instant::now();
        let sending = stream::iter(lists.iter().enumerate())
            .map(|(number, list)| {
                let List { part, account, partial } = *list;
                let body = Addresses::new(part.first, part.count, tails.clone(), made.clone());
                let body = body.repeated(self.repeat);
                let body = Body::wrap_stream(stream::iter(body.map(Ok::<_, Infallible>)));
                async move {
                    let secret = &self.accounts[account].secret;
                    let query = format!("name=bench-{number}&allow_partial={partial}");
                    let view = self.client.submit_with(&query, secret, body).await?;
                    self.remember(&view.id, account);
                    anyhow::Ok(Submitted { view, account })
                }
            })
            .buffer_unordered(SUBMITTERS)
            .try_collect::<Vec<_>>();
        tokio::pin!(sending);
        let mut tick = tokio::time::interval(TICK);
        let tasks = loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                _ = tick.tick() => bar.set(made.load(Ordering::Relaxed)),
            }
        };
        let took = started.elapsed();
        bar.set(rows);
        bar.finish();
        let taken: u64 = tasks.iter().map(|task| task.view.counts.unique).sum();
        if taken != total {
            bail!("{total} distinct addresses were sent, the server counted {taken}");
        }
        Ok(Submission { tasks, started, took })
    }

    /// Polls every task until all have ended.
    pub async fn wait(&self, tasks: &[Submitted]) -> Result<Waited> {
        let total: u64 = tasks.iter().map(|task| task.view.counts.unique).sum();
        let mut bar = self.context.output.progress("verifying", total, "addresses");
        let mut done: Vec<u64> = vec![0; tasks.len()];
        let mut pending: Vec<usize> = (0..tasks.len()).collect();
        let (mut polls, mut failed) = (Latencies::default(), Vec::new());
        let (mut moved, mut moved_at, mut hinted) = (0, Instant::now(), false);
        let mut fault = None;
        while !pending.is_empty() {
            let round = Instant::now();
            let answers: Vec<_> = stream::iter(pending.clone())
                .map(|number| self.poll(number, &tasks[number]))
                .buffer_unordered(POLLERS)
                .collect()
                .await;
            for (number, took, answer) in answers {
                polls.add(took);
                match answer {
                    Ok(view) => {
                        done[number] = view.counts.processed;
                        if view.has_ended() {
                            pending.retain(|other| *other != number);
                        }
                        if view.has_ended() && view.status != "completed" {
                            failed.push(format!("{} is {}", view.id, view.status));
                        } else if view.pause_reason.is_some() {
                            fault = Some(format!("{} is paused", view.id));
                        }
                    }
                    // A server that is being restarted is met again in the next round.
                    Err(error) => fault = Some(format!("{error:#}")),
                }
            }
            let sum: u64 = done.iter().sum();
            bar.set(sum);
            if sum > moved {
                (moved, moved_at, hinted) = (sum, Instant::now(), false);
            } else if moved_at.elapsed() > GIVE_UP_AFTER {
                let fault = fault.unwrap_or_else(|| String::from("is a worker running?"));
                bail!("nothing has moved for {} s: {fault}", GIVE_UP_AFTER.as_secs());
            } else if moved_at.elapsed() > HINT_AFTER && !hinted && !pending.is_empty() {
                hinted = true;
                let fault =
                    fault.as_deref().unwrap_or("is a worker running on this database and Redis?");
                bar.say(&format!("nothing has moved for {} s: {fault}", HINT_AFTER.as_secs()));
            }
            if !pending.is_empty() {
                tokio::time::sleep_until((round + POLL).into()).await;
            }
        }
        let ended = Instant::now();
        bar.finish();
        Ok(Waited { polls, ended, failed })
    }

    async fn poll(&self, number: usize, task: &Submitted) -> (usize, Duration, Result<TaskView>) {
        let asked = Instant::now();
        let answer = self.client.task(&task.view.id, &self.accounts[task.account].secret).await;
        (number, asked.elapsed(), answer)
    }

    /// Addresses found deliverable and undeliverable, over all tasks.
    pub async fn verdicts(&self) -> Result<(u64, u64)> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sum = (0, 0);
        for (task, account) in &made {
            let view = self.client.task(task, &self.accounts[*account].secret).await?;
            sum = (sum.0 + view.counts.deliverable, sum.1 + view.counts.undeliverable);
        }
        Ok(sum)
    }

    /// The books of all accounts of the bench; are they exact?
    pub async fn books(&self) -> Result<(bool, serde_json::Value)> {
        let mut books = Vec::new();
        for account in &self.accounts {
            books.extend(self.app.store.books(Some(account.id)).await?);
        }
        report::reconcile(&self.context.output, &books)
    }
}

/// From the first byte of the first POST to the last result committed.
pub async fn pipeline(bench: &Bench<'_>) -> Result<Outcome> {
    let out = &bench.context.output;
    let total = bench.load.addresses;
    let meter = Meter::start(bench.wanted());
    let submission = bench.submit_all(&bench.parts()).await?;
    let waited = bench.wait(&submission.tasks).await?;
    let usage = meter.stop().await;
    let took = waited.ended - submission.started;
    let per_second = rate(total, took);
    out.say(format!(
        "\n{} addresses in {:.2} s: {} addresses a second, first byte to last result",
        grouped(total),
        took.as_secs_f64(),
        grouped(per_second as u64)
    ));
    show_submission(bench, &submission, total);
    let polls = grouped(waited.polls.count());
    out.say(format!("  {polls} polls meanwhile: {}", waited.polls.text()));
    report::show_usage(out, &usage, total, "address");
    let (exact, books) = bench.books().await?;
    for fault in &waited.failed {
        out.say(format!("FAIL  {fault}"));
    }
    let object = json!({
        "mode": "pipeline",
        "addresses": total,
        "tasks": bench.load.tasks,
        "accounts": bench.load.accounts,
        "seconds": took.as_secs_f64(),
        "addresses_per_second": per_second,
        "submission": submission_object(&submission, total),
        "polls": waited.polls.object(),
        "cpu": report::usage_object(&usage, total),
        "not_completed": waited.failed,
        "reconciliation": books,
    });
    Ok(Outcome { ok: exact && waited.failed.is_empty(), object })
}

/// Submission alone; what was submitted is cancelled afterwards.
pub async fn submit(bench: &Bench<'_>) -> Result<Outcome> {
    let out = &bench.context.output;
    let total = bench.load.addresses;
    let meter = Meter::start(bench.wanted());
    let submission = bench.submit_all(&bench.parts()).await?;
    let usage = meter.stop().await;
    for task in &submission.tasks {
        let path = format!("/v1/tasks/{}/cancel", task.view.id);
        let key = &bench.accounts[task.account].secret;
        let answer = bench.client.call(Method::POST, &path, key).await?;
        // 409: it was faster than we were.
        if answer.status != 409 {
            answer.success("cancelling")?;
        }
    }
    show_submission(bench, &submission, total);
    report::show_usage(out, &usage, total, "address");
    let (exact, books) = bench.books().await?;
    let object = json!({
        "mode": "submit",
        "addresses": total,
        "tasks": bench.load.tasks,
        "submission": submission_object(&submission, total),
        "cpu": report::usage_object(&usage, total),
        "reconciliation": books,
    });
    Ok(Outcome { ok: exact, object })
}

/// Download of finished tasks, one after the other, as NDJSON.
pub async fn download(bench: &Bench<'_>) -> Result<Outcome> {
    let out = &bench.context.output;
    let total = bench.load.addresses;
    let submission = bench.submit_all(&bench.parts()).await?;
    let waited = bench.wait(&submission.tasks).await?;
    if let Some(fault) = waited.failed.first() {
        bail!("nothing to download: {fault}");
    }
    let meter = Meter::start(bench.wanted());
    let mut bar = out.progress("downloading", total, "rows");
    let started = Instant::now();
    let (mut rows, mut bytes) = (0_u64, 0_u64);
    for task in &submission.tasks {
        let path = format!("/v1/tasks/{}/results?format=ndjson", task.view.id);
        let key = &bench.accounts[task.account].secret;
        let mut body = bench.client.stream(&path, key).await?.bytes_stream();
        while let Some(piece) = body.try_next().await.context("the download broke off")? {
            rows += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes += piece.len() as u64;
            bar.set(rows);
        }
    }
    let took = started.elapsed();
    bar.finish();
    let usage = meter.stop().await;
    let (per_second, megabytes) = (rate(rows, took), rate(bytes, took) / 1e6);
    out.say(format!(
        "\n{} rows in {:.2} s: {} rows a second, {megabytes:.1} MB/s",
        grouped(rows),
        took.as_secs_f64(),
        grouped(per_second as u64)
    ));
    let ok = rows == total;
    if !ok {
        out.say(format!("FAIL  {} rows were to come", grouped(total)));
    }
    report::show_usage(out, &usage, rows, "row");
    let object = json!({
        "mode": "download",
        "rows": rows,
        "expected_rows": total,
        "bytes": bytes,
        "seconds": took.as_secs_f64(),
        "rows_per_second": per_second,
        "cpu": report::usage_object(&usage, rows),
    });
    Ok(Outcome { ok, object })
}

fn show_submission(bench: &Bench<'_>, submission: &Submission, total: u64) {
    bench.context.output.say(format!(
        "  submission: {:.2} s, {} addresses a second",
        submission.took.as_secs_f64(),
        grouped(rate(total, submission.took) as u64)
    ));
}

fn submission_object(submission: &Submission, total: u64) -> serde_json::Value {
    json!({
        "seconds": submission.took.as_secs_f64(),
        "addresses_per_second": rate(total, submission.took),
    })
}
