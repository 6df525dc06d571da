//! Results that were stored as a row per address become blocks, wherever the conversion is interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use listmill_shared::domain::batch::{After, Lease};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::task::TaskStatus;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::faults::{Fault, Faults};
use listmill_shared::store::{Result, StoreError};
use listmill_tests::random::Random;
use listmill_tests::sql;

use super::world::{BATCH, World, findings, step};

super::on_both_engines!(
    every_result_becomes_part_of_a_block,
    a_missing_row_stops_it,
    interrupted_anywhere_it_goes_on,
);

/// Ends the conversion at one commit, before or after it took effect.
struct Once {
    left: AtomicUsize,
    late: bool,
}

impl Fault for Once {
    fn before(&self) -> Result<()> {
        match self.left.fetch_sub(1, SeqCst) {
            1 if !self.late => Err(StoreError::Away),
            _ => Ok(()),
        }
    }

    fn after(&self) -> Result<()> {
        match self.left.load(SeqCst) {
            0 if self.late => Err(StoreError::Away),
            _ => Ok(()),
        }
    }
}

/// A task that is done, one that was cancelled midway, and one that goes on, with a lease that is held.
async fn some_work(world: &World) -> (Vec<TaskId>, Lease) {
    world.grant(10_000).await;
    let mut tasks = Vec::new();
    for batches in [40, 5, 5] {
        tasks.push(world.people(batches * BATCH).await);
    }
    let verdict = |seq: i64| if seq % 7 == 0 { Reason::Timeout } else { Reason::CatchAll };
    for no in 0..40 {
        world.finish_with(&world.lease(tasks[0], no).await, verdict).await;
    }
    for task in &tasks[1..] {
        world.finish_with(&world.lease(*task, 0).await, verdict).await;
        for (no, after) in [(1, After::Release), (2, After::Keep)] {
            let lease = world.lease(*task, no).await;
            let some = findings(&lease, verdict)[2..5].to_vec();
            world.settle(world.number(), &[step(&lease, some, after)]).await;
        }
    }
    world.app.cancel(tasks[1], world.account).await.expect("cancel");
    let held = world.lease(tasks[2], 3).await;
    (tasks, held)
}

/// Stores all results as a row per address again, as it was before there were blocks.
async fn as_before(world: &World, tasks: &[TaskId]) {
    let lite = world.url.starts_with("sqlite:");
    let id = if lite { "BLOB" } else { "UUID" };
    let table = format!(
        "CREATE TABLE results (task_id {id} NOT NULL, seq BIGINT NOT NULL, address TEXT NOT NULL,
            reason SMALLINT NOT NULL, score SMALLINT NOT NULL, flags SMALLINT NOT NULL,
            credit SMALLINT NOT NULL, attempts SMALLINT NOT NULL, step BIGINT NOT NULL,
            checked_at BIGINT NOT NULL, smtp_code SMALLINT, mx TEXT, did_you_mean TEXT,
            detail TEXT, PRIMARY KEY (task_id, seq))"
    );
    sql::execute(&world.url, &table).await;
    for task in tasks {
        let hex = task.0.simple();
        let task_id = if lite { format!("x'{hex}'") } else { format!("'{hex}'") };
        let rows = world.app.store.results(*task, -1, 10_000, None).await.expect("results");
        let values: Vec<String> = rows
            .iter()
            .map(|row| {
                let code = row.smtp_code.map_or("NULL".to_owned(), |code| code.to_string());
                format!(
                    "({task_id}, {}, '{}', {}, {}, {}, {}, {}, 77, {}, {code}, 'mx.example', NULL, '{{}}')",
                    row.seq, row.address, row.reason.code(), row.score, row.flags.pack(),
                    row.credit.code(), row.attempts, row.checked_at,
                )
            })
            .collect();
        for part in values.chunks(100) {
            sql::execute(&world.url, &format!("INSERT INTO results VALUES {}", part.join(", ")))
                .await;
        }
    }
    sql::execute(&world.url, "DELETE FROM result_blocks").await;
    let none = if lite { "x''" } else { "''" };
    sql::execute(&world.url, &format!("UPDATE batches SET done = {none}")).await;
}

async fn seen(world: &World, tasks: &[TaskId]) -> Vec<String> {
    let mut seen = Vec::new();
    for task in tasks {
        let rows = world.app.store.results(*task, -1, 10_000, None).await.expect("results");
        seen.extend(rows.into_iter().map(|mut row| {
            row.mx = None;
            format!("{row:?}")
        }));
        assert_eq!(world.app.store.audit_task(*task).await.expect("audit"), [""; 0]);
    }
    seen
}

/// What was going on goes on, and ends exactly.
async fn goes_on(world: &World, tasks: &[TaskId], held: &Lease) {
    world.finish(held, Reason::Accepted).await;
    world.app.clock.advance(super::world::TTL + 1);
    world.app.store.reclaim_leases(100, world.app.now()).await.expect("reclaim");
    for no in [1, 2, 4] {
        let lease = world.lease(tasks[2], no).await;
        assert_eq!(lease.done.len(), if no == 4 { 0 } else { 3 });
        world.finish(&lease, Reason::Accepted).await;
    }
    assert_eq!(world.task(tasks[2]).await.status, TaskStatus::Completed);
    let found = world.app.store.results(tasks[2], -1, 1_000, None).await.expect("results");
    let seqs: Vec<i64> = found.iter().map(|found| found.seq).collect();
    assert_eq!(seqs, (0..50).collect::<Vec<_>>());
    seen(world, tasks).await;
    world.check_books().await;
}

async fn every_result_becomes_part_of_a_block(world: World) {
    let (tasks, held) = some_work(&world).await;
    let before = seen(&world, &tasks).await;
    as_before(&world, &tasks).await;
    let store = &world.app.store;
    assert!(matches!(store.check_schema().await, Err(StoreError::SchemaTooOld)));
    let mut told = Vec::new();
    store.migrate_telling(&mut |done, all| told.push((done, all))).await.expect("convert");
    store.check_schema().await.expect("everything is in today's form");
    assert_eq!(told.last(), Some(&(before.len() as u64, before.len() as u64)), "{told:?}");
    assert_eq!(seen(&world, &tasks).await, before);
    if world.url.starts_with("sqlite:") {
        let free = sql::number(&world.url, "PRAGMA freelist_count").await;
        assert_eq!(free, 0, "the rows have left room in the file");
    }
    let details = store.details(tasks[0], 0, 3).await.expect("details");
    assert_eq!(details, [(0, "{}".to_owned()), (1, "{}".to_owned()), (2, "{}".to_owned())]);
    goes_on(&world, &tasks, &held).await;
}

/// Of a batch that has ended, and of one that goes on: the table stays, to be looked at.
async fn a_missing_row_stops_it(world: World) {
    let (tasks, _) = some_work(&world).await;
    as_before(&world, &tasks).await;
    let lite = world.url.starts_with("sqlite:");
    for (task, seq) in [(tasks[0], 123), (tasks[2], 13)] {
        let hex = task.0.simple();
        let id = if lite { format!("x'{hex}'") } else { format!("'{hex}'") };
        let row = format!("FROM results WHERE task_id = {id} AND seq = {seq}");
        sql::execute(&world.url, &format!("CREATE TABLE lost AS SELECT * {row}")).await;
        sql::execute(&world.url, &format!("DELETE {row}")).await;
        let error = world.app.store.migrate().await.expect_err("a result is missing").to_string();
        assert!(error.contains("rows, counted"), "{error}");
        assert!(matches!(world.app.store.check_schema().await, Err(StoreError::SchemaTooOld)));
        sql::execute(&world.url, "INSERT INTO results SELECT * FROM lost").await;
        sql::execute(&world.url, "DROP TABLE lost").await;
    }
    world.app.store.migrate().await.expect("all rows are there again");
    world.app.store.check_schema().await.expect("everything is in today's form");
}

async fn interrupted_anywhere_it_goes_on(world: World) {
    let (tasks, held) = some_work(&world).await;
    let before = seen(&world, &tasks).await;
    as_before(&world, &tasks).await;
    let mut random = Random::printed();
    let mut interrupted = 0;
    while world.app.store.check_schema().await.is_err() {
        let left = AtomicUsize::new(1 + random.below(2) as usize);
        let once = Once { left, late: random.below(2) == 0 };
        let faulty = world.app.store.clone().with_faults(Arc::new(Faults::new(once)));
        interrupted += usize::from(faulty.migrate().await.is_err());
        assert!(interrupted < 50, "it does not get on");
    }
    assert!(interrupted > 0, "nothing was interrupted");
    assert_eq!(seen(&world, &tasks).await, before);
    goes_on(&world, &tasks, &held).await;
}
