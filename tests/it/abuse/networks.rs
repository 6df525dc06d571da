//! Rules that block networks.

use listmill_tests::{Setup, Size, Weight, eventually, for_each_size};
use serde_json::json;

use super::keys::make_key;
use super::{
    SOON, admin, ask, guarded, is_blocked, lasts, nobodys_key, signal, signals, stays_free,
    until_blocked, until_free,
};

for_each_size!(
    unknown_keys_block_their_network,
    dead_keys_block_their_network,
    blocks_double_and_end_by_themselves,
    a_trusted_proxy_is_never_blocked,
    a_proxy_that_was_not_declared_is_spared,
    a_dry_run_only_says_so_and_off_says_nothing,
    without_a_request_log_the_rules_still_work,
);

async fn unknown_keys_block_their_network(size: Size) {
    let app = guarded(size).env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "5").start().await;
    let owner = app.customer(0).await;
    let same = nobodys_key();
    for _ in 0..20 {
        ask(&app, &same, "198.51.100.1").await.expect(401);
    }
    for last in 2..5 {
        ask(&app, &nobodys_key(), &format!("198.51.100.{last}")).await.expect(401);
    }
    stays_free(&app, "198.51.100.9").await;
    ask(&app, &nobodys_key(), "198.51.100.5").await.expect(401);
    until_blocked(&app, "198.51.100.9").await;
    // A good key is shut out with it, on every process; the next network is not.
    let denied = json!({ "error": "Access denied" });
    for _ in 0..4 {
        ask(&app, &owner.key.secret, "198.51.100.77").await.expect_body(403, &denied);
        ask(&app, &owner.key.secret, "198.51.101.77").await.expect(200);
    }
    let told = signal(&app, "unknown_keys").await;
    assert_eq!(told["subject"], "198.51.100.0/24", "{told}");
    assert_eq!((&told["action"], &told["strikes"]), (&json!("blocked"), &json!(1)), "{told}");
    assert_eq!((&told["count"], &told["detail"]["requests"]), (&json!(5), &json!(24)), "{told}");
    assert_eq!(signals(&app, "unknown_keys").await.len(), 1, "whoever judges, one acts");
    assert_eq!(lasts(&app, 1).await, 3_600_000);
    let list = admin(&app, "ip list").await;
    let block = &list["blocks"][0];
    assert_eq!(list["blocked"], json!(["198.51.100.0/24"]));
    assert_eq!(
        (&block["made_by"], &block["ends_at"]),
        (&json!("rule:unknown_keys"), &told["ends_at"])
    );
    let audit = app.cli(&["admin", "audit", "export"]).await.expect_success().stdout;
    let row = audit.lines().find(|line| line.contains("\"ip.block\"")).expect("a row");
    let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
    assert_eq!(
        (&row["actor"], &row["target"]),
        (&json!({ "system": true }), &json!("198.51.100.0/24"))
    );
    // A /64 of IPv6 is a network, too.
    for last in 1..=5 {
        ask(&app, &nobodys_key(), &format!("2001:db8:1:2::{last}")).await;
    }
    until_blocked(&app, "2001:db8:1:2:3:4:5:6").await;
    assert!(!is_blocked(&app, "2001:db8:1:3::1").await);
    // An operator lifts it.
    app.unblock_ip("198.51.100.0/24").await;
    assert!(!is_blocked(&app, "198.51.100.9").await);
    app.finish().await;
}

async fn dead_keys_block_their_network(size: Size) {
    let app = guarded(size).env("LISTMILL_ABUSE_DEAD_KEYS_THRESHOLD", "6").start().await;
    let owner = app.customer(0).await;
    let [deleted, disabled, suspended] = [
        app.create_key(&owner.account).await,
        app.create_key(&owner.account).await,
        app.create_key(&owner.account).await,
    ];
    owner.client.delete(&format!("/v1/keys/{}", deleted.id)).await.expect(200);
    owner.client.post_empty(&format!("/v1/keys/{}/disable", disabled.id)).await.expect(200);
    app.suspend(&suspended, "Abuse").await;
    // A suspended key is no dead one, or one act would grow into another.
    for (key, uses, status) in [(&deleted, 3, 401), (&disabled, 2, 403), (&suspended, 9, 403)] {
        for _ in 0..uses {
            ask(&app, &key.secret, "203.0.113.7").await.expect(status);
        }
    }
    // Nor is one whose time has not come.
    let early = json!({ "label": "early", "not_before": "2100-01-01T00:00:00Z" });
    let early = make_key(&app, &owner, early).await;
    for _ in 0..9 {
        ask(&app, &early.secret, "203.0.113.7").await.expect(401);
    }
    stays_free(&app, "203.0.113.7").await;
    ask(&app, &deleted.secret, "203.0.113.8").await.expect(401);
    until_blocked(&app, "203.0.113.7").await;
    let told = signal(&app, "dead_keys").await;
    assert_eq!((&told["count"], &told["action"]), (&json!(6), &json!("blocked")), "{told}");
    app.finish().await;
}

async fn blocks_double_and_end_by_themselves(size: Size) {
    let app = guarded(size)
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "3")
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS_FIRST", "2s")
        .start()
        .await;
    for strike in 1..=3 {
        eventually("the network is blocked", SOON, || async {
            let status = ask(&app, &nobodys_key(), "198.51.100.1").await.status;
            (status == 403).then_some(())
        })
        .await;
        let all = signals(&app, "unknown_keys").await;
        assert_eq!(all.len(), strike as usize, "{all:?}");
        assert_eq!(all[0]["strikes"], strike, "{all:?}");
        assert_eq!(lasts(&app, strike).await, 1_000 << strike);
        until_free(&app, "198.51.100.1").await;
    }
    app.finish().await;
}

async fn a_trusted_proxy_is_never_blocked(size: Size) {
    let app = guarded(size).env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "3").start().await;
    // It names nobody, so the proxy itself is all that is known; and its neighbours share its network.
    for _ in 0..4 {
        app.client(&nobodys_key()).get("/v1/tasks").await.expect(401);
        ask(&app, &nobodys_key(), "127.0.0.50").await.expect(401);
    }
    let told = signal(&app, "unknown_keys").await;
    assert_eq!(
        (&told["subject"], &told["action"]),
        (&json!("127.0.0.0/24"), &json!("spared")),
        "{told}"
    );
    stays_free(&app, "127.0.0.50").await;
    assert_eq!(admin(&app, "ip list").await["blocked"], json!([]));
    // Others are blocked as ever.
    for _ in 0..3 {
        ask(&app, &nobodys_key(), "198.51.100.1").await;
    }
    until_blocked(&app, "198.51.100.1").await;
    app.finish().await;
}

/// Everybody seems to come from it: to block it would shut everybody out.
async fn a_proxy_that_was_not_declared_is_spared(size: Size) {
    let app = Setup::new(size)
        .env("LISTMILL_ABUSE_PROTECTION", "on")
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "4")
        .start()
        .await;
    let owner = app.customer(0).await;
    for _ in 0..30 {
        owner.client.get("/v1/tasks").await.expect(200);
    }
    let networks = format!("/v1/keys/{}/networks", owner.key.id);
    eventually("the uses are counted", SOON, || async {
        let page = owner.client.get(&networks).await.expect(200).json();
        page["data"][0]["requests"].as_i64().filter(|requests| *requests >= 30)
    })
    .await;
    for _ in 0..6 {
        app.client(&nobodys_key()).get("/v1/tasks").await.expect(401);
    }
    let told = signal(&app, "unknown_keys").await;
    assert_eq!(told["action"], "spared", "{told}");
    assert!(
        told["detail"]["spared"].as_str().is_some_and(|why| why.contains("accepted")),
        "{told}"
    );
    owner.client.get("/v1/tasks").await.expect(200);
    app.finish().await;
}

async fn a_dry_run_only_says_so_and_off_says_nothing(size: Size) {
    let app = guarded(size)
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS", "dry_run")
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "3")
        .env("LISTMILL_ABUSE_DEAD_KEYS", "off")
        .env("LISTMILL_ABUSE_DEAD_KEYS_THRESHOLD", "1")
        .start()
        .await;
    let owner = app.customer(0).await;
    let dead = app.create_key(&owner.account).await;
    owner.client.delete(&format!("/v1/keys/{}", dead.id)).await.expect(200);
    for _ in 0..5 {
        ask(&app, &dead.secret, "198.51.100.1").await.expect(401);
        ask(&app, &nobodys_key(), "198.51.100.1").await.expect(401);
    }
    let told = signal(&app, "unknown_keys").await;
    assert_eq!(
        (&told["action"], &told["subject"]),
        (&json!("dry_run"), &json!("198.51.100.0/24")),
        "{told}"
    );
    stays_free(&app, "198.51.100.1").await;
    assert!(signals(&app, "dead_keys").await.is_empty());
    assert_eq!(admin(&app, "ip list").await["blocks"], json!([]));
    let mut counted = 0.0;
    for node in &app.apis {
        counted += node.metric("listmill_abuse_signals_total").await.expect("the metric");
    }
    assert!((1.0..1.5).contains(&counted), "{counted}");
    app.finish().await;
}

async fn without_a_request_log_the_rules_still_work(size: Size) {
    let app = guarded(size)
        .env("LISTMILL_REQUEST_LOG", "off")
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "3")
        .start()
        .await;
    let owner = app.customer(0).await;
    for _ in 0..3 {
        ask(&app, &nobodys_key(), "198.51.100.1").await.expect(401);
    }
    until_blocked(&app, "198.51.100.1").await;
    let requests = owner.client.get("/v1/requests").await.expect(200).json();
    assert_eq!(requests["data"], json!([]));
    app.finish().await;
}

/// What two processes see is added up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_count_together() {
    let app = guarded(Size::Scaled { apis: 2, workers: 1 })
        .weight(Weight::Middle)
        .env("LISTMILL_ABUSE_UNKNOWN_KEYS_THRESHOLD", "10")
        .start()
        .await;
    for api in [0, 1] {
        for _ in 0..5 {
            let client = app.client_of(api, &nobodys_key());
            let request = client.request(reqwest::Method::GET, "/v1/tasks");
            let reply =
                listmill_tests::client::send(request.header("x-forwarded-for", "198.51.100.1"));
            reply.await.expect(401);
        }
        if api == 0 {
            stays_free(&app, "198.51.100.1").await;
        }
    }
    until_blocked(&app, "198.51.100.1").await;
    assert_eq!(signals(&app, "unknown_keys").await.len(), 1);
    app.finish().await;
}
