//! When no mail host can be reached, it is not the addresses' fault.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::domain::verdict::Reason;
use listmill_worker::provider::smtp::Config;

use super::server::{Script, Server};
use super::world::World;

/// A world whose network is tried again every `every`.
async fn world(every: Duration, change: impl FnOnce(&mut Config)) -> World {
    World::with(|config| {
        config.timeout = Duration::from_secs(1);
        config.test_every = every;
        change(config);
    })
    .await
}

/// One address each of `count` domains whose hosts nobody listens at.
async fn ask_dead_domains(world: &World, count: u8) -> Vec<(Reason, bool)> {
    let mut found = Vec::new();
    for n in 1..=count {
        let domain = format!("dead{n}.test");
        world.zone.ip(&domain, &format!("127.0.9.{n}"));
        found.push(world.reason(&format!("kate@{domain}")).await);
    }
    found
}

/// Waits until the engine says that it can work, or cannot.
async fn wait_for(world: &World, works: bool) -> Health {
    let mut health = world.engine.health().expect("the engine can tell");
    let changed = health.wait_for(|health| (*health == Health::Working) == works);
    let health = tokio::time::timeout(Duration::from_secs(20), changed).await;
    health.expect("in time").expect("the engine lives").clone()
}

fn works(world: &World) -> bool {
    *world.engine.health().expect("the engine can tell").borrow() == Health::Working
}

#[tokio::test]
async fn when_no_host_can_be_reached_it_says_so_and_asks_nobody() {
    let world = world(Duration::from_secs(3600), |_| {}).await;
    let mx = world.mail("fine.test", "127.0.0.1", Script::usual()).await;
    let found = ask_dead_domains(&world, 19).await;
    assert!(found.iter().all(|f| *f == (Reason::NoConnect, true)));
    assert!(works(&world));
    ask_dead_domains(&world, 20).await;
    let Health::Down { why } = wait_for(&world, false).await else { panic!("it is down") };
    for word in ["refused", "port 25", "listmill doctor", "LISTMILL_SMTP_SOCKS5"] {
        assert!(why.contains(word), "{why}");
    }
    let found = world.check("known@fine.test").await.verdict;
    assert_eq!((found.reason, found.temporary), (Reason::NoConnect, true));
    assert_eq!(found.again_in, Some(Duration::from_secs(3600)));
    assert_eq!(mx.connections(), 0);
}

#[tokio::test]
async fn it_goes_on_by_itself_when_a_host_can_be_reached_again() {
    let world = world(Duration::from_millis(50), |_| {}).await;
    ask_dead_domains(&world, 20).await;
    wait_for(&world, false).await;
    // One of those that failed is back; nobody asks about anything meanwhile.
    let mx = world.server("127.0.9.7", vec![Script::usual()]).await;
    assert_eq!(wait_for(&world, true).await, Health::Working);
    assert!(mx.commands().is_empty(), "the test says nothing");
    assert_eq!(world.reason("known@dead7.test").await, (Reason::Accepted, false));
    // All begins anew: the next dead domain is one of twenty again.
    assert_eq!(world.check("kate@dead8.test").await.verdict.again_in, None);
    assert!(works(&world));
}

#[tokio::test]
async fn one_dead_domain_never_stops_the_others() {
    let world = world(Duration::from_secs(3600), |_| {}).await;
    for n in 1..=20 {
        let host = format!("mx{n}.dead.test");
        world.zone.mx("dead.test", n, &host);
        world.zone.ip(&host, &format!("127.0.9.{n}"));
    }
    for n in 0..10 {
        assert_eq!(world.reason(&format!("kate{n}@dead.test")).await, (Reason::NoConnect, true));
    }
    let _mx = world.mail("fine.test", "127.0.0.1", Script::usual()).await;
    assert!(works(&world));
    assert_eq!(world.reason("known@fine.test").await, (Reason::Accepted, false));
}

#[tokio::test]
async fn a_host_that_answers_between_keeps_it_going() {
    let world = world(Duration::from_secs(3600), |config| config.limits.recipients = 1).await;
    let _mx = world.mail("fine.test", "127.0.0.1", Script::usual()).await;
    for n in 0..4 {
        ask_dead_domains(&world, 15).await;
        let fine = world.reason(&format!("known{n}@fine.test")).await;
        assert_eq!(fine, (Reason::Accepted, false));
    }
    assert!(works(&world));
}

#[tokio::test]
async fn a_list_of_dead_domains_is_told_from_a_dead_network_by_a_landmark() {
    let landmarks = vec!["landmark.test".to_owned()];
    let world = world(Duration::from_secs(3600), |config| config.landmarks = landmarks).await;
    world.zone.ip("landmark.test", "127.0.0.40");
    let landmark: Server = world.server("127.0.0.40", vec![Script::usual()]).await;
    let found = ask_dead_domains(&world, 60).await;
    assert!(found.iter().all(|f| *f == (Reason::NoConnect, true)));
    listmill_tests::eventually("the landmark is reached", Duration::from_secs(10), || async {
        (landmark.connections() > 0).then_some(())
    })
    .await;
    let _mx = world.mail("fine.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("known@fine.test").await, (Reason::Accepted, false));
    assert!(works(&world));
    assert!(landmark.commands().is_empty(), "nothing is said to it");
}

/// One address each of `count` domains that no nameserver can tell anything about.
async fn ask_unresolved(world: &World, count: u8) {
    for n in 1..=count {
        let domain = format!("broken{n}.test");
        world.zone.fails(&domain, ResponseCode::ServFail);
        assert_eq!(world.reason(&format!("kate@{domain}")).await, (Reason::NoConnect, true));
    }
}

#[tokio::test]
async fn a_resolver_that_answers_for_nobody_stops_it_until_it_answers() {
    let world = world(Duration::from_millis(50), |_| {}).await;
    let mx = world.mail("fine.test", "127.0.0.1", Script::usual()).await;
    ask_unresolved(&world, 19).await;
    // It answers: those domains are at fault.
    assert_eq!(world.reason("kate@missing.test").await.0, Reason::NoDomain);
    world.clock.advance(10_000);
    ask_unresolved(&world, 19).await;
    assert!(works(&world));
    ask_unresolved(&world, 20).await;
    let Health::Down { why } = wait_for(&world, false).await else { panic!("it is down") };
    for word in ["the resolver", "LISTMILL_DNS", "listmill doctor"] {
        assert!(why.contains(word), "{why}");
    }
    let found = world.check("known@fine.test").await.verdict;
    assert_eq!((found.temporary, found.again_in.is_some()), (true, true), "{found:?}");
    assert_eq!(mx.connections(), 0);
    // All of them are known again, if only as not there; nobody asks about anything meanwhile.
    for n in 1..=20 {
        world.zone.forget(&format!("broken{n}.test"));
    }
    world.clock.advance(10_000);
    assert_eq!(wait_for(&world, true).await, Health::Working);
    assert_eq!(world.reason("known@fine.test").await, (Reason::Accepted, false));
}
