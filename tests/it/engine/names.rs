//! DNS, domains, suggestions.

use futures::future::join_all;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use listmill_shared::domain::verdict::Reason;

use super::server::{Script, say};
use super::world::World;

#[tokio::test]
async fn failing_dns_is_unknown_and_temporary() {
    let world = World::with(|c| c.timeout = std::time::Duration::from_secs(1)).await;
    world.zone.fails("a.test", ResponseCode::ServFail);
    world.zone.silent("b.test");
    world.zone.mx("c.test", 10, "mx.c.test");
    world.zone.fails("mx.c.test", ResponseCode::ServFail);
    assert_eq!(world.reason("kate@a.test").await, (Reason::NoConnect, true));
    assert_eq!(world.reason("kate@b.test").await, (Reason::Timeout, true));
    assert_eq!(world.reason("kate@c.test").await, (Reason::NoConnect, true));
}

#[tokio::test]
async fn one_question_per_name_whatever_the_answer() {
    let world = World::new().await;
    let _mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    world.zone.fails("failing.test", ResponseCode::ServFail);
    let addresses: Vec<String> =
        (0..300).map(|i| format!("known{i}@{}.test", ["a", "missing", "failing"][i % 3])).collect();
    join_all(addresses.iter().map(|a| world.reason(a))).await;
    assert_eq!(world.zone.asked("a.test", RecordType::MX), 1);
    assert_eq!(world.zone.asked("mx-127-0-0-1.a.test", RecordType::A), 1);
    assert_eq!(world.zone.asked("missing.test", RecordType::MX), 1);
    let tries = world.zone.asked("failing.test", RecordType::MX);
    assert!(tries <= 3, "{tries} tries");
    join_all(addresses.iter().map(|a| world.reason(a))).await;
    assert_eq!(world.zone.asked("a.test", RecordType::MX), 1);
    assert_eq!(world.zone.asked("missing.test", RecordType::MX), 1);
    assert_eq!(world.zone.asked("failing.test", RecordType::MX), tries);
    world.clock.advance(10_000);
    world.reason("kate@failing.test").await;
    assert!(world.zone.asked("failing.test", RecordType::MX) > tries);
}

#[tokio::test]
async fn misspelt_domains_are_suggested() {
    let world = World::new().await;
    // The last one lives from others' slips, and is on the list of disposable domains.
    for (domain, reason) in [
        ("gmaill.com", Reason::NoDomain),
        ("gnail.com", Reason::NoDomain),
        ("gmial.com", Reason::Disposable),
    ] {
        let verdict = world.check(&format!("kate@{domain}")).await.verdict;
        assert_eq!(verdict.reason, reason);
        assert_eq!(verdict.did_you_mean.as_deref(), Some("kate@gmail.com"));
        assert_eq!(verdict.flags.free, Some(false));
    }
}

#[tokio::test]
async fn local_parts_beyond_ascii_need_smtputf8() {
    let world = World::new().await;
    let plain = world.mail("plain.test", "127.0.0.1", Script::always("250 ok")).await;
    let script = Script::new(|seen| match seen.local {
        "jörg" => say("250 ok"),
        _ => say("550 5.1.1 no"),
    });
    let script = script.with(|s| s.ehlo = Some(vec!["SMTPUTF8", "8BITMIME"]));
    let able = world.mail("able.test", "127.0.0.2", script).await;
    let found = world.check("jörg@plain.test").await;
    assert_eq!((found.verdict.reason, found.verdict.temporary), (Reason::SmtpUnavailable, false));
    assert!(found.evidence.text.unwrap().contains("SMTPUTF8"));
    assert!(plain.recipients().is_empty());
    assert_eq!(world.reason("jörg@able.test").await.0, Reason::Accepted);
    let mails: Vec<String> =
        able.commands().into_iter().filter(|c| c.starts_with("MAIL")).collect();
    // The random mailbox is plain ASCII and gets a transaction without it.
    assert_eq!(mails, ["MAIL FROM:<verify@probe.test> SMTPUTF8", "MAIL FROM:<verify@probe.test>"]);
}

#[tokio::test]
async fn hosts_in_our_own_network_are_left_alone() {
    let world = World::with(|c| c.private_hosts = false).await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("known@a.test").await, (Reason::NoConnect, false));
    assert_eq!(mx.connections(), 0);
}

#[tokio::test]
async fn a_list_file_is_read_again_when_it_changes() {
    let path = listmill_tests::scratch::folder("lists").join("throw-away.txt");
    std::fs::write(&path, "burner.test\n").unwrap();
    let file = path.clone();
    let world = World::with(|c| c.lists.disposable = Some(file)).await;
    let _mx = world.mail("shop.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("kate@burner.test").await.0, Reason::Disposable);
    assert_eq!(world.reason("known@shop.test").await.0, Reason::Accepted);
    std::fs::write(&path, "burner.test\nshop.test\n").unwrap();
    let limit = std::time::Duration::from_secs(10);
    listmill_tests::poll::eventually("the new list", limit, || async {
        world.clock.advance(10_000);
        (world.reason("known@shop.test").await.0 == Reason::Disposable).then_some(())
    })
    .await;
    // A file that is gone leaves the list as it was.
    std::fs::remove_file(&path).unwrap();
    for _ in 0..5 {
        world.clock.advance(10_000);
        assert_eq!(world.reason("known@shop.test").await.0, Reason::Disposable);
    }
}
