//! The audit log: rows follow each other under writers at once, and whatever is done to them with SQL is found.

use futures::future::join_all;
use listmill_shared::domain::audit::{Break, How, INSTALLATION, Origin, Row};
use listmill_shared::domain::id::AccountId;
use listmill_shared::domain::ledger::Kind;
use listmill_shared::store::audit_log::AuditFilter;
use listmill_tests::sql;
use sqlx::{Connection, Executor, PgConnection};

use super::on_both_engines;
use super::world::World;

on_both_engines!(
    rows_follow_each_other_under_writers_at_once,
    what_is_done_with_sql_is_found,
    a_change_that_is_not_made_leaves_no_row,
    pages_are_an_accounts_own,
);

impl World {
    async fn breaks(&self, account: Option<AccountId>) -> Vec<Break> {
        let mut told = (0, 0);
        let mut tell = |done, all| told = (done, all);
        let found = self.app.verify_audit(account, &mut tell).await.expect("verify");
        assert_eq!(found.breaks.len() as u64, found.broken);
        assert!(told.0 <= told.1, "{told:?}");
        found.breaks
    }

    async fn how(&self) -> Vec<(i64, How)> {
        let breaks = self.breaks(None).await;
        assert!(breaks.iter().all(|one| one.chain == self.account), "{breaks:?}");
        breaks.iter().map(|one| (one.seq, one.how)).collect()
    }

    /// All rows of the account, oldest first.
    async fn rows(&self) -> Vec<Row> {
        let mut walk = self.app.walk_audit(Some(self.account));
        let mut rows = Vec::new();
        while let Some(piece) = walk.next().await.expect("rows") {
            assert!(piece.rows.len() <= 200, "{}", piece.rows.len());
            rows.extend(piece.rows);
        }
        rows
    }

    /// The account's id, in SQL.
    fn id(&self) -> String {
        let hex = self.account.0.simple();
        if self.url.starts_with("sqlite:") { format!("x'{hex}'") } else { format!("'{hex}'") }
    }

    async fn weigh(&self, weight: i32) -> bool {
        let by = Origin::operator();
        let set = self.app.store.set_weight(self.account, weight, &by, self.app.now());
        set.await.expect("weight")
    }

    async fn block(&self, cidr: &str, blocked: bool) -> bool {
        let (by, now) = (Origin::operator(), self.app.now());
        let (store, reason) = (&self.app.store, Some("abuse"));
        let changed = match blocked {
            true => store.block_ip(cidr, reason, None, &by, now).await,
            false => store.unblock_ip(cidr, reason, &by, now).await,
        };
        changed.expect("block")
    }
}

/// Writers that hold different rows meet at the chain's head only.
async fn rows_follow_each_other_under_writers_at_once(world: World) {
    const EACH: i32 = 30;
    let writers = (0..8).map(|writer| {
        let world = &world;
        async move {
            for round in 0..EACH {
                let by = Origin::operator();
                let kind = if writer % 2 == 0 { Kind::Email } else { Kind::Phone };
                match writer {
                    0 => assert!(world.weigh(2 + round).await),
                    _ => {
                        world.app.grant(world.account, kind, 1, None, &by).await.expect("grant");
                    }
                }
            }
        }
    });
    join_all(writers).await;
    let rows = world.rows().await;
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    // The account's own creation comes first.
    assert_eq!(seqs, (1..=8 * i64::from(EACH) + 1).collect::<Vec<_>>());
    assert_eq!(world.breaks(None).await, []);
    // In the order in which the balance moved.
    let granted = rows.iter().filter(|row| row.after.as_deref().is_some_and(is_email));
    let balances: Vec<i64> = granted.map(balance).collect();
    assert_eq!(balances, (1..=3 * i64::from(EACH)).collect::<Vec<_>>());
}

fn is_email(after: &str) -> bool {
    after.contains("\"kind\":\"email\"")
}

fn balance(row: &Row) -> i64 {
    let after = row.after.as_ref().expect("after");
    let after: serde_json::Value = serde_json::from_str(after).expect("JSON");
    after["balance"].as_i64().expect("balance")
}

async fn what_is_done_with_sql_is_found(world: World) {
    for weight in 2..7 {
        assert!(world.weigh(weight).await);
    }
    assert!(world.block("192.0.2.0/24", true).await);
    let rows = world.rows().await;
    assert_eq!((rows.len(), world.how().await), (6, vec![]));
    let (url, of) = (&world.url, format!("chain = {}", world.id()));
    let run = async |text: String| {
        assert_eq!(sql::execute(url, &text).await, 1, "{text}");
    };
    // Each change of a row is told with its number, and gone when it is taken back.
    for (column, value) in [
        ("at", "at + 1"),
        ("actor", "'system'"),
        ("ip", "'192.0.2.1'"),
        ("request_id", "''"),
        ("action", "'account.weigh'"),
        ("target", "'nobody'"),
        ("before", "'{\"weight\":9}'"),
        ("after", "NULL"),
        ("hash", "previous"),
        ("previous", "hash"),
    ] {
        sql::execute(url, "DROP TABLE IF EXISTS kept").await;
        let keep = format!("CREATE TABLE kept AS SELECT * FROM audit_log WHERE {of} AND seq = 3");
        sql::execute(url, &keep).await;
        run(format!("UPDATE audit_log SET {column} = {value} WHERE {of} AND seq = 3")).await;
        let how = world.how().await;
        assert_eq!(how[0], (3, How::Changed), "{column}: {how:?}");
        let back = format!("UPDATE audit_log SET {column} = (SELECT {column} FROM kept)");
        run(format!("{back} WHERE {of} AND seq = 3")).await;
        assert_eq!(world.how().await, [], "{column}");
    }
    // Rows that are gone: one, some, the last ones, all.
    for (which, how) in [
        ("seq = 3", (3, How::Missing(3))),
        ("seq = 1", (1, How::Missing(1))),
        ("seq IN (2, 3)", (2, How::Missing(3))),
        ("seq = 6", (6, How::Cut(6))),
        ("seq >= 5", (5, How::Cut(6))),
        ("seq > 0", (1, How::Cut(6))),
    ] {
        sql::execute(url, "DROP TABLE kept").await;
        let keep = format!("CREATE TABLE kept AS SELECT * FROM audit_log WHERE {of} AND {which}");
        sql::execute(url, &keep).await;
        sql::execute(url, &format!("DELETE FROM audit_log WHERE {of} AND {which}")).await;
        assert_eq!(world.how().await, [how], "{which}");
        sql::execute(url, "INSERT INTO audit_log SELECT * FROM kept").await;
        assert_eq!(world.how().await, [], "{which}");
    }
    // Rows that nobody wrote down, before the first and behind the last.
    for (seq, how) in [(0, How::Misplaced), (i64::MIN, How::Misplaced), (7, How::Changed)] {
        let copy = format!(
            "SELECT chain, {seq}, at, actor, ip, request_id, action, target, before,
            after, hash, previous FROM audit_log WHERE {of} AND seq = 6"
        );
        run(format!("INSERT INTO audit_log {copy}")).await;
        assert_eq!(world.how().await[0], (seq, how));
        run(format!("DELETE FROM audit_log WHERE {of} AND seq = {seq}")).await;
    }
    // The head: its hash, its number, and itself.
    sql::execute(url, "DROP TABLE kept").await;
    sql::execute(url, &format!("CREATE TABLE kept AS SELECT * FROM audit_heads WHERE {of}")).await;
    let second = format!("hash = (SELECT hash FROM audit_log WHERE {of} AND seq = 2)");
    for (change, how) in [
        ("seq = 5", (6, How::Added)),
        ("seq = 8", (7, How::Cut(8))),
        (second.as_str(), (6, How::HeadDiffers)),
    ] {
        run(format!("UPDATE audit_heads SET {change} WHERE {of}")).await;
        assert_eq!(world.how().await, [how], "{change}");
        run(format!("DELETE FROM audit_heads WHERE {of}")).await;
        assert_eq!(world.how().await, [(6, How::Headless)]);
        run(String::from("INSERT INTO audit_heads SELECT * FROM kept")).await;
    }
    assert_eq!(world.how().await, []);
}

async fn a_change_that_is_not_made_leaves_no_row(world: World) {
    let (app, by) = (&world.app, Origin::operator());
    assert!(app.grant(world.account, Kind::Email, -1, None, &by).await.is_err());
    assert!(world.weigh(1).await, "as it was");
    let nobody = AccountId::new(&app.ids, app.now());
    assert!(!app.store.set_weight(nobody, 2, &by, app.now()).await.expect("no account"));
    let twice = app.create_account("owner@example.com", None, 5, false, &by).await;
    assert!(twice.is_err());
    assert!(!world.block("192.0.2.0/24", false).await);
    let found = app.verify_audit(None, &mut |_, _| {}).await.expect("verify");
    assert_eq!((found.rows, found.chains, found.broken), (1, 1, 0), "the account's creation");
    assert!(world.block("192.0.2.0/24", true).await);
    assert!(!world.block("192.0.2.0/24", true).await);
    assert!(world.block("192.0.2.0/24", false).await);
    let found = app.verify_audit(None, &mut |_, _| {}).await.expect("verify");
    assert_eq!((found.rows, found.chains, found.broken), (3, 2, 0));
    let mut walk = app.walk_audit(None);
    let first = walk.next().await.expect("rows").expect("the installation comes first");
    assert_eq!(first.chain, INSTALLATION);
    let shown: Vec<_> =
        first.rows.iter().map(|row| (row.action.as_str(), row.before.as_deref())).collect();
    let (was, is) = ("{\"blocked\":false}", "{\"blocked\":true,\"reason\":\"abuse\"}");
    assert_eq!(shown, [("ip.block", Some(was)), ("ip.unblock", Some(is))]);
}

async fn pages_are_an_accounts_own(world: World) {
    let by = Origin::operator();
    let other = world.app.create_account("other@example.com", None, 7, false, &by).await;
    let other = other.expect("account");
    for weight in 2..5 {
        world.weigh(weight).await;
    }
    let page = async |account, action: Option<&str>, target: Option<String>, cursor, limit| {
        let filter = AuditFilter { action: action.map(str::to_owned), target };
        let rows = world.app.store.audit_page(account, &filter, cursor, limit).await;
        rows.expect("rows").iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    let own = Some(world.account.to_string());
    assert_eq!(page(world.account, None, None, None, 3).await, [4, 3, 2]);
    assert_eq!(page(world.account, None, None, Some(2), 3).await, [1]);
    assert_eq!(page(world.account, Some("account.weight"), None, None, 9).await, [4, 3, 2]);
    assert_eq!(page(world.account, Some("account.create"), None, None, 9).await, [1]);
    assert_eq!(page(world.account, None, own.clone(), Some(4), 9).await, [3, 2, 1]);
    assert_eq!(page(world.account, Some("account.weight"), own.clone(), Some(4), 1).await, [3]);
    assert_eq!(page(other, None, None, None, 9).await, [2, 1], "created, and its opening grant");
    assert_eq!(page(other, None, own, None, 9).await, [0; 0]);
    assert_eq!(world.breaks(Some(other)).await, []);
}

/// A process that freezes while it holds a chain stops that account's changes, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_chain_stops_nobody_else() {
    let world = World::postgres().await;
    let by = Origin::operator();
    let other = world.app.create_account("other@example.com", None, 0, false, &by).await;
    let other = other.expect("account");
    let mut holder = PgConnection::connect(&world.url).await.expect("PostgreSQL");
    holder.execute("BEGIN").await.expect("begin");
    let hold = format!("SELECT seq FROM audit_heads WHERE chain = {} FOR UPDATE", world.id());
    holder.execute(sqlx::AssertSqlSafe(hold)).await.expect("the head");
    let held = world.app.grant(world.account, Kind::Email, 1, None, &by);
    let free = async {
        world.app.grant(other, Kind::Email, 1, None, &by).await.expect("another account's");
        assert!(world.block("192.0.2.0/24", true).await, "the installation's");
    };
    let (held, ()) = tokio::join!(held, free);
    assert!(held.expect_err("it waits in vain").is_held());
    assert_eq!(world.balance().await, 0, "nothing without its row");
    holder.execute("ROLLBACK").await.expect("rollback");
    world.app.grant(world.account, Kind::Email, 1, None, &by).await.expect("free again");
    assert_eq!(world.breaks(None).await, []);
}
