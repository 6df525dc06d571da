//! Services that are slow, faulty, or refuse us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use listmill_shared::domain::verdict::Reason;

use super::server::{Act, say};
use super::world::{START, VALID, World};

#[tokio::test]
async fn a_fault_is_tried_again() {
    let world = World::new(|seen| match seen.number {
        1 => say(500, "oops"),
        2 => Act::Drop,
        _ => say(200, VALID),
    })
    .await;
    let found = world.check("a@x.test").await;
    assert_eq!((found.verdict.reason, found.evidence.requests), (Reason::Accepted, 3));
    assert!(world.is_working());
}

#[tokio::test]
async fn an_address_that_upsets_the_service_is_temporary_and_the_others_go_on() {
    let world = World::new(|seen| match seen.path.contains("upset") {
        true => say(502, "oops"),
        false => say(200, VALID),
    })
    .await;
    let found = world.check("upset@x.test").await;
    assert_eq!((found.verdict.reason, found.verdict.temporary), (Reason::SmtpUnavailable, true));
    assert_eq!((found.evidence.http, found.evidence.requests), (Some(502), 3));
    assert_eq!(found.evidence.text.as_deref(), Some("oops"));
    assert_eq!(world.reason("a@x.test").await, (Reason::Accepted, false));
    // The probe found the service well.
    assert!(world.is_working());
}

#[tokio::test]
async fn no_answer_and_nobody_there() {
    let change = |c: &mut listmill_worker::provider::http::Config| {
        (c.timeout, c.retries) = (Duration::from_millis(100), 0);
    };
    let world = World::with(change, |_| Act::Hang).await;
    assert_eq!(world.reason("a@x.test").await, (Reason::Timeout, true));
    assert!(world.wait_down().await.contains("no answer in time"));

    let nobody = World::with(|c| c.url = "http://127.0.0.1:1/{email}".into(), |_| Act::Hang).await;
    let found = nobody.check("a@x.test").await;
    assert_eq!((found.verdict.reason, found.verdict.temporary), (Reason::NoConnect, true));
    let why = nobody.wait_down().await;
    assert!(why.contains("no connection") && why.contains("http_url"), "{why}");
}

#[tokio::test]
async fn an_unfinished_answer_is_asked_for_again() {
    let world = World::new(|seen| match seen.number {
        1 | 2 => say(202, "{}"),
        _ => say(200, VALID),
    })
    .await;
    assert_eq!(world.reason("a@x.test").await, (Reason::Accepted, false));
    let never = World::with(|c| c.timeout = Duration::from_millis(300), |_| say(202, "{}")).await;
    assert_eq!(never.reason("a@x.test").await, (Reason::Timeout, true));
    assert!(never.is_working());
}

#[tokio::test]
async fn what_is_not_understood_is_unknown() {
    let huge = format!("{{\"status\":\"valid\",\"x\":\"{}\"}}", "x".repeat(100_000));
    for (status, body, temporary, problem) in [
        (200, "<html>hello</html>", true, "not JSON"),
        (200, "", true, "not JSON"),
        (200, "{\"status\":\"valid\"", true, "not JSON"),
        (200, huge.as_str(), true, "longer than"),
        (200, "{\"status\":\"strange\"}", false, "no line of http_map"),
        (200, "{}", false, "no line of http_map"),
        (400, VALID, false, "does not take the request"),
        (404, VALID, false, "does not take the request"),
        (422, VALID, false, "does not take the request"),
    ] {
        let answer = body.to_owned();
        let world = World::new(move |_| say(status, answer.clone())).await;
        let found = world.check("a@x.test").await;
        let verdict = &found.verdict;
        assert_eq!(
            (verdict.reason, verdict.temporary),
            (Reason::InternalError, temporary),
            "{body}"
        );
        let said = found.evidence.problem.as_deref().unwrap_or_default();
        assert!(said.contains(problem), "{said}");
        assert_eq!(world.service.asked(), 1);
        assert!(found.evidence.text.unwrap_or_default().len() <= 500);
    }
    let world = World::new(|_| say(200, "{\"status\":\"strange\"}")).await;
    assert_eq!(world.check("a@x.test").await.evidence.word.as_deref(), Some("strange"));
}

#[tokio::test]
async fn the_service_may_ask_for_a_pause() {
    // In seconds, and as a date one second after the provider's time.
    let date = "Tue, 14 Nov 2023 22:13:21 GMT";
    assert_eq!(START / 1000, 1_700_000_000);
    for (status, after) in [(429, "1"), (503, "1"), (429, date)] {
        let world = World::new(move |seen| match seen.number {
            1 => Act::Head(status, "retry-after", after.into()),
            _ => say(200, VALID),
        })
        .await;
        let started = std::time::Instant::now();
        let first = world.check("a@x.test").await;
        assert_eq!((first.verdict.reason, first.evidence.requests), (Reason::Accepted, 2));
        // Everybody waits.
        assert!(started.elapsed() >= Duration::from_millis(990), "{:?}", started.elapsed());
        assert!(world.is_working());
    }
}

#[tokio::test]
async fn others_wait_through_a_pause_too() {
    let world = World::new(|seen| match seen.number {
        1 => Act::Head(429, "retry-after", "1".into()),
        _ => say(200, VALID),
    })
    .await;
    let others = async {
        world.service.wait_open(0).await;
        while world.service.asked() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.reason("b@x.test").await
    };
    let (first, other) = tokio::join!(world.reason("a@x.test"), others);
    assert_eq!((first, other), ((Reason::Accepted, false), (Reason::Accepted, false)));
    assert_eq!(world.service.asked(), 3);
}

#[tokio::test]
async fn a_pause_longer_than_an_address_can_wait_is_a_rest() {
    let world = World::with(
        |c| c.timeout = Duration::from_millis(500),
        |seen| match seen.number {
            1 => Act::Head(429, "retry-after", "2".into()),
            _ => say(200, VALID),
        },
    )
    .await;
    assert_eq!(world.reason("a@x.test").await, (Reason::SmtpUnavailable, true));
    assert!(world.wait_down().await.contains("wait for 2 s"));
    // Not asked.
    let found = world.check("b@x.test").await;
    assert_eq!((found.verdict.temporary, found.evidence.requests), (true, 0));
    assert_eq!(world.service.asked(), 1);
    world.wait_working().await;
    assert_eq!(world.reason("b@x.test").await, (Reason::Accepted, false));
}

#[tokio::test]
async fn a_refused_key_takes_the_provider_down_until_it_is_taken_again() {
    let known = Arc::new(AtomicBool::new(false));
    for status in [401, 402, 403, 301, 200] {
        known.store(false, SeqCst);
        let key_known = known.clone();
        let world = World::new(move |_| match (key_known.load(SeqCst), status) {
            (true, _) => say(200, VALID),
            (false, 301) => Act::Head(301, "location", "https://else.test/x?key=k".into()),
            (false, status) => say(status, r#"{"error":"no such key"}"#),
        })
        .await;
        let (reason, temporary) = world.reason("a@x.test").await;
        assert_eq!((reason, temporary), (Reason::InternalError, true), "{status}");
        let why = world.wait_down().await;
        assert!(why.starts_with(&format!("HTTP {status}: ")), "{why}");
        if status == 301 {
            assert!(
                why.contains("https://else.test:") || why.contains("https://else.test,"),
                "{why}"
            );
            assert!(!why.contains("key=k") && why.contains("http_url"), "{why}");
        }
        // While it is down, nobody but the probe asks.
        assert_eq!(world.reason("b@x.test").await, (Reason::InternalError, true));
        assert_eq!(world.service.asked(), 1);
        known.store(true, SeqCst);
        world.wait_working().await;
        assert_eq!(world.reason("b@x.test").await, (Reason::Accepted, false));
    }
}

#[tokio::test]
async fn those_who_wait_for_their_turn_do_not_ask_a_service_that_is_down() {
    let world = World::with(|c| (c.concurrency, c.rate) = (1, 1), |_| say(401, "{}")).await;
    let addresses: Vec<String> = (0..20).map(|n| format!("a{n}@x.test")).collect();
    let all = addresses.iter().map(|address| world.reason(address));
    let found = futures::future::join_all(all).await;
    assert_eq!(found, [(Reason::InternalError, true); 20]);
    // The first, and one that had its turn before the probe was answered.
    assert!(world.service.asked() <= 2, "{}", world.service.asked());
}

#[tokio::test]
async fn an_address_that_is_refused_alone_takes_nobody_down() {
    let world = World::new(|seen| match seen.path.contains("select") {
        true => say(403, "a firewall"),
        false => say(200, VALID),
    })
    .await;
    assert_eq!(world.reason("select*@x.test").await, (Reason::InternalError, true));
    listmill_tests::eventually("the probe", Duration::from_secs(10), || async {
        (world.service.probes() == 1).then_some(())
    })
    .await;
    assert_eq!(world.reason("a@x.test").await, (Reason::Accepted, false));
    assert!(world.is_working());
}
