//! What an operator does by hand, and how it ends by itself.

use listmill_tests::{Size, eventually, for_each_size};
use serde_json::json;

use super::{SOON, admin, ask, guarded, is_blocked, until_free};

for_each_size!(suspensions_and_blocks_have_an_end);

async fn suspensions_and_blocks_have_an_end(size: Size) {
    let app = guarded(size).start().await;
    let owner = app.customer(0).await;
    let key = app.create_key(&owner.account).await;
    let path = format!("/v1/keys/{}", key.id);
    let args = ["admin", "key", "suspend", &key.id, "--reason", "Chargeback", "--note", "ticket-7"];
    let told = app.cli(&[&args[..], &["--for", "1h", "--json"]].concat()).await;
    let told = told.expect_success().json();
    assert_eq!(
        (&told["status"], &told["suspended_note"]),
        (&json!("suspended"), &json!("ticket-7"))
    );
    let seen = owner.client.get(&path).await.expect(200);
    assert!(!seen.text().contains("ticket-7"), "a note is for operators: {seen}");
    assert!(seen.json()["suspended_until"].is_string(), "{seen}");
    assert_eq!(seen.json()["suspended_until"], told["suspended_until"]);
    ask(&app, &key.secret, "192.0.2.1").await.expect(403);
    app.cli(&[&args[..], &["--for", "2s"]].concat()).await.expect_success();
    eventually("the suspension ends by itself", SOON, || async {
        (ask(&app, &key.secret, "192.0.2.1").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(owner.client.get(&path).await.expect(200).json()["status"], "active");

    // A key that slips into a reason is not told on.
    let slip = format!("sent mail with {} in it", key.secret);
    for words in [&["--reason", &slip][..], &["--reason", "x", "--note", &slip]] {
        let args = [&["admin", "key", "suspend", &key.id, "--json"], words].concat();
        let told = app.cli(&args).await.expect_success().json();
        let kept = [&told["suspended_reason"], &told["suspended_note"]];
        assert!(!told.to_string().contains(&key.secret), "{told}");
        assert!(kept.iter().any(|text| text.to_string().contains("sent mail with VEC")), "{told}");
    }

    // Until it is lifted, with nothing that a rule had found.
    app.suspend(&key, "Chargeback").await;
    ask(&app, &key.secret, "192.0.2.1").await.expect(403);
    let lifted = admin(&app, &format!("key unsuspend {}", key.id)).await;
    assert_eq!(
        (&lifted["signal"], &lifted["was_suspended"]["reason"]),
        (&json!(null), &json!("Chargeback"))
    );
    ask(&app, &key.secret, "192.0.2.1").await.expect(200);
    for wrong in ["2020-01-31T12:00:00Z", "tomorrow"] {
        let args = ["admin", "key", "suspend", &key.id, "--until", wrong];
        app.cli(&args).await.expect_failure();
    }

    admin(&app, "ip block 198.51.100.0/24 --for 1h --reason scan").await;
    assert!(is_blocked(&app, "198.51.100.1").await);
    let list = admin(&app, "ip list").await;
    assert_eq!(list["blocks"][0]["reason"], "scan", "{list}");
    assert_eq!(list["blocks"][0]["made_by"], "operator", "{list}");
    admin(&app, "ip block 198.51.100.0/24 --for 2s").await;
    until_free(&app, "198.51.100.1").await;
    assert_eq!(admin(&app, "ip list").await["blocked"], json!([]));
    // What has ended can be blocked anew, and what holds can be given another end.
    let block = "ip block 198.51.100.0/24";
    assert_eq!(admin(&app, &format!("{block} --for 1h")).await["changed"], true);
    assert_eq!(admin(&app, block).await["changed"], true);
    assert_eq!(admin(&app, block).await["changed"], false);
    assert_eq!(admin(&app, "ip list").await["blocks"][0]["ends_at"], json!(null));
    assert!(is_blocked(&app, "198.51.100.1").await);
    assert_eq!(admin(&app, "ip unblock 198.51.100.0/24").await["changed"], true);
    assert!(!is_blocked(&app, "198.51.100.1").await);
    app.finish().await;
}
