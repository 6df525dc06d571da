//! Every statement of the store is prepared on both engines, so that none can be right on one
//! alone.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection};

use super::source::{Macros, constants, without_comments};
use super::world::World;
use listmill_shared::store::Store;

/// The statements of the store's sources, by file and name; open-ended fragments are closed.
pub fn statements() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/store");
    let mut sources = Vec::new();
    for file in std::fs::read_dir(folder).expect("the store") {
        let path = file.expect("a file").path();
        let source = without_comments(&std::fs::read_to_string(&path).expect("source"));
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // A table that is there until its results are converted; see `convert.rs` of this folder.
        if name != "convert.rs" {
            sources.push((name, source));
        }
    }
    let mut found = Vec::new();
    for (name, source) in &sources {
        let mut macros = Macros::default();
        sources.iter().for_each(|(_, other)| macros.add(other, false));
        macros.add(source, true);
        for (constant, expression) in constants(source) {
            let strings = macros.strings(expression);
            // An array of others' names.
            let named = expression.starts_with('[') && !expression.contains('"');
            assert!(strings.is_some() || named, "{name} {constant} cannot be read: {expression}");
            for sql in strings.into_iter().flatten() {
                let sql = match sql.trim_end() {
                    open if open.ends_with("t.id IN (") => format!("{open}$1) GROUP BY t.id"),
                    open if open.ends_with('(') => format!("{open}$1)"),
                    open if open.ends_with('=') => format!("{open} $1"),
                    whole => whole.to_owned(),
                };
                found.push((format!("{name} {constant}"), sql));
            }
        }
    }
    found
}

enum Raw {
    Pg(PgConnection),
    Lite(SqliteConnection),
}

async fn prepare_all(world: World) {
    let statements = statements();
    let mut connection = match &world.app.store {
        Store::Pg(_) => Raw::Pg(PgConnection::connect(&world.url).await.expect("PostgreSQL")),
        Store::Lite { .. } => {
            Raw::Lite(SqliteConnection::connect(&world.url).await.expect("SQLite"))
        }
    };
    assert!(statements.len() > 50, "found only {}", statements.len());
    for (name, sql) in statements {
        let text = AssertSqlSafe(sql.clone()).into_sql_str();
        let is_for = |engine: &str| {
            name.ends_with(&format!(" {engine}")) || name.ends_with(&format!("_{engine}"))
        };
        let prepared = match &mut connection {
            Raw::Pg(_) if is_for("LITE") => continue,
            Raw::Lite(_) if is_for("PG") => continue,
            Raw::Pg(link) => link.prepare(text).await.map(|_| ()),
            Raw::Lite(link) => link.prepare(text).await.map(|_| ()),
        };
        if let Err(error) = prepared {
            panic!("{name} on {}: {error}\n{sql}", world.app.store.engine());
        }
    }
}

super::on_both_engines!(prepare_all);
