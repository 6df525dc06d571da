//! Cases that verifiers often get wrong, each with what is right.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::future::join_all;
use listmill_shared::domain::verdict::{Reason, Status};

use super::server::{Script, say};
use super::world::World;

#[tokio::test]
async fn unavailable_450_is_unknown_and_asked_again() {
    let world = World::new().await;
    let _mx = world
        .mail("a.test", "127.0.0.1", Script::always("450 mailbox unavailable, try later"))
        .await;
    assert_eq!(world.reason("kate@a.test").await, (Reason::SmtpUnavailable, true));
}

#[tokio::test]
async fn policy_550_5_7_1_is_blocked() {
    let world = World::new().await;
    let _mx =
        world.mail("a.test", "127.0.0.1", Script::always("550 5.7.1 rejected by policy")).await;
    let found = world.check("kate@a.test").await;
    assert_eq!((found.verdict.reason, found.verdict.temporary), (Reason::Blocked, false));
    assert_eq!(found.verdict.reason.status(), Status::Unknown);
    assert_eq!(found.evidence.enhanced.as_deref(), Some("5.7.1"));
    assert_eq!(found.evidence.text.as_deref(), Some("550 5.7.1 rejected by policy"));
}

#[tokio::test]
async fn role_address_that_does_not_exist_is_undeliverable() {
    let world = World::new().await;
    let _mx = world.mail("a.test", "127.0.0.1", Script::always("550 no such user")).await;
    let verdict = world.check("info@a.test").await.verdict;
    assert_eq!(verdict.reason, Reason::MailboxNotFound);
    assert_eq!(verdict.flags.role, Some(true));
    assert_eq!(verdict.smtp_code, Some(550));
    assert_eq!(verdict.mx.as_deref(), Some("mx-127-0-0-1.a.test"));
}

#[tokio::test]
async fn random_451_leaves_catch_all_open_and_lowers_the_score() {
    let world = World::new().await;
    let script = Script::new(|seen| match seen.local {
        "kate" => say("250 ok"),
        _ => say("451 not now"),
    });
    let _mx = world.mail("a.test", "127.0.0.1", script).await;
    let found = world.check("kate@a.test").await;
    assert_eq!((found.verdict.reason, found.verdict.temporary), (Reason::Accepted, false));
    assert_eq!(found.verdict.flags.catch_all, None);
    assert!(found.verdict.score < Reason::Accepted.score());
    assert_eq!(found.evidence.random.as_deref(), Some("451 not now"));
}

#[tokio::test]
async fn second_mx_answers_when_the_first_refuses() {
    let world = World::new().await;
    world.zone.mx("a.test", 5, "dead.test");
    world.zone.ip("dead.test", "127.0.0.9");
    let mx = world.mail("a.test", "127.0.0.2", Script::usual()).await;
    for (local, reason) in [("known", Reason::Accepted), ("nobody", Reason::MailboxNotFound)] {
        let found = world.check(&format!("{local}@a.test")).await;
        assert_eq!(found.verdict.reason, reason);
        assert_eq!(found.evidence.tried, 2);
        assert_eq!(found.verdict.mx.as_deref(), Some("mx-127-0-0-2.a.test"));
    }
    drop(mx);
    assert_eq!(world.reason("other@a.test").await, (Reason::NoConnect, true));
}

#[tokio::test]
async fn an_address_record_alone_is_asked() {
    let world = World::new().await;
    world.zone.ip("a.test", "127.0.0.1");
    let _mx = world.server("127.0.0.1", vec![Script::usual()]).await;
    assert_eq!(world.reason("known@a.test").await, (Reason::Accepted, false));
}

#[tokio::test]
async fn null_mx_and_mx_without_address_are_no_mx() {
    let world = World::new().await;
    world.zone.mx("null.test", 0, ".");
    world.zone.mx("lost.test", 10, "nowhere.test");
    world.zone.mx("lost.test", 20, "bare.test");
    world.zone.empty("bare.test");
    world.zone.empty("nothing.test");
    for address in ["kate@null.test", "kate@lost.test", "kate@nothing.test"] {
        assert_eq!(world.reason(address).await, (Reason::NoMx, false), "{address}");
    }
    assert_eq!(world.reason("kate@missing.test").await, (Reason::NoDomain, false));
}

#[tokio::test]
async fn disposable_is_decided_without_asking_anybody() {
    let world = World::new().await;
    let verdict = world.check("kate@mailinator.com").await.verdict;
    assert_eq!(verdict.reason, Reason::Disposable);
    assert_eq!(verdict.reason.status(), Status::Risky);
    assert_eq!(verdict.flags.disposable, Some(true));
    assert_eq!(world.zone.asked_in_all(), 0);
}

#[tokio::test]
async fn idn_domains_are_asked_in_ascii() {
    let world = World::new().await;
    let mx = world.mail("xn--mnchen-3ya.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("known@münchen.test").await, (Reason::Accepted, false));
    assert_eq!(mx.recipients()[0], "known@xn--mnchen-3ya.test");
}

#[tokio::test]
async fn greylisted_at_first_deliverable_afterwards() {
    let world = World::new().await;
    let script = Script::new(|seen| match (seen.since_first, seen.local.starts_with("known")) {
        (since, _) if since < Duration::from_millis(700) => say("451 4.7.1 Greylisted, try again"),
        (_, true) => say("250 2.1.5 ok"),
        (_, false) => say("550 5.1.1 no such user"),
    });
    let mx = world.mail("a.test", "127.0.0.1", script).await;
    let addresses: Vec<String> = (0..100).map(|i| format!("known{i}@a.test")).collect();
    let all = async || join_all(addresses.iter().map(|a| world.reason(a))).await;
    assert!(all().await.iter().all(|found| *found == (Reason::Greylisted, true)));
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(all().await.iter().all(|found| *found == (Reason::Accepted, false)));
    assert!(mx.counts.most_open.load(SeqCst) <= 20);
}

/// Like Outlook: every recipient after the first of a session is turned away.
fn first_only() -> Script {
    Script::new(|seen| match (seen.in_session, seen.local.starts_with("known")) {
        (1, true) => say("250 2.1.5 ok"),
        _ => say("550 5.1.1 no such user"),
    })
}

#[tokio::test]
async fn rejecting_every_second_recipient_deceives_nobody() {
    let world = World::new().await;
    let _mx = world.mail("a.test", "127.0.0.1", first_only()).await;
    let first = world.check("known0@a.test").await.verdict;
    assert_eq!((first.reason, first.flags.catch_all), (Reason::Accepted, Some(false)));
    for i in 1..10 {
        assert_eq!(world.reason(&format!("known{i}@a.test")).await.0, Reason::Accepted, "{i}");
        assert_eq!(
            world.reason(&format!("nobody{i}@a.test")).await.0,
            Reason::MailboxNotFound,
            "{i}"
        );
    }
}

#[tokio::test]
async fn rejecting_every_second_recipient_deceives_no_crowd() {
    let world = World::new().await;
    let _mx = world.mail("a.test", "127.0.0.1", first_only()).await;
    let addresses: Vec<String> = (0..100).map(|i| format!("known{i}@a.test")).collect();
    let found = join_all(addresses.iter().map(|a| world.reason(a))).await;
    assert!(found.iter().all(|found| *found == (Reason::Accepted, false)), "{found:?}");
}

#[tokio::test]
async fn mailbox_states_follow_the_enhanced_code() {
    for (reply, reason, full, disabled) in [
        ("550 5.2.1 switched off", Reason::MailboxDisabled, None, Some(true)),
        ("552 5.2.2 over quota", Reason::MailboxFull, Some(true), None),
        ("452 4.2.2 over quota", Reason::MailboxFull, Some(true), None),
    ] {
        let world = World::new().await;
        let _mx = world.mail("a.test", "127.0.0.1", Script::always(reply)).await;
        let verdict = world.check("kate@a.test").await.verdict;
        assert_eq!((verdict.reason, verdict.temporary), (reason, false));
        assert_eq!((verdict.flags.mailbox_full, verdict.flags.disabled), (full, disabled));
    }
}
