//! A resolver that lies, or is dead, costs nobody an address or a credit.

use std::time::Duration;

use futures::future::join_all;
use hickory_proto::rr::RecordType;
use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::domain::verdict::Reason;
use listmill_tests::{Setup, Size, eventually, for_each_size};

use super::server::Script;
use super::world::World;

for_each_size!(a_resolver_that_knows_no_domain_concludes_nothing);

const LIMIT: Duration = Duration::from_secs(90);
/// A domain that every honest resolver knows.
const ALIVE: &str = "alive.test";
const DOMAINS: usize = 6;

async fn a_resolver_that_knows_no_domain_concludes_nothing(size: Size) {
    nothing_is_concluded(size, "cannot resolve public domains", |world| world.zone.denies_all())
        .await;
}

/// Its host speaks SMTP, and knows nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captive_portal_concludes_nothing() {
    let lie = |world: &World| world.zone.captures("127.0.0.66");
    nothing_is_concluded(Size::Embedded, "makes up answers", lie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_resolver_concludes_nothing() {
    nothing_is_concluded(Size::Embedded, "no usable answer", |world| world.zone.dies()).await;
}

/// A list of living and dead domains waits until the resolver is honest, and then has its verdicts.
async fn nothing_is_concluded(size: Size, says: &str, lie: impl Fn(&World)) {
    let world = World::new().await;
    let portal = world.server("127.0.0.66", vec![Script::always("550 5.1.1 no such user")]).await;
    world.zone.mx(ALIVE, 10, "mx.alive.test");
    let mut servers = Vec::new();
    for n in 0..DOMAINS {
        let ip = format!("127.0.8.{}", n + 1);
        servers.push(world.mail(&format!("d{n}.test"), &ip, Script::usual()).await);
    }
    lie(&world);
    let app = Setup::new(size.with(1, 1))
        .env("LISTMILL_PROVIDER", "smtp")
        .env("LISTMILL_DNS", world.zone.address.to_string())
        .env("LISTMILL_DNS_CONTROL", ALIVE)
        .env("LISTMILL_SMTP_PORT", world.port.to_string())
        .env("LISTMILL_PACE", "off")
        .start()
        .await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    // The last domain is dead indeed.
    let list: Vec<String> =
        (0..10 * (DOMAINS + 1)).map(|i| format!("known{i}@d{}.test", i % (DOMAINS + 1))).collect();
    let id = client.submit(&list).await.id;
    let task = client.wait_for(&id, "paused", LIMIT).await;
    assert_eq!(task.pause_reason.as_deref(), Some("provider_unavailable"));
    assert_eq!((task.counts.processed, task.credits.charged), (0, 0), "nothing is concluded");
    assert_eq!((task.credits.held, client.balance().await), (0, 1_000));
    let worker = if size.is_scaled() { &app.workers[0] } else { &app.apis[0] };
    eventually("it says at the start what is wrong", LIMIT, || async {
        worker.process.output().contains("verdicts would be wrong: resolver").then_some(())
    })
    .await;
    let output = worker.process.output();
    assert_eq!(output.matches("the resolver cannot be believed").count(), 1, "said once");
    assert!(output.contains(says), "{output}");

    world.zone.is_honest();
    let task = client.wait_for(&id, "completed", LIMIT).await;
    assert_eq!((task.counts.deliverable, task.counts.undeliverable), (10 * DOMAINS as u64, 10));
    assert_eq!(client.balance().await, 1_000 - list.len() as u64);
    let dead = client.results(&id).await;
    let dead: Vec<_> = dead.iter().filter(|row| row["reason"] == "no_domain").collect();
    assert_eq!(dead.len(), 10, "{dead:?}");
    assert!(portal.recipients().is_empty(), "nobody was asked at the portal");
    app.finish().await;
}

/// It is found out before it is believed about a provider that everybody knows.
#[tokio::test]
async fn a_resolver_that_begins_to_lie_is_found_out_and_forgotten() {
    let world = World::with(|config| config.control = vec![ALIVE.to_owned()]).await;
    world.zone.mx(ALIVE, 10, "mx.alive.test");
    let _shop = world.mail("shop.test", "127.0.0.1", Script::usual()).await;
    let _big = world.mail("gmail.com", "127.0.0.2", Script::usual()).await;
    let people = (0..100).map(|n| format!("kate{n}@{}.test", ["shop", "missing"][n % 2]));
    let people: Vec<String> = people.collect();
    let found = join_all(people.iter().map(|who| world.reason(who))).await;
    for (n, (reason, _)) in found.into_iter().enumerate() {
        assert_eq!(reason, [Reason::MailboxNotFound, Reason::NoDomain][n % 2]);
    }
    assert_eq!(world.zone.asked(ALIVE, RecordType::MX), 1, "one look serves all");

    world.zone.denies_all();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for who in ["known@gmail.com", "known@shop.test"] {
        let verdict = world.check(who).await.verdict;
        assert_eq!((verdict.reason, verdict.temporary), (Reason::NoConnect, true), "{who}");
        assert!(verdict.again_in.is_some(), "no attempt is used up: {verdict:?}");
    }
    let mut health = world.engine.health().expect("the engine can tell");
    let Health::Down { why } = health.borrow().clone() else { panic!("it is down") };
    for word in [ALIVE, "LISTMILL_DNS", "listmill doctor", "LISTMILL_DNS_CONTROL"] {
        assert!(why.contains(word), "{why}");
    }

    world.zone.is_honest();
    let works = health.wait_for(|health| *health == Health::Working);
    tokio::time::timeout(Duration::from_secs(30), works).await.expect("in time").expect("it lives");
    // What it said meanwhile is not kept.
    assert_eq!(world.reason("known@gmail.com").await.0, Reason::Accepted);
    assert_eq!(world.reason("known@shop.test").await.0, Reason::Accepted);
}
