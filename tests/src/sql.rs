//! A way past the product into its database, for tests that break something on purpose or count what
//! nobody is shown.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection};

/// Runs one statement; says how many rows it touched.
pub async fn execute(url: &str, sql: &str) -> u64 {
    let sql = sql.to_owned();
    if url.starts_with("postgres://") {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL lets us in");
        let done = connection.execute(AssertSqlSafe(sql)).await.expect("the statement runs");
        let _ = connection.close().await;
        done.rows_affected()
    } else {
        let mut connection = SqliteConnection::connect(url).await.expect("SQLite opens");
        let done = connection.execute(AssertSqlSafe(sql)).await.expect("the statement runs");
        let _ = connection.close().await;
        done.rows_affected()
    }
}

/// The one number (a BIGINT) that a query gives.
pub async fn number(url: &str, sql: &str) -> i64 {
    let sql = sql.to_owned();
    if url.starts_with("postgres://") {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL lets us in");
        let row = connection.fetch_one(AssertSqlSafe(sql)).await.expect("the query runs");
        let _ = connection.close().await;
        row.get(0)
    } else {
        let mut connection = SqliteConnection::connect(url).await.expect("SQLite opens");
        let row = connection.fetch_one(AssertSqlSafe(sql)).await.expect("the query runs");
        let _ = connection.close().await;
        row.get(0)
    }
}

/// The first column of the first row, as text.
pub async fn text(url: &str, sql: &str) -> Option<String> {
    let sql = AssertSqlSafe(sql.to_owned());
    if url.starts_with("postgres://") {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL lets us in");
        let text = sqlx::query_scalar(sql).fetch_one(&mut connection).await;
        let _ = connection.close().await;
        text.expect("the statement gives a row")
    } else {
        let mut connection = SqliteConnection::connect(url).await.expect("SQLite opens");
        let text = sqlx::query_scalar(sql).fetch_one(&mut connection).await;
        let _ = connection.close().await;
        text.expect("the statement gives a row")
    }
}
