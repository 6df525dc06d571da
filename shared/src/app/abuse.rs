//! Abuse protection at work: what the gate decides is counted here, and whoever is found is acted upon.
//!
//! * The request log's writer shows each batch of decisions to a [`Counter`], before any is left out of the log,
//!   which adds them up by the minute ([`tally`]) and hands that on. A [`Watch`] stores it, and judges the subjects
//!   that it touched on what all processes have stored. The log never waits for it: at most [`WAITING`] batches
//!   wait, and what comes then is lost, and counted (`listmill_abuse_lost_total`).
//! * Bounded, for each rule by itself: [`SUBJECTS`] in a batch, [`REMEMBERED`] in ten minutes; of unknown keys no more
//!   are told apart than the threshold asks for. What is beyond is not counted by the rules, and that is counted
//!   (`listmill_abuse_uncounted_total`). Decisions that the full buffer loses are not counted either.
//! * Refusals by the emergency lever ([`crate::domain::factor`]) count for nobody: while it holds, no 429 counts.
//! * A failure loses what was counted in that batch. To count it twice could suspend somebody.

mod memory;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::mpsc;

use self::memory::Memory;
use self::tally::Tallied;
use super::App;
use crate::domain::abuse::{Action, FORGOTTEN, HABIT, MINUTE_MS, Mode, Policies, Rule, Seen};
use crate::domain::audit::Origin;
use crate::domain::clock::{Clock, Millis};
use crate::domain::id::{Ids, KeyId};
use crate::domain::network::parse_proxies;
use crate::domain::request::{DAY_MS, Decision, HOUR_MS};
use crate::store::abuse::{Question, Signal};
use crate::store::abuse_acts::{Acted, Finding, Lifted, Subject};
use crate::store::{Store, StoreError};

pub use self::tally::print;

/// Batches that wait to be judged.
const WAITING: usize = 16;
/// Subjects of each rule that are counted in a batch, those of the most requests.
const SUBJECTS: usize = 256;
/// Subjects that a process counts of each rule in ten minutes; and keys' networks that it remembers.
const REMEMBERED: usize = 10_000;
/// Networks that a signal names.
const NAMED: i64 = 100;
/// A key's networks are counted anew when one comes that was not there for so long, as far as this process knows.
const AGAIN: Millis = 10_000;
/// Whom nothing was done about is not counted for so long.
const QUIET: Millis = MINUTE_MS;
/// How often the same trouble is said.
const TELL: Duration = Duration::from_secs(60);
/// Signals are kept so long.
const SIGNALS_KEPT: Millis = 90 * DAY_MS;
/// Networks that a key was not used from for so long are forgotten.
const NETWORKS_KEPT: Millis = 400 * DAY_MS;
/// Rows of blocks that have ended are kept so long.
const BLOCKS_KEPT: Millis = DAY_MS;

/// Stands in place of a [`print`] with a decision about a key whose time has not come: it is no dead key.
pub const NOT_YET: i64 = i64::MIN;

/// A decision, and what tells the presented key apart where nobody has it; or [`NOT_YET`].
pub type Noted = (Decision, Option<i64>);

/// Adds up what is noted; one for each process.
pub(super) struct Counter {
    policies: Policies,
    send: mpsc::Sender<Tallied>,
    /// Batches that were handed on and are not judged yet.
    open: Arc<AtomicUsize>,
}

impl Counter {
    /// Adds up what these decisions mean for the rules, and hands it on without waiting.
    pub(super) fn count(&self, decisions: &[Noted]) {
        let tallied = tally::tally(decisions, &self.policies);
        if tallied.is_empty() {
            return;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        if self.send.try_send(tallied).is_err() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            lost();
        }
    }
}

/// Stores, judges, acts; one for each process.
pub(super) struct Watch {
    store: Store,
    clock: Clock,
    ids: Ids,
    policies: Policies,
    proxies: Vec<IpNet>,
    receive: mpsc::Receiver<Tallied>,
    open: Arc<AtomicUsize>,
    memory: Memory,
    told: Option<Instant>,
}

/// Who counts and who judges, as the settings say; `None`: there is nothing to count. `open`: raised for each batch
/// until it is judged.
pub(super) fn begin(app: &App, open: &Arc<AtomicUsize>) -> Option<(Counter, Watch)> {
    let policies = app.settings.abuse();
    if !policies.any() && !app.settings.request_log {
        return None;
    }
    // Shown from the start, so that none is not mistaken for not known.
    for rule in Rule::ALL {
        for action in [rule.action(), Action::DryRun] {
            signals(rule, action).increment(0);
        }
    }
    let (send, receive) = mpsc::channel(WAITING);
    let counter = Counter { policies, send, open: open.clone() };
    let watch = Watch {
        store: app.store.clone(),
        clock: app.clock.clone(),
        ids: app.ids.clone(),
        policies,
        // What does not parse the API has refused.
        proxies: parse_proxies(&app.settings.trusted_proxies).unwrap_or_default(),
        receive,
        open: open.clone(),
        memory: Memory::default(),
        told: None,
    };
    Some((counter, watch))
}

impl Watch {
    /// Judges until the counter is gone, and everything that it has handed on is judged.
    pub(super) async fn run(mut self) {
        while let Some(tallied) = self.receive.recv().await {
            self.watch(tallied).await;
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Stores it, and acts on whoever is found.
    async fn watch(&mut self, tallied: Tallied) {
        if let Err(error) = self.try_watch(tallied).await {
            lost();
            if self.told.is_none_or(|told| told.elapsed() >= TELL) {
                self.told = Some(Instant::now());
                tracing::warn!(%error, "abuse protection cannot count: what it would have counted is lost");
            }
        }
    }

    async fn try_watch(&mut self, mut tallied: Tallied) -> Result<(), StoreError> {
        if tallied.has(Rule::RateLimits) {
            let lever = self.store.limit_lever().await?;
            tallied.forgive_limits_before(lever.set_at.max(lever.tightened.ends_at));
        }
        tallied.bound(&self.policies, &mut self.memory, self.clock.now());
        if tallied.is_empty() {
            return Ok(());
        }
        self.store.add_tally(tallied.rows()).await?;
        self.judge_counts(&tallied).await?;
        self.judge_networks(&tallied).await
    }

    /// The rules that count by the minute.
    async fn judge_counts(&mut self, tallied: &Tallied) -> Result<(), StoreError> {
        let now = self.clock.now();
        let question = |(rule, subject): (Rule, String)| {
            let since = now - rule.window();
            Question { rule, subject, since }
        };
        let questions: Vec<Question> = tallied.subjects().map(question).collect();
        for (question, seen) in self.store.seen_by_rules(&questions).await? {
            if !self.policies.exceeds(question.rule, &seen) {
                continue;
            }
            let subject = match question.subject.parse::<KeyId>() {
                Ok(key) => Subject::Key(key),
                Err(_) => Subject::Network(question.subject),
            };
            let networks = match &subject {
                Subject::Key(key) => {
                    self.store.active_networks(*key, question.since, NAMED).await?
                }
                Subject::Network(_) => Vec::new(),
            };
            self.act(question.rule, subject, seen, networks, now).await?;
        }
        Ok(())
    }

    /// The rule that counts a key's networks.
    async fn judge_networks(&mut self, tallied: &Tallied) -> Result<(), StoreError> {
        const RULE: Rule = Rule::Networks;
        let now = self.clock.now();
        let since = now - RULE.window();
        let keys = self.memory.keys_to_judge(tallied.uses(), now);
        for spread in self.store.spreads(&keys, since, now - HABIT).await? {
            self.store.trim_networks(&spread).await?;
            let seen = Seen {
                counted: spread.active,
                known: spread.known,
                settled: spread.settled,
                ..Seen::default()
            };
            if !self.policies.exceeds(RULE, &seen) {
                continue;
            }
            // What was seen before the last act ended is done with.
            let key = spread.key_id;
            let strikes = self.store.strikes(RULE, &key.to_string()).await?;
            let ended = strikes.map_or(since, |strikes| strikes.ends_at);
            let networks = match ended > now {
                // It holds, or the rule was only dry then: whoever acts will tell.
                true => self.store.active_networks(key, since, NAMED).await?,
                false => self.store.active_networks(key, since.max(ended), NAMED).await?,
            };
            let counted = match networks.len() as i64 {
                all if all < NAMED => all,
                _ => spread.active,
            };
            let seen = Seen { counted, requests: tallied.requests_of(key), ..seen };
            if self.policies.exceeds(RULE, &seen) {
                self.act(RULE, Subject::Key(key), seen, networks, now).await?;
            }
        }
        Ok(())
    }

    async fn act(
        &mut self,
        rule: Rule,
        subject: Subject,
        seen: Seen,
        networks: Vec<String>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let policy = self.policies.of(rule);
        let dry = policy.mode == Mode::DryRun;
        let finding = Finding {
            rule,
            subject,
            seen,
            networks,
            dry,
            first: policy.first,
            proxies: &self.proxies,
            id: self.ids.number(now),
        };
        let acted = self.store.act(&finding, now).await?;
        let subject = finding.subject.to_string();
        match acted {
            Acted::Done(signal) => {
                tell(&signal);
                self.memory.forget(&finding.subject);
                if matches!(signal.action, Action::DryRun | Action::Spared) {
                    self.memory.quiet(rule, subject, (now + QUIET).min(signal.ends_at));
                }
            }
            // Counting begins anew with its end, or its key's.
            Acted::Holds | Acted::Moot => {
                self.store.forget_counts(rule, &subject).await?;
                if dry {
                    self.memory.quiet(rule, subject, now + AGAIN);
                }
            }
        }
        Ok(())
    }
}

/// What a batch would have added is lost.
fn lost() {
    metrics::counter!("listmill_abuse_lost_total").increment(1);
}

/// So many subjects were too many to be counted.
fn uncounted(subjects: usize) {
    if subjects > 0 {
        metrics::counter!("listmill_abuse_uncounted_total").increment(subjects as u64);
    }
}

fn signals(rule: Rule, action: Action) -> metrics::Counter {
    metrics::counter!("listmill_abuse_signals_total", "rule" => rule.as_str(), "action" => action.as_str())
}

fn tell(signal: &Signal) {
    signals(signal.rule, signal.action).increment(1);
    tracing::warn!(
        rule = signal.rule.as_str(),
        subject = signal.subject,
        counted = signal.counted,
        strikes = signal.strikes,
        action = signal.action.as_str(),
        ends_at = %crate::domain::clock::rfc3339(signal.ends_at),
        detail = signal.detail,
        "abuse protection"
    );
}

impl App {
    /// Lifts a suspension, and lets the rules begin anew with this key. `None`: no such key, or deleted.
    pub async fn lift_suspension(
        &self,
        id: KeyId,
        by: &Origin,
    ) -> Result<Option<Lifted>, StoreError> {
        let lifted = self.store.lift_suspension(id, by, self.now()).await?;
        if lifted.is_some() {
            tracing::info!(key = %id, action = "key.unsuspend", by = %by.actor, "key changed");
        }
        Ok(lifted)
    }

    /// Removes what abuse protection has no more use for, for about `budget`.
    pub async fn expire_abuse(&self, budget: Duration) -> Result<(), StoreError> {
        let (started, now) = (Instant::now(), self.now());
        self.store.expire_ip_blocks(now - BLOCKS_KEPT).await?;
        let (counts, signals) = (now - HOUR_MS - MINUTE_MS, now - SIGNALS_KEPT);
        while self.store.expire_abuse(counts, signals, now - FORGOTTEN).await?
            && started.elapsed() < budget
        {}
        while self.store.expire_networks(now - NETWORKS_KEPT).await? && started.elapsed() < budget {
        }
        Ok(())
    }
}
