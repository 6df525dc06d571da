//! What happens to tasks between their start and their end, written in the transactions that make it happen.
//!
//! A row is `(task_id, no)`, numbered in the order in which things happened; whoever writes one holds the task's lock.
//! A task has at most [`EACH`] rows of a kind, or one for what belongs together: what comes beyond is counted by the
//! last of them, which keeps who and why only while that is the same for all that it stands for.

use sqlx::FromRow;

use super::{Result, Store, Tx, expect_rows, on, read};
use crate::domain::audit::Actor;
use crate::domain::clock::Millis;
use crate::domain::id::TaskId;
use crate::domain::task::PauseReason;
use crate::domain::task_event::{Happened, TaskEvent};

/// Rows of a kind that a task has.
const EACH: i64 = 20;
/// Workers that are lost within this time are one event: their batches come back a few at a time.
const TOGETHER: Millis = 60_000;
/// Characters that are kept of what is said for people.
const LONGEST: usize = 300;

#[derive(FromRow)]
struct EventRow {
    kind: String,
    at: i64,
    last_at: i64,
    times: i64,
    batches: i64,
    who: Option<String>,
    reason: Option<String>,
    detail: Option<String>,
}

impl EventRow {
    /// None where a later version has written what this one does not know.
    fn read(self) -> Option<TaskEvent> {
        Some(TaskEvent {
            what: self.kind.parse().ok()?,
            at: self.at,
            last_at: self.last_at,
            times: self.times,
            batches: self.batches,
            who: self.who.and_then(|who| who.parse().ok()),
            reason: self.reason.as_deref().and_then(PauseReason::from_name),
            detail: self.detail,
        })
    }
}

/// Writes down what happens to a task; the caller holds its lock.
pub(super) async fn record(tx: &mut Tx, task: TaskId, event: &TaskEvent) -> Result<()> {
    const SQL: &str = "INSERT INTO task_events
            (task_id, no, kind, at, last_at, times, batches, who, reason, detail)
        SELECT $1,
            CASE WHEN COUNT(CASE WHEN e.kind = $2 THEN 1 END) >= $8
                    OR MAX(CASE WHEN e.kind = $2 THEN e.last_at END) > $9
                THEN MAX(CASE WHEN e.kind = $2 THEN e.no END)
                ELSE COALESCE(MAX(e.no), -1) + 1 END,
            $2, $3, $3, 1, $4, $5, $6, $7
        FROM task_events e WHERE e.task_id = $1
        ON CONFLICT (task_id, no) DO UPDATE SET last_at = excluded.last_at,
            times = task_events.times + 1, batches = task_events.batches + excluded.batches,
            who = CASE WHEN task_events.who = excluded.who THEN excluded.who END,
            reason = CASE WHEN task_events.reason = excluded.reason THEN excluded.reason END,
            detail = CASE WHEN task_events.detail = excluded.detail THEN excluded.detail END";
    let together = match event.what {
        Happened::WorkerLost => event.at - TOGETHER,
        _ => i64::MAX,
    };
    let detail = event.detail.as_ref().map(|text| text.chars().take(LONGEST).collect::<String>());
    let rows = on!(tx, c => sqlx::query(SQL)
        .bind(task).bind(event.what.as_str()).bind(event.at).bind(event.batches)
        .bind(event.who.as_ref().map(Actor::to_string))
        .bind(event.reason.map(PauseReason::as_str)).bind(detail)
        .bind(EACH).bind(together)
        .execute(c).await.map(|r| r.rows_affected()))?;
    expect_rows("write down what happens to a task", rows, 1)
}

impl Store {
    /// What happened to a task between its start and its end, in order.
    pub async fn task_events(&self, task: TaskId) -> Result<Vec<TaskEvent>> {
        const SQL: &str = "SELECT kind, at, last_at, times, batches, who, reason, detail
            FROM task_events WHERE task_id = $1 ORDER BY no";
        let rows: Vec<EventRow> =
            read!(self, c => sqlx::query_as(SQL).bind(task).fetch_all(c).await)?;
        Ok(rows.into_iter().filter_map(EventRow::read).collect())
    }
}
