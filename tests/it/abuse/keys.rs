//! Rules that suspend keys, and the networks of a key.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use listmill_tests::poll::throughout;
use listmill_tests::{Client, Customer, Deployment, Key, Size, eventually, for_each_size, sql};
use serde_json::{Value, json};

use super::{DAY_MS, NEVER, SOON, admin, ask, guarded, lasts, signal, signals, stored};

for_each_size!(
    a_key_that_disregards_its_limit_is_suspended,
    suspensions_double_and_end_by_themselves,
    limits_that_an_operator_tightened_suspend_nobody,
    a_key_that_spreads_is_suspended,
    a_key_shows_its_networks,
);

pub(super) async fn make_key(app: &Deployment, owner: &Customer, body: Value) -> Key {
    let answer = owner.client.post("/v1/keys", &body).await.expect(201).json();
    let text = |field: &str| answer[field].as_str().expect(field).to_owned();
    let key = Key { id: text("id"), secret: text("key") };
    app.keep_secret(&key.secret);
    key
}

async fn shown(client: &Client, key: &Key) -> Value {
    client.get(&format!("/v1/keys/{}", key.id)).await.expect(200).json()
}

async fn until_status(client: &Client, key: &Key, status: &str) -> Value {
    eventually(&format!("the key is {status}"), SOON, || async {
        Some(shown(client, key).await).filter(|key| key["status"] == status)
    })
    .await
}

async fn stays_active(client: &Client, key: &Key) {
    throughout(NEVER, || async {
        let shown = shown(client, key).await;
        assert_eq!(shown["status"], "active", "{shown}");
    })
    .await;
}

async fn a_key_that_disregards_its_limit_is_suspended(size: Size) {
    let app = guarded(size)
        .env("LISTMILL_RATE_LIMITS", "on")
        .env("LISTMILL_ABUSE_RATE_LIMITS_THRESHOLD", "8")
        .env("LISTMILL_ABUSE_RATE_LIMITS_SPREAD", "2s")
        .env("LISTMILL_SUPPORT_CONTACT", "support@example.com")
        .start()
        .await;
    let owner = app.customer(0).await;
    let client = &owner.client;
    // One, and then none as far as this test goes.
    let limits = json!([{ "name": "requests", "limit": 1, "window_seconds": 86_400 }]);
    let key = make_key(&app, &owner, json!({ "label": "slow", "limits": limits })).await;
    let calm = make_key(&app, &owner, json!({ "label": "calm", "limits": limits })).await;
    for one in [&key, &calm] {
        ask(&app, &one.secret, "192.0.2.1").await.expect(200);
    }
    for one in [&key, &calm] {
        for _ in 0..4 {
            ask(&app, &one.secret, "192.0.2.1").await.expect(429);
        }
    }
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    for one in [&key, &calm] {
        for _ in 0..3 {
            ask(&app, &one.secret, "192.0.2.1").await.expect(429);
        }
        stays_active(client, one).await;
    }
    ask(&app, &key.secret, "192.0.2.1").await.expect(429);
    let told = until_status(client, &key, "suspended").await;
    assert_eq!(told["suspended_reason"], "Excessive rate-limit violations", "{told}");
    assert_eq!(told["support"], "support@example.com", "{told}");
    let refused = json!({
        "error": "API key is suspended", "reason": "Excessive rate-limit violations",
    });
    ask(&app, &key.secret, "192.0.2.1").await.expect_body(403, &refused);
    let other = shown(client, &calm).await;
    assert!(other.get("support").is_none(), "only with a suspended key: {other}");

    let found = signal(&app, "rate_limits").await;
    assert_eq!(
        (&found["subject"], &found["action"]),
        (&json!(key.id), &json!("suspended")),
        "{found}"
    );
    assert_eq!(
        (&found["count"], &found["ends_at"]),
        (&json!(8), &told["suspended_until"]),
        "{found}"
    );
    assert_eq!(found["detail"]["networks"], json!(["192.0.2.0/24"]), "{found}");
    assert_eq!(lasts(&app, 1).await, 3_600_000);

    // The owner sees it, and cannot lift it.
    let audit = client.all_pages("/v1/audit?action=key.suspend", 10).await;
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!(
        (&audit[0]["actor"], &audit[0]["target"]),
        (&json!({ "system": true }), &json!(key.id))
    );
    let enabled =
        client.post_empty(&format!("/v1/keys/{}/enable", key.id)).await.expect(200).json();
    assert_eq!(enabled["status"], "suspended", "{enabled}");
    let rotate = format!("/v1/keys/{}/rotate", key.id);
    client.post(&rotate, &json!({ "grace_seconds": 0 })).await.expect(409);
    assert_eq!(shown(client, &key).await["status"], "suspended");

    // An operator does, and is told what it was and what begins anew.
    let lifted = admin(&app, &format!("key unsuspend {}", key.id)).await;
    assert_eq!(lifted["status"], "active", "{lifted}");
    assert_eq!(
        (&lifted["signal"]["id"], &lifted["signal"]["rule"]),
        (&found["id"], &json!("rate_limits"))
    );
    assert_eq!(lifted["reset"]["strikes"], json!([{ "rule": "rate_limits", "strikes": 1 }]));
    ask(&app, &key.secret, "192.0.2.1").await.expect(429);
    stays_active(client, &key).await;
    app.finish().await;
}

async fn suspensions_double_and_end_by_themselves(size: Size) {
    let app = guarded(size)
        .env("LISTMILL_RATE_LIMITS", "on")
        .env("LISTMILL_ABUSE_RATE_LIMITS_THRESHOLD", "3")
        .env("LISTMILL_ABUSE_RATE_LIMITS_SPREAD", "0")
        .env("LISTMILL_ABUSE_RATE_LIMITS_FIRST", "2s")
        .start()
        .await;
    let owner = app.customer(0).await;
    let limits = json!([{ "name": "requests", "limit": 1, "window_seconds": 86_400 }]);
    let key = make_key(&app, &owner, json!({ "label": "slow", "limits": limits })).await;
    ask(&app, &key.secret, "192.0.2.1").await.expect(200);
    // It goes on and on. A slow machine may not meet it while it is suspended, but what was found stays written down.
    for strike in 1..=3 {
        eventually(&format!("strike {strike}"), SOON, || async {
            let status = ask(&app, &key.secret, "192.0.2.1").await.status;
            assert!([403, 429].contains(&status), "{status}");
            (signals(&app, "rate_limits").await.len() >= strike).then_some(())
        })
        .await;
    }
    let found = signals(&app, "rate_limits").await;
    for (strike, signal) in (1_u32..).zip(found.iter().rev()) {
        assert_eq!(signal["strikes"], strike, "{found:?}");
        assert_eq!(lasts(&app, strike).await, 1_000 << strike, "{found:?}");
    }
    let overlaps = "SELECT count(*) FROM abuse_signals a JOIN abuse_signals b
        ON b.strikes > a.strikes WHERE b.at < a.ends_at";
    assert_eq!(sql::number(&app.database_url(), overlaps).await, 0, "{found:?}");
    // The last ends by itself, too: the limit refuses again.
    eventually("the suspension has ended", SOON, || async {
        (ask(&app, &key.secret, "192.0.2.1").await.status == 429).then_some(())
    })
    .await;
    app.finish().await;
}

async fn limits_that_an_operator_tightened_suspend_nobody(size: Size) {
    let app = guarded(size)
        .env("LISTMILL_RATE_LIMITS", "on")
        .env("LISTMILL_ABUSE_RATE_LIMITS_THRESHOLD", "3")
        .env("LISTMILL_ABUSE_RATE_LIMITS_SPREAD", "0")
        .start()
        .await;
    let owner = app.customer(0).await;
    admin(&app, "limits tighten --factor 0.001 --for 1h").await;
    let refused = AtomicU32::new(0);
    eventually("many are refused", SOON, || async {
        let status = ask(&app, &owner.key.secret, "192.0.2.1").await.status;
        let more = u32::from(status == 429);
        (refused.fetch_add(more, Ordering::Relaxed) + more >= 10).then_some(())
    })
    .await;
    throughout(NEVER, || async {
        let keys = admin(&app, "key list").await;
        assert_eq!(keys["keys"][0]["status"], "active", "{keys}");
    })
    .await;
    assert!(signals(&app, "rate_limits").await.is_empty());
    app.finish().await;
}

/// The key was used from its first network a day earlier than it was.
async fn grow_older(app: &Deployment, size: Size, owner: &Customer, key: &Key) {
    let path = format!("/v1/keys/{}/networks", key.id);
    eventually("its first network is counted", SOON, || async {
        let page = owner.client.get(&path).await.expect(200).json();
        page["data"][0]["requests"].as_i64()
    })
    .await;
    let id = stored(size, key);
    let sql = format!("UPDATE key_networks SET first_at = first_at - {DAY_MS} WHERE key_id = {id}");
    assert_eq!(sql::execute(&app.database_url(), &sql).await, 1);
}

async fn a_key_that_spreads_is_suspended(size: Size) {
    let app = guarded(size).env("LISTMILL_ABUSE_NETWORKS_THRESHOLD", "6").start().await;
    let owner = app.customer(0).await;
    let client = &owner.client;
    let key = make_key(&app, &owner, json!({ "label": "spreads" })).await;
    let anywhere = json!({ "label": "everywhere", "allow": ["0.0.0.0/0"] });
    let allowed = make_key(&app, &owner, anywhere).await;
    let new = make_key(&app, &owner, json!({ "label": "new here" })).await;
    let from = |network: u32| format!("198.18.{network}.1");
    for one in [&key, &allowed] {
        ask(&app, &one.secret, &from(0)).await.expect(200);
        grow_older(&app, size, &owner, one).await;
    }
    for network in 0..5 {
        for _ in 0..3 {
            ask(&app, &key.secret, &from(network)).await.expect(200);
        }
    }
    for one in [&allowed, &new] {
        for network in 0..8 {
            ask(&app, &one.secret, &from(network)).await.expect(200);
        }
    }
    stays_active(client, &key).await;
    ask(&app, &key.secret, &from(5)).await.expect(200);
    let told = until_status(client, &key, "suspended").await;
    assert_eq!(told["suspended_reason"], "Suspicious traffic patterns", "{told}");
    assert!(told.get("support").is_none(), "no contact is set: {told}");
    // The owner of one has said from where, and the other has no habit yet.
    assert_eq!(shown(client, &allowed).await["status"], "active");
    assert_eq!(shown(client, &new).await["status"], "active");

    let lifted = admin(&app, &format!("key unsuspend {}", key.id)).await;
    let networks = lifted["signal"]["detail"]["networks"].as_array().expect("networks");
    assert_eq!(networks.len(), 6, "{lifted}");
    assert_eq!(lifted["signal"]["count"], 6, "{lifted}");
    assert_eq!(lifted["reset"]["known_networks"], 6, "{lifted}");
    // These are right, so the operator has said.
    for network in 0..6 {
        ask(&app, &key.secret, &from(network)).await.expect(200);
    }
    stays_active(client, &key).await;
    app.finish().await;
}

async fn a_key_shows_its_networks(size: Size) {
    let app = guarded(size).start().await;
    let owner = app.customer(0).await;
    let client = &owner.client;
    let key = make_key(&app, &owner, json!({ "label": "k" })).await;
    let path = format!("/v1/keys/{}/networks", key.id);
    for from in ["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1", "2001:db8::2"] {
        ask(&app, &key.secret, from).await.expect(200);
    }
    let rows = eventually("five uses", SOON, || async {
        let rows = client.all_pages(&path, 1).await;
        let uses: i64 = rows.iter().map(|row| row["requests"].as_i64().expect("requests")).sum();
        (uses == 5).then_some(rows)
    })
    .await;
    let mut found: Vec<(&str, i64)> = rows
        .iter()
        .map(|row| {
            (row["network"].as_str().expect("network"), row["requests"].as_i64().expect("n"))
        })
        .collect();
    let first: Vec<&str> = rows.iter().map(|row| row["first_at"].as_str().expect("at")).collect();
    assert!(first.is_sorted_by(|a, b| a >= b), "the newest first: {rows:?}");
    found.sort_unstable();
    assert_eq!(found, [("192.0.2.0/24", 2), ("198.51.100.0/24", 1), ("2001:db8::/64", 2)]);
    assert!(rows.iter().all(|row| row["new"] == false), "so is the key: {rows:?}");
    // A month later.
    let id = stored(size, &key);
    let month = 30 * DAY_MS;
    let older = format!("UPDATE api_keys SET created_at = created_at - {month} WHERE id = {id}");
    sql::execute(&app.database_url(), &older).await;
    let old = format!(
        "UPDATE key_networks SET first_at = first_at - {month} \
         WHERE key_id = {id} AND network = '192.0.2.0/24'"
    );
    sql::execute(&app.database_url(), &old).await;
    let rows = client.all_pages(&path, 100).await;
    let new: Vec<&str> = rows
        .iter()
        .filter(|row| row["new"] == true)
        .map(|row| row["network"].as_str().expect("network"))
        .collect();
    assert_eq!(new.len(), 2, "{rows:?}");
    assert!(!new.contains(&"192.0.2.0/24"), "{rows:?}");
    // It is its account's own affair, and takes a scope.
    let stranger = app.customer(0).await;
    stranger.client.get(&path).await.expect(404).expect_problem();
    let narrow = json!({ "label": "narrow", "scopes": ["tasks:read"] });
    let narrow = make_key(&app, &owner, narrow).await;
    app.client(&narrow.secret).get(&path).await.expect(403);
    client.get(&format!("{path}?cursor=rubbish")).await.expect(400).expect_problem();
    client.get(&format!("{path}?limit=0")).await.expect(400).expect_problem();
    app.finish().await;
}
