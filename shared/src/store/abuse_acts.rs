//! What abuse protection does, and how an operator undoes it: each in one transaction, with its signal, its strike
//! and its row of the audit log.
//!
//! The strike's row is the guard: it is moved on only from what was read of it, so of several processes that find
//! the same at once one acts. Lock order: key → strike → counts → networks of the key → blocked network → head of the
//! audit log.

use ipnet::IpNet;
use serde_json::json;
use sqlx::FromRow;

use super::abuse::{Signal, SignalRow, forget_counts};
use super::ip_blocks::{IpBlock, MOST_BY_RULES, block_by_rule, count_by_rules};
use super::key_edits::{Edited, Mark, edit_in, note};
use super::key_networks::{accepted_from, doubt, trust};
use super::{Result, Store, Tx, expect_rows, on};
use crate::domain::abuse::{Action, Rule, Seen, Strikes, next, spares};
use crate::domain::audit::Origin;
use crate::domain::clock::{Millis, rfc3339};
use crate::domain::id::KeyId;
use crate::domain::key::{Key, Suspension};

/// Whom a rule has found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A key.
    Key(KeyId),
    /// A network.
    Network(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Key(key) => std::fmt::Display::fmt(key, f),
            Subject::Network(network) => f.write_str(network),
        }
    }
}

/// What a rule has found, and is to be acted upon.
#[derive(Debug, Clone)]
pub struct Finding<'a> {
    /// Which rule.
    pub rule: Rule,
    /// Whom.
    pub subject: Subject,
    /// What was seen.
    pub seen: Seen,
    /// From where a key was used, of which at most a part is kept.
    pub networks: Vec<String>,
    /// It only says what it would do.
    pub dry: bool,
    /// How long its first act lasts.
    pub first: Millis,
    /// Networks of our proxies.
    pub proxies: &'a [IpNet],
    /// Number of the signal.
    pub id: i64,
}

/// What came of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// This.
    Done(Box<Signal>),
    /// An act on the same subject still holds.
    Holds,
    /// The key opens nothing anyway, or has an allow-list of its owner's.
    Moot,
}

/// A suspension that was lifted.
#[derive(Debug)]
pub struct Lifted {
    /// The key before and after.
    pub keys: Box<(Key, Key)>,
    /// The signal that had suspended it; none = it was an operator, or it was not suspended.
    pub signal: Option<Signal>,
    /// Strikes that were forgotten: rule and how many.
    pub strikes: Vec<(Rule, i32)>,
    /// Rows of counts that were forgotten.
    pub counts: u64,
    /// Networks that are known from now on.
    pub networks: u64,
}

#[derive(FromRow)]
struct StrikesRow {
    strikes: i32,
    ends_at: i64,
    dry: bool,
}

/// Why nothing is to be done to a key.
struct Moot;

impl Store {
    /// Acts on what a rule has found, once: whoever comes second is told that it holds already.
    pub async fn act(&self, finding: &Finding<'_>, now: Millis) -> Result<Acted> {
        let mut tx = self.begin().await?;
        let subject = finding.subject.to_string();
        let before = strikes_of(&mut tx, finding.rule, &subject).await?;
        let Some(after) = next(before, finding.dry, finding.first, now) else {
            return Ok(Acted::Holds);
        };
        let mut signal = Signal {
            id: finding.id,
            at: now,
            rule: finding.rule,
            subject,
            account: None,
            counted: finding.seen.counted,
            strikes: after.strikes,
            action: if finding.dry { Action::DryRun } else { finding.rule.action() },
            ends_at: after.ends_at,
            detail: String::new(),
        };
        let mut detail = detail(&finding.seen, &finding.networks);
        match &finding.subject {
            Subject::Key(key) => {
                let edited = suspend(&mut tx, *key, finding, &signal, now).await?;
                let Edited::Done(keys) = edited else { return Ok(Acted::Moot) };
                signal.account = Some(keys.1.account);
                if !finish(&mut tx, before, after, &signal, &detail).await? {
                    return Ok(Acted::Holds);
                }
                if finding.rule == Rule::Networks {
                    doubt(&mut tx, *key, now - finding.rule.window()).await?;
                }
                if !finding.dry {
                    let mark = Mark { action: "key.suspend", by: &Origin::system() };
                    note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
                }
            }
            Subject::Network(network) => {
                let mut after = after;
                if let Some(why) = spared(&mut tx, network, finding, now).await? {
                    after = spare(before, finding, now);
                    signal.action = Action::Spared;
                    (signal.strikes, signal.ends_at) = (after.strikes, after.ends_at);
                    detail["spared"] = json!(why);
                }
                if !finish(&mut tx, before, after, &signal, &detail).await? {
                    return Ok(Acted::Holds);
                }
                if signal.action == Action::Blocked {
                    let reason = reason(&signal);
                    let block = IpBlock {
                        cidr: network.clone(),
                        reason: Some(reason),
                        created_at: now,
                        ends_at: Some(after.ends_at),
                        made_by: format!("rule:{}", finding.rule.as_str()),
                    };
                    if !block_by_rule(&mut tx, &block, now).await? {
                        return Ok(Acted::Holds);
                    }
                }
            }
        }
        tx.commit().await?;
        signal.detail = detail.to_string();
        Ok(Acted::Done(Box::new(signal)))
    }

    /// Lifts a suspension, and lets the rules begin anew with this key: their strikes and counts are forgotten, and
    /// the networks that it has are known from now on. `None`: no such key, or deleted.
    pub async fn lift_suspension(
        &self,
        id: KeyId,
        by: &Origin,
        now: Millis,
    ) -> Result<Option<Lifted>> {
        const FORGET: &str = "DELETE FROM abuse_strikes WHERE subject = $1 RETURNING rule, strikes";
        let mut tx = self.begin().await?;
        let lift = |key: &mut Key| {
            key.suspended = None;
            Ok::<_, Moot>(())
        };
        let Edited::Done(keys) = edit_in(&mut tx, id, None, lift, now).await? else {
            return Ok(None);
        };
        let subject = id.to_string();
        let until = keys.0.suspended.as_ref().and_then(|suspended| suspended.until);
        let signal = match until {
            Some(until) => signal_of(&mut tx, &subject, until).await?,
            None => None,
        };
        let forgotten: Vec<(i16, i32)> =
            on!(&mut tx, c => sqlx::query_as(FORGET).bind(&subject).fetch_all(c).await)?;
        let mut counts = 0;
        for rule in Rule::ALL {
            counts += forget_counts(&mut tx, rule, &subject).await?;
        }
        let networks = trust(&mut tx, id).await?;
        let mark = Mark { action: "key.unsuspend", by };
        note(&mut tx, &mark, &keys.0, &keys.1, now).await?;
        tx.commit().await?;
        let mut strikes: Vec<(Rule, i32)> = forgotten
            .into_iter()
            .filter_map(|(rule, strikes)| Some((Rule::from_number(rule)?, strikes)))
            .collect();
        strikes.sort_unstable();
        Ok(Some(Lifted { keys, signal, strikes, counts, networks }))
    }

    /// How often a rule has acted on a subject, and until when.
    pub async fn strikes(&self, rule: Rule, subject: &str) -> Result<Option<Strikes>> {
        strikes_of(&mut self.reader().await?, rule, subject).await
    }
}

/// Suspends a key within the transaction, or looks whether it could be where that is dry.
async fn suspend(
    tx: &mut Tx,
    key: KeyId,
    finding: &Finding<'_>,
    signal: &Signal,
    now: Millis,
) -> Result<Edited<Moot>> {
    let suspension = Suspension {
        reason: finding.rule.reason().to_owned(),
        until: Some(signal.ends_at),
        note: Some(format!("{}; signal {}", reason(signal), signal.id)),
    };
    let edit = |key: &mut Key| {
        // Its owner has named the networks that it is used from.
        let allowed = finding.rule == Rule::Networks && !key.allow.is_empty();
        if key.api.is_some() || allowed || key.alive(now).is_err() {
            return Err(Moot);
        }
        if !finding.dry {
            key.suspended = Some(suspension);
        }
        Ok(())
    };
    edit_in(tx, key, None, edit, now).await
}

/// Why a network is not blocked, if it is not.
async fn spared(
    tx: &mut Tx,
    network: &str,
    finding: &Finding<'_>,
    now: Millis,
) -> Result<Option<&'static str>> {
    let accepted = accepted_from(tx, network, now).await?;
    let parsed: Option<IpNet> = network.parse().ok();
    let why = match parsed {
        Some(parsed) => spares(&parsed, finding.proxies, accepted, finding.seen.requests),
        None => Some("it is no network"),
    };
    if why.is_some() || finding.dry {
        return Ok(why);
    }
    let full = count_by_rules(tx, now).await? >= MOST_BY_RULES;
    Ok(full.then_some("rules have blocked as many networks as they may"))
}

/// Who is spared gets no strike, and is looked at again soon: it may be another who comes from there by then.
fn spare(before: Option<Strikes>, finding: &Finding<'_>, now: Millis) -> Strikes {
    const SOON: Millis = 10 * 60_000;
    let strikes = before.filter(|before| before.dry == finding.dry).map_or(0, |one| one.strikes);
    Strikes { strikes, ends_at: now.saturating_add(finding.first.min(SOON)), dry: finding.dry }
}

/// The strike, the signal, and what was counted so far is done with. False: somebody else was first.
async fn finish(
    tx: &mut Tx,
    before: Option<Strikes>,
    after: Strikes,
    signal: &Signal,
    detail: &serde_json::Value,
) -> Result<bool> {
    const STRIKE: &str = "INSERT INTO abuse_strikes (rule, subject, strikes, ends_at, dry)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (rule, subject) DO UPDATE SET strikes = excluded.strikes, ends_at = excluded.ends_at,
            dry = excluded.dry
        WHERE abuse_strikes.strikes = $6 AND abuse_strikes.ends_at = $7";
    const SIGNAL: &str = "INSERT INTO abuse_signals
        (id, at, rule, subject, account_id, counted, strikes, action, ends_at, detail)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    // No row has no strikes.
    let (strikes, ends_at) = before.map_or((0, 0), |before| (before.strikes, before.ends_at));
    let rows = on!(&mut *tx, c => sqlx::query(STRIKE)
        .bind(signal.rule.number()).bind(&signal.subject).bind(after.strikes).bind(after.ends_at)
        .bind(after.dry).bind(strikes).bind(ends_at)
        .execute(c).await.map(|r| r.rows_affected()))?;
    if rows == 0 {
        return Ok(false);
    }
    let rows = on!(&mut *tx, c => sqlx::query(SIGNAL)
        .bind(signal.id).bind(signal.at).bind(signal.rule.number()).bind(&signal.subject)
        .bind(signal.account).bind(signal.counted).bind(signal.strikes)
        .bind(signal.action.as_str()).bind(signal.ends_at).bind(detail.to_string())
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("signal", rows, 1)?;
    forget_counts(tx, signal.rule, &signal.subject).await?;
    Ok(true)
}

async fn strikes_of(tx: &mut Tx, rule: Rule, subject: &str) -> Result<Option<Strikes>> {
    const SQL: &str =
        "SELECT strikes, ends_at, dry FROM abuse_strikes WHERE rule = $1 AND subject = $2";
    let row: Option<StrikesRow> = on!(tx, c => sqlx::query_as(SQL)
        .bind(rule.number()).bind(subject).fetch_optional(c).await)?;
    Ok(row.map(|row| Strikes { strikes: row.strikes, ends_at: row.ends_at, dry: row.dry }))
}

/// The signal that has suspended a key until then.
async fn signal_of(tx: &mut Tx, subject: &str, until: Millis) -> Result<Option<Signal>> {
    const SQL: &str =
        "SELECT id, at, rule, subject, account_id, counted, strikes, action, ends_at, detail
        FROM abuse_signals WHERE subject = $1 AND action = 'suspended' AND ends_at = $2
        ORDER BY subject DESC, id DESC LIMIT 1";
    let row: Option<SignalRow> = on!(tx, c => sqlx::query_as(SQL)
        .bind(subject).bind(until).fetch_optional(c).await)?;
    row.map(Signal::try_from).transpose()
}

/// For other operators.
fn reason(signal: &Signal) -> String {
    let minutes = signal.rule.window() / 60_000;
    let what = match signal.rule {
        Rule::RateLimits => "refusals with 429",
        Rule::UnknownKeys => "unknown keys",
        Rule::DeadKeys => "uses of dead keys",
        Rule::Networks => "networks",
    };
    format!("{} {what} within {minutes} minutes", signal.counted)
}

fn detail(seen: &Seen, networks: &[String]) -> serde_json::Value {
    let mut detail = json!({ "requests": seen.requests });
    if seen.first_at > 0 {
        detail["first_at"] = json!(rfc3339(seen.first_at));
        detail["last_at"] = json!(rfc3339(seen.last_at));
        detail["minutes"] = json!(seen.minutes);
    }
    if !networks.is_empty() {
        detail["networks"] = json!(networks);
        detail["known_networks"] = json!(seen.known);
    }
    detail
}
