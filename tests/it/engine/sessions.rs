//! Many addresses over few connections.

use std::collections::HashSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::future::join_all;
use listmill_shared::domain::verdict::Reason;

use super::server::{Act, Script, say};
use super::world::World;

fn known(count: usize, domain: &str) -> Vec<String> {
    (0..count).map(|i| format!("known{i}@{domain}")).collect()
}

#[tokio::test]
async fn one_connection_serves_many_addresses_and_says_goodbye() {
    let world = World::with(|c| c.limits.idle = Duration::from_millis(300)).await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    for address in known(60, "a.test") {
        assert_eq!(world.reason(&address).await, (Reason::Accepted, false));
    }
    assert_eq!(mx.connections(), 1);
    assert_eq!(mx.recipients().len(), 61);
    assert_eq!(mx.commands().iter().filter(|c| *c == "RSET").count(), 2);
    assert!(mx.wait_open(0).await);
    assert_eq!(mx.counts.quits.load(SeqCst), 1);
}

#[tokio::test]
async fn a_session_ends_after_so_many_recipients() {
    let world = World::with(|c| c.limits.recipients = 10).await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    for address in known(29, "a.test") {
        assert_eq!(world.reason(&address).await.0, Reason::Accepted);
    }
    assert_eq!(mx.connections(), 3);
}

#[tokio::test]
async fn domains_of_one_host_share_its_connections() {
    let world = World::new().await;
    world.zone.mx("b.test", 10, "mx-127-0-0-1.a.test");
    let mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    for domain in ["a.test", "b.test", "a.test", "b.test"] {
        assert_eq!(world.reason(&format!("known@{domain}")).await.0, Reason::Accepted);
    }
    assert_eq!(mx.connections(), 1);
    assert_eq!(mx.recipients().len(), 6);
}

#[tokio::test]
async fn a_crowd_stays_within_the_permits_and_asks_once_for_catch_all() {
    let world = World::with(|c| c.limits.connections = 5).await;
    let script = Script::always("250 ok").with(|s| s.latency = Duration::from_millis(2));
    let mx = world.mail("a.test", "127.0.0.1", script).await;
    let addresses = known(400, "a.test");
    let found = join_all(addresses.iter().map(|a| world.check(a))).await;
    assert!(found.iter().all(|f| f.verdict.reason == Reason::CatchAll));
    assert!(found.iter().all(|f| f.verdict.flags.catch_all == Some(true)));
    assert!(mx.counts.most_open.load(SeqCst) <= 5);
    let recipients = mx.recipients();
    let targets = recipients.iter().filter(|r| r.starts_with("known")).count();
    assert_eq!((recipients.len(), targets), (401, 400));
    assert_eq!(recipients.iter().collect::<HashSet<_>>().len(), 401);
}

#[tokio::test]
async fn rejections_are_believed_after_one_of_them_was_confirmed() {
    let world = World::with(|c| c.limits.connections = 1).await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("known@a.test").await.0, Reason::Accepted);
    for i in 0..20 {
        assert_eq!(world.reason(&format!("nobody{i}@a.test")).await.0, Reason::MailboxNotFound);
    }
    // The first rejection came second in its session, so it was asked about again.
    assert_eq!((mx.connections(), mx.recipients().len()), (2, 23));
}

#[tokio::test]
async fn goes_on_after_421_and_dropped_connections() {
    for end in [vec![Act::Say("421 4.7.0 enough".into()), Act::Drop], vec![Act::Drop]] {
        let world = World::new().await;
        let script =
            Script::new(move |seen| match (seen.in_session, seen.local.starts_with("known")) {
                (4.., _) => end.clone(),
                (_, true) => say("250 ok"),
                (_, false) => say("550 5.1.1 no"),
            });
        let mx = world.mail("a.test", "127.0.0.1", script).await;
        for address in known(20, "a.test") {
            assert_eq!(world.reason(&address).await, (Reason::Accepted, false), "{address}");
        }
        assert!((7..=8).contains(&mx.connections()), "{}", mx.connections());
    }
}

#[tokio::test]
async fn a_temporary_answer_to_a_later_recipient_is_asked_again_as_a_first() {
    let world = World::new().await;
    let script = Script::new(|seen| match (seen.in_session, seen.local.starts_with("known")) {
        (1, true) => say("250 ok"),
        (1, false) => say("550 5.1.1 no"),
        _ => say("451 4.3.0 one at a time"),
    });
    let _mx = world.mail("a.test", "127.0.0.1", script).await;
    for address in known(10, "a.test") {
        assert_eq!(world.reason(&address).await, (Reason::Accepted, false), "{address}");
    }
    // Now that the host is known for it, the random mailbox gets a session of its own.
    world.clock.advance(120_000);
    let verdict = world.check("known@a.test").await.verdict;
    assert_eq!((verdict.reason, verdict.flags.catch_all), (Reason::Accepted, Some(false)));
}

#[tokio::test]
async fn too_many_recipients_start_a_new_transaction() {
    let world = World::new().await;
    let script = Script::new(|seen| match (seen.in_transaction, seen.local.starts_with("known")) {
        (4.., _) => say("452 4.5.3 too many recipients"),
        (_, true) => say("250 ok"),
        (_, false) => say("550 5.1.1 no"),
    });
    let mx = world.mail("a.test", "127.0.0.1", script).await;
    for address in known(30, "a.test") {
        assert_eq!(world.reason(&address).await, (Reason::Accepted, false), "{address}");
    }
    assert_eq!(mx.connections(), 1);
    // Learnt after the first: 30 targets, the random mailbox, one refused.
    assert_eq!(mx.recipients().len(), 32);
}

#[tokio::test]
async fn mail_and_rcpt_go_out_together_only_where_that_is_offered() {
    for (features, pipelined) in [(vec!["PIPELINING"], 1), (vec!["SIZE 1"], 0)] {
        let world = World::new().await;
        let mx = world
            .mail("a.test", "127.0.0.1", Script::usual().with(|s| s.ehlo = Some(features)))
            .await;
        assert_eq!(world.reason("known@a.test").await.0, Reason::Accepted);
        assert_eq!(mx.counts.pipelined.load(SeqCst), pipelined);
    }
}

#[tokio::test]
async fn one_question_more_clears_all_rejections_in_doubt() {
    let world = World::with(|c| c.limits.connections = 4).await;
    let script = Script::usual().with(|s| s.latency = Duration::from_millis(20));
    let mx = world.mail("a.test", "127.0.0.1", script).await;
    // Four sessions with a first recipient each, and nothing to say how they treat a second.
    join_all(known(4, "a.test").iter().map(|a| world.check(a))).await;
    assert_eq!(mx.connections(), 4);
    let nobodies: Vec<String> = (0..12).map(|i| format!("nobody{i}@a.test")).collect();
    let found = join_all(nobodies.iter().map(|a| world.reason(a))).await;
    assert!(found.iter().all(|f| *f == (Reason::MailboxNotFound, false)), "{found:?}");
    let asked = mx.recipients().iter().filter(|r| r.starts_with("nobody")).count();
    assert_eq!(asked, 12 + 1);
}

#[tokio::test]
async fn nothing_is_asked_twice_while_there_is_room_for_connections() {
    let world = World::with(|c| c.limits.connections = 8).await;
    let script = Script::new(|seen| match seen.local {
        "slow" => vec![Act::Hang],
        local if local.starts_with("known") => say("250 ok"),
        _ => say("550 5.1.1 no"),
    });
    let mx = world.mail("a.test", "127.0.0.1", script).await;
    let others = async {
        while mx.recipients().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Each finds idle sessions that could serve it, at a host that nobody knows.
        for local in ["known0", "nobody0", "nobody1", "known1", "nobody2"] {
            world.check(&format!("{local}@a.test")).await;
        }
    };
    tokio::select! {
        _ = world.check("slow@a.test") => panic!("the server never answers"),
        () = others => {}
    }
    let recipients = mx.recipients();
    for i in 0..3 {
        let asked = recipients.iter().filter(|r| r.starts_with(&format!("nobody{i}@"))).count();
        assert_eq!(asked, 1, "nobody{i}: {recipients:?}");
    }
    assert!(mx.connections() <= 8);
}
