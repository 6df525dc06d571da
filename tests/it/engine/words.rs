//! Whom a refusal is about decides what it means; the rule that says so is kept with the result.

use std::time::Duration;

use listmill_tests::admin::run;
use listmill_tests::process::Launch;
use listmill_tests::setup::binary;
use listmill_tests::{Setup, Size, eventually, for_each_size, scratch};
use serde_json::json;

use super::server::{Script, Server, say};
use super::world::World;

for_each_size!(refusals_are_told_apart_with_the_rule_as_evidence);

const RULES: &str = r#"
    [[rule]]
    name = "shop-moved"
    code = "550"
    words = ["Wohnt hier nicht"]
    reason = "mailbox_not_found"
    why = "said by their support"
"#;

/// A shop whose server has words for some, and none for others.
async fn shop(world: &World) -> Server {
    let script = Script::new(|seen| match seen.local {
        local if local.starts_with("known") => say("250 2.1.5 Ok"),
        "bare" => say("550 Requested action not taken"),
        "german" => say("550 Empfänger <german@shop.test> existiert nicht"),
        "japanese" => say("550-5.7.1 Sorry\n550 5.7.1 宛先が存在しません"),
        "listed" => say("550 5.1.1 Your IP is listed, see https://www.spamhaus.org/query/1"),
        local if local.starts_with("moved") => say("550 wohnt HIER nicht"),
        // So is the random mailbox.
        _ => say("550 no"),
    });
    world.mail("shop.test", "127.0.0.1", script).await
}

async fn refusals_are_told_apart_with_the_rule_as_evidence(size: Size) {
    let world = World::new().await;
    let _mx = shop(&world).await;
    let rules = scratch::folder("rules").join("rules.toml");
    std::fs::write(&rules, "").expect("a file");
    let setup = Setup::new(size.with(1, 1)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_PORT", world.port.to_string());
    let setup = setup.env("LISTMILL_CLASSIFY_RULES", rules.display().to_string());
    let app = setup.start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let wanted = [
        ("known@shop.test", "accepted", "charged", "accepted"),
        ("bare@shop.test", "blocked", "refunded", "bare-550"),
        ("german@shop.test", "mailbox_not_found", "charged", "mailbox-unknown-words"),
        ("japanese@shop.test", "mailbox_not_found", "charged", "mailbox-unknown-words"),
        ("listed@shop.test", "blocked", "refunded", "block-list-words"),
        ("moved@shop.test", "blocked", "refunded", "bare-550"),
        ("kate@nowhere.test", "no_domain", "charged", "dns-no-domain"),
    ];
    let task = client.submit(&wanted.map(|(address, ..)| address)).await;
    let task = client.wait_completed(&task.id).await;
    assert_eq!((task.credits.charged, task.credits.refunded), (4, 3));
    for row in client.results(&task.id).await {
        let path = format!("/v1/tasks/{}/results/{}", task.id, row["seq"]);
        let result = client.get(&path).await.expect(200).json();
        let found = [&result["email"], &result["reason"], &result["credit"]];
        let address = found[0].as_str().unwrap_or_default();
        let want = wanted.iter().find(|(email, ..)| *email == address).expect("one of the list");
        assert_eq!(found, [&json!(want.0), &json!(want.1), &json!(want.2)], "{result}");
        assert_eq!(result["evidence"]["rule"], want.3, "{result}");
        if address == "known@shop.test" {
            // A made-up mailbox was refused right after it, if without a reason.
            assert_eq!(result["flags"]["catch_all"], false, "{result}");
            assert_eq!(result["score"], 98, "{result}");
        }
    }

    // The operator knows better; neither api nor worker is started again.
    std::fs::write(&rules, RULES).expect("a file");
    eventually("the operator's rule is used", Duration::from_secs(30), || async {
        let task = client.submit(&["moved-on@shop.test"]).await;
        let task = client.wait_completed(&task.id).await;
        let path = format!("/v1/tasks/{}/results/0", task.id);
        let result = client.get(&path).await.expect(200).json();
        (result["evidence"]["rule"] == "shop-moved" && result["status"] == "undeliverable")
            .then_some(())
    })
    .await;
    eventually("single verifications use it", Duration::from_secs(30), || async {
        let body = json!({"email": "moved-out@shop.test"});
        let result = client.post("/v1/verifications", &body).await.expect(200).json();
        (result["reason"] == "mailbox_not_found").then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_the_rule_and_uses_the_operators() {
    let world = World::new().await;
    let _mx = shop(&world).await;
    let folder = scratch::folder("words");
    std::fs::write(folder.join("rules.toml"), RULES).expect("a file");
    std::fs::write(folder.join("broken.toml"), RULES.replace("mailbox_not_found", "accepted"))
        .expect("a file");
    let verify = async |rules: &str, args: &[&str]| {
        let mut launch = Launch::new(binary(), &folder).args(["verify"]).args(args);
        let env = [
            ("LISTMILL_DNS", world.zone.address.to_string()),
            ("LISTMILL_SMTP_PORT", world.port.to_string()),
            ("LISTMILL_SMTP_EHLO", "probe.test".into()),
            ("LISTMILL_PACE", "off".into()),
            ("LISTMILL_CLASSIFY_RULES", rules.to_owned()),
        ];
        launch.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
        run(launch, Duration::from_secs(60)).await
    };
    let all = ["moved@shop.test", "german@shop.test", "bare@shop.test", "--json"];
    for (file, moved) in [("", "bare-550"), ("rules.toml", "shop-moved")] {
        let object = verify(file, &all).await.expect_success().json();
        let rules: Vec<_> = object["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|result| result["evidence"]["rule"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(rules, [moved, "mailbox-unknown-words", "bare-550"], "{object}");
    }
    let told = verify("rules.toml", &["moved@shop.test"]).await.expect_success();
    assert!(told.stdout.contains("rule: shop-moved"), "{told:#?}");
    let refused = verify("broken.toml", &["moved@shop.test"]).await.expect_failure();
    for word in ["classify_rules", "broken.toml", "shop-moved", "reason", "accepted"] {
        assert!(refused.stderr.contains(word), "{word}: {refused:#?}");
    }
}
