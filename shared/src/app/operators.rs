//! What operators see and do over all accounts: for the dashboard and the shell alike.
//!
//! Everything that is read is bounded; everything that is changed stands in the audit log with whoever asked for it.

use ipnet::IpNet;

use super::App;
use super::dispatch::SILENT_MS;
use super::health::Held;
use super::keys::{By, End, KeyError, Receipt};
use crate::domain::audit::Origin;
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::{AccountId, KeyId, TaskId};
use crate::domain::key::Suspension;
use crate::domain::key_scan::mask;
use crate::domain::ledger::Kind;
use crate::domain::network::parse_network;
use crate::domain::request::Outcome;
use crate::domain::result_filter::ResultFilter;
use crate::domain::verdict::Reason;
use crate::queue::QueueError;
use crate::store::StoreError;
use crate::store::credits::{Booking, Once};
use crate::store::operators::FailedTask;
use crate::store::overview::{Answered, Batches, OldestTask, Waiting};
use crate::store::workers::Worker;
use crate::throttle::look::Hosts;

const HOUR: Millis = 3_600_000;
/// Requests whose latency is looked at.
const ANSWERS: i64 = 1_000;
/// Mail hosts that are shown.
pub const HOSTS: usize = 200;
/// Batches that are opened for failed results, and results that are shown.
const BATCHES: i64 = 20;
const RESULTS: usize = 30;
/// Failed tasks that are shown.
const TASKS: i64 = 30;
/// Accounts that are shown with what they wait for.
const ACCOUNTS: i64 = 500;
/// Characters of a reason or a note.
const LONGEST: usize = 500;

/// How it goes, in figures.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Accounts, up to 100,000.
    pub accounts: i64,
    /// Unended tasks: status, reason of a pause, how many.
    pub unended: Vec<(String, String, i64)>,
    /// Tasks of the last day by status.
    pub day: Vec<(String, i64)>,
    /// Addresses verified by the hour: 24 whole hours and the one that runs, oldest first.
    pub verified: Vec<(Millis, i64)>,
    /// What waits and what is in hand.
    pub batches: Batches,
    /// The oldest task that was not begun.
    pub oldest: Option<OldestTask>,
    /// Refused requests of the last day, by outcome.
    pub refusals: Vec<(Outcome, i64)>,
    /// Parts of this process that do not get on.
    pub stuck: Vec<Held>,
    /// Workers that live, and those of them that can verify.
    pub workers: (usize, usize),
    /// The newest requests.
    pub answers: Option<Answers>,
}

/// How requests were answered lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// How many were looked at.
    pub requests: usize,
    /// When the first of them arrived.
    pub since: Millis,
    /// Microseconds that half of them took at most, and 99 of 100.
    pub median_us: i32,
    /// See `median_us`.
    pub p99_us: i32,
    /// Those answered with 5xx.
    pub errors: usize,
}

impl Answers {
    fn of(rows: &[Answered]) -> Option<Self> {
        let mut latencies: Vec<i32> = rows.iter().map(|row| row.latency_us).collect();
        latencies.sort_unstable();
        let at =
            |part: usize| latencies.get((latencies.len() * part / 100).min(latencies.len() - 1));
        let since = rows.iter().map(|row| row.at).min()?;
        Some(Self {
            requests: rows.len(),
            since,
            median_us: *at(50)?,
            p99_us: *at(99)?,
            errors: rows.iter().filter(|row| row.status >= 500).count(),
        })
    }
}

/// An address that could not be verified by a fault of ours.
#[derive(Debug, Clone)]
pub struct FailedResult {
    /// Whose it is.
    pub account: AccountId,
    /// The task, and the address's number in it.
    pub task: TaskId,
    /// See `task`.
    pub seq: i64,
    /// The address.
    pub address: String,
    /// When it was given up.
    pub checked_at: Millis,
    /// What is known of why, as JSON.
    pub detail: Option<String>,
}

/// What has failed lately.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// Addresses.
    pub results: Vec<FailedResult>,
    /// Tasks.
    pub tasks: Vec<FailedTask>,
}

/// What waits for workers.
#[derive(Debug, Clone)]
pub struct Waits {
    /// What waits and what is in hand.
    pub batches: Batches,
    /// The oldest task that was not begun.
    pub oldest: Option<OldestTask>,
    /// By account, the longest wait first.
    pub accounts: Vec<Waiting>,
}

impl App {
    /// How it goes.
    pub async fn overview(&self) -> Result<Overview, StoreError> {
        let (now, store) = (self.now(), &self.store);
        let first = now - now.rem_euclid(HOUR) - 24 * HOUR;
        let day = TaskId(
            uuid::Builder::from_unix_timestamp_millis(
                (now - 24 * HOUR).max(0).unsigned_abs(),
                &[0; 10],
            )
            .into_uuid(),
        );
        let known = store.verified_since(first).await?;
        let count = |at: Millis| known.iter().find(|(hour, _)| *hour == at).map_or(0, |one| one.1);
        let refusals = store.refusals_since(first + HOUR).await?;
        let workers = store.workers().await?;
        let living = || workers.iter().filter(|one| now - one.seen_at < SILENT_MS);
        Ok(Overview {
            accounts: store.count_accounts(crate::store::overview::MOST).await?,
            unended: store.unended_tasks().await?,
            day: store.tasks_since(day).await?,
            verified: (0..=24).map(|hour| first + hour * HOUR).map(|at| (at, count(at))).collect(),
            batches: store.open_batches_by_state().await?,
            oldest: store.oldest_queued().await?,
            refusals: refusals
                .into_iter()
                .filter_map(|(number, count)| Some((Outcome::from_number(number)?, count)))
                .collect(),
            stuck: self.stuck.held(now),
            workers: (living().count(), living().filter(|one| one.concurrency > 0).count()),
            answers: Answers::of(&store.last_answers(ANSWERS).await?),
        })
    }

    /// What waits for workers.
    pub async fn waits(&self) -> Result<Waits, StoreError> {
        let store = &self.store;
        Ok(Waits {
            batches: store.open_batches_by_state().await?,
            oldest: store.oldest_queued().await?,
            accounts: store.waiting_by_account(ACCOUNTS).await?,
        })
    }

    /// What has failed lately, and why, as far as is known.
    pub async fn failures(&self) -> Result<Failures, StoreError> {
        let mut found =
            Failures { tasks: self.store.failed_tasks(TASKS).await?, ..Failures::default() };
        let only = ResultFilter::of_reasons([Reason::InternalError]);
        for batch in self.store.failed_batches(BATCHES).await? {
            if found.results.len() >= RESULTS {
                break;
            }
            let (task, from) = (batch.task_id, batch.first_seq);
            let until = from + i64::from(batch.addresses);
            let results = self.store.results_between(task, from, until, Some(&only)).await?;
            for result in results.into_iter().take(RESULTS - found.results.len()) {
                let whole = self.store.result(task, result.seq).await?;
                found.results.push(FailedResult {
                    account: batch.account_id,
                    task,
                    seq: result.seq,
                    address: result.address,
                    checked_at: result.checked_at,
                    detail: whole.and_then(|(_, detail)| detail),
                });
            }
        }
        Ok(found)
    }

    /// Mail hosts as the processes know them together; `None`: there is no Redis, so each process knows its own.
    pub async fn mail_hosts(&self) -> Result<Option<Hosts>, QueueError> {
        match self.queue.redis() {
            Some(redis) => redis.mail_hosts(HOSTS, self.now()).await.map(Some),
            None => Ok(None),
        }
    }

    /// Was a worker not heard of for so long that it counts as gone?
    pub fn is_silent(&self, worker: &Worker) -> bool {
        self.now() - worker.seen_at >= SILENT_MS
    }

    /// Tells a worker to drain; `false`: none of this name that can be drained lives.
    pub async fn drain_worker(&self, name: &str, by: &Origin) -> Result<bool, StoreError> {
        let now = self.now();
        let told = self.store.drain_worker(name, now - SILENT_MS, by, now).await?;
        if told {
            tracing::info!(worker = name, by = %by.actor, "told to drain");
        }
        Ok(told)
    }

    /// Suspends a key, whosever it is; its tasks go on.
    pub async fn suspend_key(
        &self,
        id: KeyId,
        suspension: Suspension,
        by: &Origin,
    ) -> Result<Receipt, KeyError> {
        let end = End::Suspend(self.checked(suspension)?);
        self.end_key(id, None, &end, false, By::nobody(by)).await
    }

    fn checked(&self, suspension: Suspension) -> Result<Suspension, KeyError> {
        let missing = || ("reason", String::from("is missing; the key's user is told it"));
        let reason = self.words("reason", Some(&suspension.reason))?.ok_or_else(missing)?;
        let note = self.words("note", suspension.note.as_deref())?;
        self.to_come(suspension.until)?;
        Ok(Suspension { reason, note, until: suspension.until })
    }

    fn to_come(&self, end: Option<Millis>) -> Result<(), KeyError> {
        match end.is_some_and(|end| end <= self.now()) {
            true => Err(("until", String::from("must not have passed already")).into()),
            false => Ok(()),
        }
    }

    /// Blocks an address or network; its one form, and whether that changed anything.
    pub async fn block_network(
        &self,
        text: &str,
        reason: Option<&str>,
        ends_at: Option<Millis>,
        by: &Origin,
    ) -> Result<(String, bool), KeyError> {
        let network = one_form(text)?.to_string();
        self.to_come(ends_at)?;
        let reason = self.words("reason", reason)?;
        let changed =
            self.store.block_ip(&network, reason.as_deref(), ends_at, by, self.now()).await?;
        Ok((network, changed))
    }

    /// Lifts a block; its one form, and whether there was one.
    pub async fn unblock_network(
        &self,
        text: &str,
        reason: Option<&str>,
        by: &Origin,
    ) -> Result<(String, bool), KeyError> {
        let network = one_form(text)?.to_string();
        let reason = self.words("reason", reason)?;
        let changed = self.store.unblock_ip(&network, reason.as_deref(), by, self.now()).await?;
        Ok((network, changed))
    }

    /// Books credits to an account, or takes them back; the balance afterwards.
    pub async fn book(
        &self,
        account: AccountId,
        kind: Kind,
        amount: i64,
        note: Option<&str>,
        by: &Origin,
    ) -> Result<i64, KeyError> {
        let note = self.words("note", note)?;
        self.bookable(account, kind, amount).await?;
        Ok(self.grant(account, kind, amount, note.as_deref(), by).await?)
    }

    /// Likewise, once under this name: what was booked, and whether that was now. Another kind or amount under the
    /// same name is refused.
    pub async fn book_once(
        &self,
        account: AccountId,
        kind: Kind,
        amount: i64,
        (note, reference): (Option<&str>, &str),
        by: &Origin,
    ) -> Result<(Booking, bool), KeyError> {
        let note = self.words("note", note)?;
        let missing = || ("reference", String::from("is empty"));
        let reference = self.words("reference", Some(reference))?.ok_or_else(missing)?;
        if let Some(before) = self.store.booking(account, &reference).await? {
            return same(before, kind, amount).map(|before| (before, false));
        }
        self.bookable(account, kind, amount).await?;
        // In the ledger and in the audit log, the reference stands in the note.
        let told = match note {
            Some(note) => format!("{note} ({reference})"),
            None => reference.clone(),
        };
        let named = (Some(told.as_str()), reference.as_str());
        let now = self.now();
        match self.store.grant_once((account, kind), amount, named, by, now).await? {
            Once::Before(before) => same(before, kind, amount).map(|before| (before, false)),
            Once::Now(posted) => {
                if posted.awaited {
                    self.credits_came(account).await;
                }
                let kind = kind.as_str().to_owned();
                let balance_after = posted.balance;
                Ok((Booking { kind, amount, balance_after, booked_at: now }, true))
            }
        }
    }

    async fn bookable(&self, account: AccountId, kind: Kind, amount: i64) -> Result<(), KeyError> {
        if amount == 0 {
            return Err(("amount", String::from("must not be 0: there is nothing to do")).into());
        }
        let before = self.store.balance(account, kind).await?;
        match before.checked_add(amount).is_none_or(|after| after < 0) {
            true => {
                let want = match amount < 0 {
                    true => format!(
                        "is too much: {} credits cannot be removed, the {} balance is {before}",
                        amount.unsigned_abs(),
                        kind.as_str()
                    ),
                    false => String::from("is more than a balance can hold"),
                };
                Err(("amount", want).into())
            }
            false => Ok(()),
        }
    }

    /// A reason or a note as it is kept: trimmed, and without a key that slipped in, which would be told to
    /// others and stand in the log. `None`: nothing was written.
    pub(super) fn words(
        &self,
        field: &'static str,
        text: Option<&str>,
    ) -> Result<Option<String>, KeyError> {
        let text = mask(&self.settings.key_prefix, text.unwrap_or_default().trim());
        if text.chars().count() > LONGEST || text.contains('\0') {
            return Err((field, format!("must have up to {LONGEST} characters")).into());
        }
        Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
    }
}

/// The booking that was made under a name, if it is the one that is asked for.
fn same(before: Booking, kind: Kind, amount: i64) -> Result<Booking, KeyError> {
    match before.kind == kind.as_str() && before.amount == amount {
        true => Ok(before),
        false => {
            let Booking { kind, amount, booked_at, .. } = before;
            let at = rfc3339(booked_at);
            let want = format!("stands for another booking: {amount} {kind} credits at {at}");
            Err(("reference", want).into())
        }
    }
}

/// The one form under which a network is stored: host bits cleared, IPv4 in IPv6's clothes undressed.
fn one_form(text: &str) -> Result<IpNet, KeyError> {
    match parse_network(text) {
        Some(network) => Ok(match network {
            IpNet::V6(v6) if v6.prefix_len() == 128 => IpNet::from(v6.addr().to_canonical()),
            _ => network,
        }
        .trunc()),
        None => {
            let text: String = text.trim().chars().take(64).collect();
            let want =
                format!("{text:?} is neither an IP address nor a network such as 203.0.113.0/24");
            Err(("network", want).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_form() {
        for (given, stored) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1/120", "192.0.2.0/24"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            assert_eq!(one_form(given).unwrap().to_string(), stored, "{given}");
        }
        for wrong in ["", "10.0.0.0/33", "example.com", "10.0.0"] {
            assert!(one_form(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn latencies_are_told_by_their_rank() {
        let row = |latency_us, status| Answered { status, latency_us, at: i64::from(latency_us) };
        assert_eq!(Answers::of(&[]), None);
        let rows: Vec<Answered> =
            (1..=100).map(|n| row(n, if n == 7 { 503 } else { 200 })).collect();
        let answers = Answers::of(&rows).unwrap();
        assert_eq!((answers.median_us, answers.p99_us, answers.errors), (51, 100, 1));
        assert_eq!((answers.requests, answers.since), (100, 1));
    }
}
