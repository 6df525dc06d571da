//! What a statement reads follows what it asks for, not the size of a task, and not what PostgreSQL believes of
//! a task that it has no figures of yet.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqlSafeStr};

use super::statements::statements;
use super::world::{BATCH, World};

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
        ("results.rs START", format!("'{task}', 15000")),
        ("results.rs OPEN", format!("'{task}'")),
        ("results.rs BATCHES_PG", format!("'{task}', '{{3,700,1500}}'")),
        ("results.rs BLOCKS_PG", format!("'{task}', '{{30,7000,15000}}', 1")),
        ("results.rs NEXT", format!("'{task}', 5000, 9000, 1, 8")),
    ] {
        let (_, sql) = all.iter().find(|(one, _)| one == name).expect(name);
        let read = rows_read_by(&mut link, sql, &values).await;
        println!("{name}: {read} rows");
        assert!(read <= FEW, "{name} reads {read} rows of a task of {BATCHES} batches");
    }
}
