//! What a statement reads follows what it asks for, not the size of a task, and not what PostgreSQL believes of
//! a task that it has no figures of yet.

use std::time::Duration;

use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::batch::{After, BatchRef};
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::batches::{Claim, Leasing};
use listmill_tests::eventually;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqlSafeStr};

use super::statements::statements;
use super::world::{BATCH, World, findings, step};

/// Batches of a task.
const BATCHES: usize = 2_000;
/// Rows that a statement below may read of a table.
const FEW: u64 = 50;

/// Rows that a plan's scans have read, those included that a filter has thrown away.
fn rows_read(node: &Value) -> u64 {
    let figure = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let own = match node["Relation Name"].as_str() {
        Some(_) => figure("Actual Rows") + figure("Rows Removed by Filter"),
        None => 0.0,
    };
    let below = node["Plans"].as_array().into_iter().flatten().map(rows_read).sum::<u64>();
    (own * figure("Actual Loops")) as u64 + below
}

async fn rows_read_by(link: &mut PgConnection, sql: &str, values: &str) -> u64 {
    let run = |sql: String| AssertSqlSafe(sql).into_sql_str();
    let mut tx = link.begin().await.expect("a transaction");
    for session in ["SET LOCAL enable_bitmapscan = off", "DEALLOCATE ALL"] {
        sqlx::raw_sql(session).execute(&mut *tx).await.expect(session);
    }
    sqlx::raw_sql(run(format!("PREPARE asked AS {sql}"))).execute(&mut *tx).await.expect(sql);
    let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked ({values})");
    let row = sqlx::raw_sql(run(explain)).fetch_one(&mut *tx).await.expect(sql);
    let plan: Value = row.get(0);
    rows_read(&plan[0]["Plan"])
}

#[tokio::test]
async fn what_is_read_of_a_new_task_does_not_grow_with_it() {
    let world = World::postgres().await;
    world.grant(100 * (BATCH * BATCHES) as i64).await;
    let mut link = PgConnection::connect(&world.url).await.expect("PostgreSQL");
    let mut tasks = Vec::new();
    // The second comes after the figures were taken: none of the rows is its own, they say.
    for part in ["old", "new"] {
        let task = world.people(BATCH * BATCHES).await.0;
        let blocks = format!(
            "INSERT INTO result_blocks (task_id, first_seq, step, no, deliverable, undeliverable,
                risky, unknown, charged, refunded, reasons, payload)
            SELECT task_id, first_seq, no, no, addresses, 0, 0, 0, addresses, 0, 1, 'x' FROM batches
            WHERE task_id = '{task}';
            INSERT INTO task_rows (task_id, no, payload)
            SELECT task_id, no, 'x' FROM batches WHERE task_id = '{task}' ON CONFLICT DO NOTHING"
        );
        let ended = format!(
            "UPDATE batches SET state = 3, touched = 0 WHERE task_id = '{task}'; ANALYZE batches;
            ANALYZE result_blocks; ANALYZE task_rows"
        );
        let done = if part == "old" { format!("{blocks}; {ended}") } else { blocks };
        let done = AssertSqlSafe(done).into_sql_str();
        sqlx::raw_sql(done).execute(&mut link).await.expect("the task's blocks");
        tasks.push(task);
    }
    let task = tasks[1];
    let all = statements();
    for (name, values) in [
        ("dispatch.rs PG", format!("'{task}', 8, 0")),
        ("erase.rs BATCHES", format!("'{task}', 8")),
        ("erase.rs BLOCKS", format!("'{task}', 8")),
        ("erase.rs ROWS", format!("'{task}', 8")),
        ("blocks.rs TAKE", format!("'{task}', 1500")),
        ("result_walk.rs START", format!("'{task}', 15000")),
        ("results.rs OPEN", format!("'{task}'")),
        ("result_walk.rs BATCHES_PG", format!("'{task}', '{{3,700,1500}}'")),
        ("result_walk.rs BLOCKS_PG", format!("'{task}', '{{30,7000,15000}}', 1, 0")),
        ("result_walk.rs NEXT", format!("'{task}', 5000, 9000, 1, 8, 0")),
    ] {
        let (_, sql) = all.iter().find(|(one, _)| one == name).expect(name);
        let read = rows_read_by(&mut link, sql, &values).await;
        println!("{name}: {read} rows");
        assert!(read <= FEW, "{name} reads {read} rows of a task of {BATCHES} batches");
    }
}

/// Rows of batches that were read and changed so far, in the figures that PostgreSQL keeps.
async fn so_far(link: &mut PgConnection) -> (i64, i64) {
    let sql = "SELECT seq_tup_read + COALESCE(idx_tup_fetch, 0), n_tup_upd FROM pg_stat_user_tables
        WHERE relname = 'batches'";
    sqlx::query_as(sql).fetch_one(link).await.expect("figures")
}

/// All lists were erased, and the table was vacuumed: PostgreSQL takes it for empty until it is analyzed again,
/// while a new list stands in it.
#[tokio::test]
async fn a_table_that_was_emptied_is_not_read_over_and_over() {
    let world = World::postgres().await;
    world.grant(100 * (BATCH * BATCHES) as i64).await;
    let mut link = PgConnection::connect(&world.url).await.expect("PostgreSQL");
    let now = world.app.now();
    let old = world.people(BATCH * BATCHES).await;
    world.app.cancel(old, world.account).await.expect("cancel");
    world.app.store.erase_task(old, world.account, &Origin::operator(), now).await.expect("erase");
    world.app.empty(old, Duration::MAX).await;
    let emptied = "VACUUM (TRUNCATE false) batches";
    sqlx::raw_sql(emptied).execute(&mut link).await.expect(emptied);
    let task = world.people(BATCH * BATCHES).await;
    let (read, changed) = so_far(&mut link).await;
    let claims: Vec<Claim> = (0..32).map(|no| world.claim(BatchRef { task, no })).collect();
    let mut steps = Vec::new();
    for leasing in world.app.store.lease(&claims, "here", now, now).await.expect("lease") {
        let Leasing::Leased(lease) = leasing else { panic!("{leasing:?}") };
        steps.push(step(&lease, findings(&lease, |_| Reason::Accepted), After::Release));
    }
    world.settle(world.number(), &steps).await;
    let figures = eventually("the figures", Duration::from_secs(30), || async {
        let mut link = PgConnection::connect(&world.url).await.expect("PostgreSQL");
        Some(so_far(&mut link).await).filter(|now| now.1 >= changed + 64)
    })
    .await;
    let read = figures.0 - read;
    println!("{read} rows");
    assert!(read < 10 * BATCHES as i64, "{read} rows of {BATCHES}");
}
