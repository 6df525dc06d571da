//! What the service gets to see of us, how often, and what nobody gets to see.

use std::time::Duration;

use futures::future::join_all;
use listmill_shared::app::provider::Provider;
use listmill_shared::domain::verdict::Reason;
use listmill_shared::settings::Settings;
use listmill_tests::redis::Redis;
use listmill_worker::provider::http::Config;

use super::server::{Act, say};
use super::world::{VALID, World};

#[tokio::test]
async fn asks_by_get_with_the_address_in_the_url() {
    let world = World::with(
        |c| {
            c.key = "k/1".into();
            c.header = "X-Api-Key: {key}\n\nx-more: a\nX-More: b: c".into();
        },
        |_| say(200, VALID),
    )
    .await;
    assert_eq!(world.reason("o'hara+tag@müller.test").await, (Reason::Accepted, false));
    let seen = world.service.seen().remove(0);
    assert_eq!(seen.method, "GET");
    assert_eq!(seen.path, "/check?email=o%27hara%2Btag%40m%C3%BCller.test");
    assert_eq!(seen.header("x-api-key"), Some("k/1"));
    let more: Vec<_> = seen.headers.iter().filter(|(n, _)| n == "x-more").map(|(_, v)| v).collect();
    assert_eq!(more, ["a", "b: c"]);
    assert!(seen.header("user-agent").unwrap().starts_with("listmill/"));
    assert_eq!((seen.header("content-type"), seen.body.as_str()), (None, ""));
}

#[tokio::test]
async fn asks_by_post_with_the_address_in_the_body() {
    let change = |c: &mut Config| {
        let base = c.url.reveal().split("/check").next().unwrap_or_default().to_owned();
        c.url = format!("{base}/v1/verifications").as_str().into();
        c.key = "the-key".into();
        c.body = r#"{"email": "{email}", "key": "{key}", "deep": [{"again": "{email}"}]}"#.into();
    };
    let world = World::with(change, |_| say(200, VALID)).await;
    assert_eq!(world.reason("\"a\\\" b\"@x.test").await, (Reason::Accepted, false));
    let seen = world.service.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/verifications"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(body["email"], "\"a\\\" b\"@x.test");
    assert_eq!((&body["key"], &body["deep"][0]["again"]), (&"the-key".into(), &body["email"]));
}

#[tokio::test]
async fn a_header_may_come_from_the_environment() {
    let service = super::server::Upstream::start(|_| say(200, VALID)).await;
    let url = format!("{}/{{email}}", service.base());
    let environment = [
        ("LISTMILL_PROVIDER", "http"),
        ("LISTMILL_HTTP_URL", &url),
        ("LISTMILL_HTTP_HEADER", "Authorization: Bearer from-the-environment"),
        ("LISTMILL_HTTP_MAP", "/status valid = accepted; /status gone = mailbox_not_found"),
    ];
    let pairs = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::load(None, pairs).unwrap();
    assert!(settings.unknown.is_empty() && !format!("{settings:?}").contains("environment"));
    let clock = listmill_shared::domain::clock::Clock::system();
    let ids = listmill_shared::domain::id::Ids::system();
    let provider = listmill_worker::provider::build(&settings, &clock, &ids).unwrap();
    assert_eq!(provider.verify("a@x.test", 1).await.reason, Reason::Accepted);
    let authorization = service.seen()[0].header("authorization").map(str::to_owned);
    assert_eq!(authorization.as_deref(), Some("Bearer from-the-environment"));
}

#[tokio::test]
async fn evidence_is_kept_and_secrets_are_not() {
    let change = |c: &mut Config| {
        c.key = "sesame-open".into();
        c.header = "Authorization: Bearer {key}".into();
    };
    let script = |_: &_| say(200, r#"{"status":"gone","key":"sesame-open","note":"a\u0000b"}"#);
    let world = World::with(change, script).await;
    let verdict = world.provider.verify("a@x.test", 1).await;
    assert_eq!(verdict.reason, Reason::MailboxNotFound);
    let detail = verdict.detail.unwrap();
    assert!(!detail.contains("sesame"), "{detail}");
    let evidence: serde_json::Value = serde_json::from_str(&detail).unwrap();
    assert_eq!((&evidence["http"], &evidence["requests"]), (&200.into(), &1.into()));
    assert_eq!((&evidence["pointer"], &evidence["word"]), (&"/status".into(), &"gone".into()));
    assert!(evidence["text"].as_str().unwrap().contains("\"note\""), "{evidence}");
    let refused = World::with(change, |_| say(401, "unknown key sesame-open")).await;
    refused.check("a@x.test").await;
    assert!(!refused.wait_down().await.contains("sesame"));
}

#[tokio::test]
async fn only_so_many_at_once() {
    let world = World::with(|c| c.concurrency = 3, |_| Act::Hang).await;
    let addresses: Vec<String> = (0..10).map(|n| format!("a{n}@x.test")).collect();
    let all = join_all(addresses.iter().map(|address| world.check(address)));
    tokio::select! {
        _ = all => panic!("nobody answered"),
        () = async {
            world.service.wait_open(3).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        } => {}
    }
    assert_eq!((world.service.most_open(), world.service.asked()), (3, 3));
    // Those that waited were dropped with the rest.
    world.service.wait_open(0).await;
}

#[tokio::test]
async fn only_so_many_a_second_of_all_processes_together() {
    let redis = Redis::start().await;
    let world = World::with(|c| c.rate = 20, |_| say(200, VALID)).await;
    let providers = [world.provider_at(&redis.url()), world.provider_at(&redis.url())];
    let addresses: Vec<String> = (0..12).map(|n| format!("a{n}@x.test")).collect();
    let checks = addresses.iter().enumerate().map(|(n, address)| providers[n % 2].check(address));
    let started = std::time::Instant::now();
    let found = join_all(checks).await;
    assert!(found.iter().all(|f| f.verdict.reason == Reason::Accepted), "{found:?}");
    // Two at once, then one each 50 ms; each process alone would be done after 200 ms.
    assert!(started.elapsed() >= Duration::from_millis(490), "{:?}", started.elapsed());
}

#[tokio::test]
async fn dropping_the_check_drops_the_request() {
    let world = World::new(|_| Act::Hang).await;
    {
        let check = world.check("a@x.test");
        tokio::pin!(check);
        tokio::select! {
            _ = &mut check => panic!("nobody answered"),
            () = world.service.wait_open(1) => {}
        }
    }
    world.service.wait_open(0).await;
    assert_eq!(world.service.asked(), 1);
}
