//! Every statement of the store is prepared on both engines, so that none can be right on one
//! alone.

use std::path::Path;

use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};

use super::world::World;
use listmill_shared::store::Store;

/// `const NAME: &str = "…"` of the store's sources; open-ended fragments are closed.
fn statements() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/store");
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).expect("the store") {
        let path = file.expect("a file").path();
        let source = std::fs::read_to_string(&path).expect("source");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        for part in source.split("const ").skip(1) {
            let Some((constant, rest)) = part.split_once(": &str =") else { continue };
            let text = rest.trim_start();
            let Some(text) = text.strip_prefix('"') else { continue };
            let sql = text.split('"').next().expect("the text's end");
            let sql = match sql.trim_end() {
                open if open.ends_with("t.id IN (") => format!("{open}$1) GROUP BY t.id"),
                open if open.ends_with('(') => format!("{open}$1)"),
                open if open.ends_with('=') => format!("{open} $1"),
                whole => whole.to_owned(),
            };
            found.push((format!("{name} {constant}"), sql));
        }
    }
    found
}

async fn prepare_all(world: World) {
    let statements = statements();
    assert!(statements.len() > 50, "found only {}", statements.len());
    for (name, sql) in statements {
        let text = AssertSqlSafe(sql.clone()).into_sql_str();
        let prepared = match &world.app.store {
            Store::Pg(_) if name.ends_with(" LITE") => continue,
            Store::Lite { .. } if name.ends_with(" PG") => continue,
            Store::Pg(pool) => pool.prepare(text).await.map(|_| ()),
            Store::Lite { read, .. } => read.prepare(text).await.map(|_| ()),
        };
        if let Err(error) = prepared {
            panic!("{name} on {}: {error}\n{sql}", world.app.store.engine());
        }
    }
}

super::on_both_engines!(prepare_all);
