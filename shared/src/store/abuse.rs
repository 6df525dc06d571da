//! What abuse protection ([`crate::domain::abuse`]) counts and has found.
//!
//! | table | a row is | key |
//! | --- | --- | --- |
//! | `abuse_counts` | what a rule counts of a subject in a minute | (rule, subject, minute, item) |
//! | `abuse_strikes` | how often a rule has acted on a subject | (rule, subject) |
//! | `abuse_signals` | what a rule has found, and what was done | id |
//!
//! * A [`Tally`] is added in one transaction, whose commit need not have reached the disk; afterwards the subjects
//!   that it touched are judged on what all processes have added. Of two processes that add at once, the one that
//!   commits last sees both.
//! * Rows are touched in the order of their keys by everybody, text by its bytes, so that none waits in a circle:
//!   whoever removes several in PostgreSQL locks them in that order first.

use sqlx::FromRow;

use super::key_networks::{Uses, add_uses, json};
use super::{Result, Store, StoreError, Tx, expect_rows, on, read, within};
use crate::domain::abuse::{Action, Rule, Seen};
use crate::domain::clock::Millis;
use crate::domain::id::AccountId;

/// Signals that are kept; beyond, the oldest go.
const SIGNALS: i64 = 100_000;

/// What a rule counts of a subject in a minute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Which rule.
    pub rule: Rule,
    /// A key's id as text, or a network.
    pub subject: String,
    /// When the minute begins.
    pub minute: Millis,
    /// Tells apart what is counted once; else 0.
    pub item: i64,
    /// How many requests.
    pub requests: i64,
    /// The first of them.
    pub first_at: Millis,
    /// The last of them.
    pub last_at: Millis,
}

/// What is added at once. Both are sorted by their keys, each key there once.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// By the minute.
    pub counts: Vec<Count>,
    /// Of live keys.
    pub uses: Vec<Uses>,
}

impl Tally {
    /// Is there nothing to add?
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.uses.is_empty()
    }
}

/// What a rule looks at: a subject, and from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which rule.
    pub rule: Rule,
    /// A key's id as text, or a network.
    pub subject: String,
    /// Minutes that begin after this.
    pub since: Millis,
}

#[derive(FromRow)]
struct SeenRow {
    rule: i16,
    subject: String,
    requests: i64,
    items: i64,
    minutes: i64,
    first_at: i64,
    last_at: i64,
}

/// Something that a rule has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Ordered by time.
    pub id: i64,
    /// When.
    pub at: Millis,
    /// Which rule.
    pub rule: Rule,
    /// A key's id as text, or a network.
    pub subject: String,
    /// Whose key it is.
    pub account: Option<AccountId>,
    /// What the threshold was compared with.
    pub counted: i64,
    /// How often in a row.
    pub strikes: i32,
    /// What was done.
    pub action: Action,
    /// When that ends, or would have.
    pub ends_at: Millis,
    /// JSON: what else was seen.
    pub detail: String,
}

#[derive(FromRow)]
pub(super) struct SignalRow {
    id: i64,
    at: i64,
    rule: i16,
    subject: String,
    account_id: Option<AccountId>,
    counted: i64,
    strikes: i32,
    action: String,
    ends_at: i64,
    detail: String,
}

fn rule_of(number: i16) -> Result<Rule> {
    Rule::from_number(number)
        .ok_or_else(|| StoreError::Damaged { what: "rule", detail: number.to_string() })
}

impl TryFrom<SignalRow> for Signal {
    type Error = StoreError;

    fn try_from(row: SignalRow) -> Result<Self> {
        let action = Action::from_name(&row.action);
        Ok(Signal {
            id: row.id,
            at: row.at,
            rule: rule_of(row.rule)?,
            subject: row.subject,
            account: row.account_id,
            counted: row.counted,
            strikes: row.strikes,
            action: action
                .ok_or(StoreError::Damaged { what: "action of a signal", detail: row.action })?,
            ends_at: row.ends_at,
            detail: row.detail,
        })
    }
}

impl Store {
    /// Adds what was seen. What cannot be added is not tried again by itself: an answer may be lost after the
    /// commit, and to count twice could suspend somebody.
    pub async fn add_tally(&self, tally: &Tally) -> Result<()> {
        let mut tx = self.begin_unsynced().await?;
        add_counts(&mut tx, &tally.counts).await?;
        add_uses(&mut tx, &tally.uses).await?;
        tx.commit().await
    }

    /// What has been counted of these, all of it at this moment; what has not been counted at all is left out.
    pub async fn seen_by_rules(&self, questions: &[Question]) -> Result<Vec<(Question, Seen)>> {
        const SEEN_PG: &str =
            "SELECT c.rule, c.subject, CAST(SUM(c.requests) AS BIGINT) AS requests,
                count(DISTINCT c.item) AS items, count(DISTINCT c.minute) AS minutes,
                MIN(c.first_at) AS first_at, MAX(c.last_at) AS last_at
            FROM UNNEST($1::SMALLINT[], $2::TEXT[], $3::BIGINT[]) AS q (rule, subject, since)
            JOIN abuse_counts c ON c.rule = q.rule AND c.subject = q.subject AND c.minute > q.since
            GROUP BY c.rule, c.subject";
        // Rows as JSON, where there are no arrays.
        const SEEN_LITE: &str =
            "SELECT c.rule, c.subject, CAST(SUM(c.requests) AS BIGINT) AS requests,
                count(DISTINCT c.item) AS items, count(DISTINCT c.minute) AS minutes,
                MIN(c.first_at) AS first_at, MAX(c.last_at) AS last_at
            FROM json_each($1) j
            JOIN abuse_counts c ON c.rule = j.value ->> 0 AND c.subject = j.value ->> 1
                AND c.minute > j.value ->> 2
            GROUP BY c.rule, c.subject";
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<SeenRow> = match &mut self.reader().await? {
            Tx::Pg(lent) => within!(lent, c => sqlx::query_as(SEEN_PG)
                .bind(questions.iter().map(|one| one.rule.number()).collect::<Vec<_>>())
                .bind(questions.iter().map(|one| one.subject.as_str()).collect::<Vec<_>>())
                .bind(questions.iter().map(|one| one.since).collect::<Vec<_>>())
                .fetch_all(c).await)?,
            Tx::Lite(lent) => {
                let json =
                    json(questions.iter().map(|one| (one.rule.number(), &one.subject, one.since)))?;
                within!(lent, c => sqlx::query_as(SEEN_LITE).bind(json).fetch_all(c).await)?
            }
        };
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let rule = rule_of(row.rule)?;
            let counted = if rule == Rule::UnknownKeys { row.items } else { row.requests };
            let seen = Seen {
                counted,
                requests: row.requests,
                minutes: row.minutes,
                first_at: row.first_at,
                last_at: row.last_at,
                ..Seen::default()
            };
            let asked = questions.iter().find(|one| one.rule == rule && one.subject == row.subject);
            if let Some(question) = asked {
                all.push((question.clone(), seen));
            }
        }
        Ok(all)
    }

    /// Forgets what was counted of a subject by a rule.
    pub async fn forget_counts(&self, rule: Rule, subject: &str) -> Result<()> {
        let mut tx = self.begin_unsynced().await?;
        forget_counts(&mut tx, rule, subject).await?;
        tx.commit().await
    }

    /// What the rules have found, newest first, before the signal `before`; `subject`: of this one only.
    pub async fn signals(
        &self,
        subject: Option<&str>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Signal>> {
        const ALL: &str =
            "SELECT id, at, rule, subject, account_id, counted, strikes, action, ends_at, detail
            FROM abuse_signals WHERE id < $1 ORDER BY id DESC LIMIT $2";
        const OF_SUBJECT: &str = "SELECT id, at, rule, subject, account_id, counted, strikes, action, ends_at,
                detail
            FROM abuse_signals WHERE subject = $3 AND id < $1 ORDER BY subject DESC, id DESC LIMIT $2";
        let before = before.unwrap_or(i64::MAX);
        let rows: Vec<SignalRow> = match subject {
            Some(subject) => read!(self, c => sqlx::query_as(OF_SUBJECT)
                .bind(before).bind(limit).bind(subject).fetch_all(c).await),
            None => read!(self, c => sqlx::query_as(ALL)
                .bind(before).bind(limit).fetch_all(c).await),
        }?;
        rows.into_iter().map(Signal::try_from).collect()
    }

    /// Removes one slice of what nobody looks at any more: counts of a minute before `counts`, signals before
    /// `signals` or beyond the newest 100,000, strikes whose acts ended before `strikes`. True: there may be more.
    pub async fn expire_abuse(
        &self,
        counts: Millis,
        signals: Millis,
        strikes: Millis,
    ) -> Result<bool> {
        const OLDEST: &str = "SELECT (SELECT MIN(minute) FROM abuse_counts),
            (SELECT MIN(ends_at) FROM abuse_strikes), (SELECT MIN(id) FROM abuse_signals),
            (SELECT id FROM abuse_signals ORDER BY id DESC LIMIT 1 OFFSET $1)";
        const COUNTS_LITE: &str = "DELETE FROM abuse_counts WHERE minute = $1";
        const COUNTS_PG: &str =
            "WITH held AS (SELECT rule, subject, item FROM abuse_counts WHERE minute = $1
                ORDER BY rule, subject COLLATE \"C\", item FOR UPDATE)
            DELETE FROM abuse_counts a USING held r WHERE a.rule = r.rule AND a.subject = r.subject
                AND a.minute = $1 AND a.item = r.item";
        const STRIKES: &str = "DELETE FROM abuse_strikes WHERE ends_at < $1";
        const SIGNALS_BY_AGE: &str = "DELETE FROM abuse_signals WHERE id IN (
            SELECT id FROM abuse_signals WHERE at < $1 ORDER BY id LIMIT 1000)";
        const SIGNALS_BY_NUMBER: &str = "DELETE FROM abuse_signals WHERE id IN (
            SELECT id FROM abuse_signals WHERE id <= $1 ORDER BY id LIMIT 1000)";
        type Oldest = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);
        let (minute, strike, signal, beyond): Oldest =
            read!(self, c => sqlx::query_as(OLDEST).bind(SIGNALS).fetch_one(c).await)?;
        let mut more = false;
        if let Some(minute) = minute.filter(|minute| *minute < counts) {
            more |= self.remove(COUNTS_PG, COUNTS_LITE, minute).await? > 0;
        }
        if strike.is_some_and(|end| end < strikes) {
            self.remove(STRIKES, STRIKES, strikes).await?;
        }
        if let Some(id) = beyond {
            more |= self.remove(SIGNALS_BY_NUMBER, SIGNALS_BY_NUMBER, id).await? > 0;
        }
        if let Some(id) = signal
            && self.signals_at(id).await?.is_some_and(|at| at < signals)
        {
            more |= self.remove(SIGNALS_BY_AGE, SIGNALS_BY_AGE, signals).await? > 0;
        }
        Ok(more)
    }

    async fn signals_at(&self, id: i64) -> Result<Option<Millis>> {
        const SQL: &str = "SELECT at FROM abuse_signals WHERE id = $1";
        read!(self, c => sqlx::query_scalar(SQL).bind(id).fetch_optional(c).await)
    }

    async fn remove(&self, pg: &'static str, lite: &'static str, value: i64) -> Result<u64> {
        let mut tx = self.begin_unsynced().await?;
        let sql = if matches!(tx, Tx::Pg(_)) { pg } else { lite };
        let gone = on!(&mut tx, c => sqlx::query(sql).bind(value)
            .execute(c).await.map(|r| r.rows_affected()))?;
        tx.commit().await?;
        Ok(gone)
    }
}

pub(super) async fn forget_counts(tx: &mut Tx, rule: Rule, subject: &str) -> Result<u64> {
    const LITE: &str = "DELETE FROM abuse_counts WHERE rule = $1 AND subject = $2";
    // Where there are several writers, rows are locked in their order.
    const PG: &str = "WITH held AS (SELECT minute, item FROM abuse_counts
            WHERE rule = $1 AND subject = $2 ORDER BY minute, item FOR UPDATE)
        DELETE FROM abuse_counts a USING held r
        WHERE a.rule = $1 AND a.subject = $2 AND a.minute = r.minute AND a.item = r.item";
    let sql = if matches!(tx, Tx::Pg(_)) { PG } else { LITE };
    on!(tx, c => sqlx::query(sql).bind(rule.number()).bind(subject)
        .execute(c).await.map(|r| r.rows_affected()))
}

async fn add_counts(tx: &mut Tx, counts: &[Count]) -> Result<()> {
    // Many at once: arrays, or JSON where there are none; and the greater of two has another name.
    const ADD_PG: &str =
        "INSERT INTO abuse_counts (rule, subject, minute, item, requests, first_at, last_at)
        SELECT * FROM UNNEST($1::SMALLINT[], $2::TEXT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[],
            $6::BIGINT[], $7::BIGINT[])
        ON CONFLICT (rule, subject, minute, item) DO UPDATE SET
            requests = abuse_counts.requests + excluded.requests,
            first_at = LEAST(abuse_counts.first_at, excluded.first_at),
            last_at = GREATEST(abuse_counts.last_at, excluded.last_at)";
    const ADD_LITE: &str =
        "INSERT INTO abuse_counts (rule, subject, minute, item, requests, first_at, last_at)
        SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4,
            j.value ->> 5, j.value ->> 6
        FROM json_each($1) j WHERE TRUE
        ON CONFLICT (rule, subject, minute, item) DO UPDATE SET
            requests = abuse_counts.requests + excluded.requests,
            first_at = MIN(abuse_counts.first_at, excluded.first_at),
            last_at = MAX(abuse_counts.last_at, excluded.last_at)";
    if counts.is_empty() {
        return Ok(());
    }
    let rows = match tx {
        Tx::Pg(lent) => within!(lent, c => sqlx::query(ADD_PG)
            .bind(counts.iter().map(|one| one.rule.number()).collect::<Vec<_>>())
            .bind(counts.iter().map(|one| one.subject.as_str()).collect::<Vec<_>>())
            .bind(counts.iter().map(|one| one.minute).collect::<Vec<_>>())
            .bind(counts.iter().map(|one| one.item).collect::<Vec<_>>())
            .bind(counts.iter().map(|one| one.requests).collect::<Vec<_>>())
            .bind(counts.iter().map(|one| one.first_at).collect::<Vec<_>>())
            .bind(counts.iter().map(|one| one.last_at).collect::<Vec<_>>())
            .execute(c).await.map(|r| r.rows_affected()))?,
        Tx::Lite(lent) => {
            let json = json(counts.iter().map(|one| {
                let rule = one.rule.number();
                (rule, &one.subject, one.minute, one.item, one.requests, one.first_at, one.last_at)
            }))?;
            within!(lent, c => sqlx::query(ADD_LITE).bind(json)
                .execute(c).await.map(|r| r.rows_affected()))?
        }
    };
    expect_rows("add counts of abuse", rows, counts.len() as u64)
}
