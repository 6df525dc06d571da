//! The engine inside the product: a list is submitted, mail servers are asked, credits follow.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use listmill_tests::{Setup, Size, Weight, eventually, for_each_size};

use super::server::{Act, Script, say};
use super::world::World;

for_each_size!(
    a_list_is_verified_by_asking,
    a_host_is_asked_at_its_pace,
    cancel_drops_open_probes_at_once
);

async fn a_list_is_verified_by_asking(size: Size) {
    let world = World::new().await;
    let script = Script::new(|seen| match seen.local {
        local if local.starts_with("known") => say("250 2.1.5 Ok"),
        "full" => say("452 4.2.2 mailbox full"),
        "policy" => say("550 5.7.1 blocked"),
        _ => say("550 5.1.1 no such user"),
    });
    let _mx = world.mail("shop.test", "127.0.0.1", script).await;
    let setup = Setup::new(size.with(1, 1)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let lists = listmill_tests::scratch::folder("lists");
    let throw_away = lists.join("throw-away.txt");
    std::fs::write(&throw_away, "# ours\nburner.test\n").expect("a file");
    let setup = setup.env("LISTMILL_DISPOSABLE_LIST", throw_away.display().to_string());
    let app = setup.env("LISTMILL_SMTP_PORT", world.port.to_string()).start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let list = [
        "known1@shop.test",
        "nobody@shop.test",
        "full@shop.test",
        "policy@shop.test",
        "kate@burner.test",
        "kate@nowhere.test",
        "not an address",
    ];
    let task = client.submit(&list).await;
    let task = client.wait_completed(&task.id).await;
    let results = client.results(&task.id).await;
    let found: HashMap<&str, (&str, &str)> = results
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            (text("email"), (text("reason"), text("credit")))
        })
        .collect();
    let want = [
        ("known1@shop.test", ("accepted", "charged")),
        ("nobody@shop.test", ("mailbox_not_found", "charged")),
        ("full@shop.test", ("mailbox_full", "charged")),
        ("policy@shop.test", ("blocked", "refunded")),
        ("kate@burner.test", ("disposable", "charged")),
        ("kate@nowhere.test", ("no_domain", "charged")),
        ("not an address", ("invalid_syntax", "free")),
    ];
    assert_eq!(found, HashMap::from(want));
    assert_eq!((task.credits.charged, task.credits.refunded), (5, 1));
    let accepted = results.iter().find(|row| row["email"] == "known1@shop.test").expect("a row");
    assert_eq!(accepted["smtp_code"], 250, "{accepted}");
    assert_eq!(accepted["mx"], "mx-127-0-0-1.shop.test", "{accepted}");
    app.finish().await;
}

/// Without Redis the page shows what the process itself knows of its hosts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_hosts_are_shown_without_redis() {
    let world = World::new().await;
    let _mx = world.mail("shop.test", "127.0.0.1", Script::always("452 4.2.2 mailbox full")).await;
    let setup = Setup::new(Size::Embedded).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let app = setup.env("LISTMILL_SMTP_PORT", world.port.to_string()).start().await;
    let boss = app.operator(0).await.person(&app).await;
    let before = boss.get("/operator/hosts").await.expect(200).words();
    assert!(before.contains("No host was asked lately"), "{before}");
    let customer = app.customer(10).await;
    let task = customer.client.submit(&["kate@shop.test"]).await;
    customer.client.wait_completed(&task.id).await;
    let page = boss.get("/operator/hosts").await.expect(200).words();
    assert!(page.contains("127.0.0.1 answers 0"), "{page}");
    app.finish().await;
}

async fn a_host_is_asked_at_its_pace(size: Size) {
    let world = World::new().await;
    let mx = world.mail("shop.test", "127.0.0.1", Script::always("452 4.2.2 mailbox full")).await;
    let setup = Setup::new(size.with(1, 2)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_HOST_RECIPIENTS_PER_MINUTE", "120");
    let setup = setup.env("LISTMILL_BATCH_SIZE", "10");
    let app = setup.env("LISTMILL_SMTP_PORT", world.port.to_string()).start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let list: Vec<String> = (0..30).map(|i| format!("kate{i}@shop.test")).collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let started = Instant::now();
    let task = client.submit(&list).await;
    let task = client.wait_completed(&task.id).await;
    // Twelve at once, then two a second, however many processes ask.
    assert!(started.elapsed() > Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!((mx.recipients().len(), task.credits.charged), (30, 30));
    app.finish().await;
}

/// The mail server says nothing for longer than the test lasts: only the cancel ends its connections.
async fn cancel_drops_open_probes_at_once(size: Size) {
    let world = World::new().await;
    let hang = Script::new(|_| vec![Act::Hang]);
    let mx = world.mail("silent.test", "127.0.0.1", hang).await;
    let setup = Setup::new(size.with(1, 2)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_PORT", world.port.to_string());
    let setup = setup.env("LISTMILL_SMTP_TIMEOUT", "300s").env("LISTMILL_PACE", "off");
    let setup = setup.env("LISTMILL_BATCH_SIZE", "20").weight(Weight::Heavy);
    let app = setup.start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let people: Vec<String> = (0..100).map(|i| format!("known{i}@silent.test")).collect();
    let id = client.submit(&people).await.id;
    let counts = &mx.counts;
    eventually("probes wait for an answer", Duration::from_secs(20), || async {
        let asked = counts.recipients.lock().unwrap().len();
        (counts.open.load(SeqCst) >= 10 && asked >= 10).then_some(())
    })
    .await;
    client.cancel(&id).await;
    eventually("every connection is closed", Duration::from_secs(1), || async {
        (counts.open.load(SeqCst) == 0).then_some(())
    })
    .await;
    let asked = counts.recipients.lock().unwrap().len();
    let task = client.task(&id).await;
    assert_eq!((task.status.as_str(), task.counts.processed), ("cancelled", 0));
    assert_eq!((task.credits.held, task.credits.charged), (0, 0));
    assert_eq!(client.balance().await, customer.granted);
    // The workers go on, and ask nothing more of what was cancelled.
    let next = client.submit(&["kate@nowhere.test"]).await.id;
    client.wait_completed(&next).await;
    assert_eq!(counts.recipients.lock().unwrap().len(), asked);
    app.finish().await;
}
