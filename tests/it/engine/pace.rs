//! How fast hosts are asked, and who waits. The clock stands still unless a test moves it, so a budget
//! gives what it may give at once, and no more.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use listmill_shared::domain::verdict::Reason;
use listmill_tests::redis::Redis;
use listmill_worker::provider::smtp::figures::{Figured, Figures, Together};
use listmill_worker::provider::smtp::{Config, Finding, Smtp};

use super::server::{Act, Script, say};
use super::world::World;

/// No bound at all, for the figures that a test does not look at.
const MANY: u32 = 10_000_000;

fn figures(recipients_per_minute: u32, connections_per_minute: u32, connections: usize) -> Figures {
    Figures { recipients_per_minute, connections_per_minute, connections }
}

fn paced(usual: Figures) -> impl FnOnce(&mut Config) {
    move |config| {
        config.timeout = Duration::from_secs(1);
        config.pace = Some(Figured { usual, together: Vec::new() });
    }
}

fn addresses(count: usize, domain: &str) -> Vec<String> {
    (0..count).map(|i| format!("known{i}@{domain}")).collect()
}

async fn check_all(engine: &Smtp, addresses: &[String]) -> Vec<Finding> {
    join_all(addresses.iter().map(|address| engine.check(address))).await
}

/// It was put off: nothing is said of the address, and it knows when to come again.
fn is_put_off(found: &Finding) -> bool {
    let verdict = &found.verdict;
    let text = found.evidence.text.as_deref().unwrap_or_default();
    (verdict.reason, verdict.temporary) == (Reason::SmtpUnavailable, true)
        && verdict.again_in.is_some()
        && text.contains("pace is used up")
}

/// So many of `found` were asked about; the others were put off.
fn asked(found: &[Finding]) -> usize {
    let answered = |f: &&Finding| f.verdict.reason == Reason::MailboxFull;
    let asked = found.iter().filter(answered).count();
    assert_eq!(asked + found.iter().filter(|f| is_put_off(f)).count(), found.len(), "{found:?}");
    asked
}

/// As a worker does: a dozen at once, the next as soon as one is done.
async fn work(engine: &Smtp, addresses: &[String], rounds: usize) -> Vec<Finding> {
    let addresses = (0..rounds).flat_map(|_| addresses);
    let asks: Vec<_> = addresses.map(|address| engine.check(address)).collect();
    futures::stream::iter(asks).buffer_unordered(12).collect().await
}

/// An answer that costs one recipient: believed at once, and no random mailbox is asked about.
fn full() -> Script {
    Script::always("452 4.2.2 mailbox full")
}

#[tokio::test]
async fn processes_share_the_pace_through_redis() {
    let redis = Redis::start().await;
    let world = World::with(paced(figures(60, MANY, 20))).await;
    let mx = world.mail("a.test", "127.0.0.1", full()).await;
    let url = redis.url();
    let (one, two) = (world.engine_at(Some(&url)), world.engine_at(Some(&url)));
    let list = addresses(6, "a.test");
    let (found_one, found_two) = tokio::join!(check_all(&one, &list), check_all(&two, &list));
    // A tenth of a minute's at once, over both.
    assert_eq!(asked(&found_one) + asked(&found_two), 6);
    assert_eq!(mx.recipients().len(), 6);
    world.clock.advance(2_000);
    let (found_one, found_two) = tokio::join!(check_all(&one, &list), check_all(&two, &list));
    assert_eq!(asked(&found_one) + asked(&found_two), 2);
    assert_eq!(mx.recipients().len(), 8);
}

#[tokio::test]
async fn processes_share_the_connections_through_redis() {
    let redis = Redis::start().await;
    let world = World::with(|config| {
        paced(figures(MANY, MANY, 6))(config);
        config.timeout = Duration::from_secs(20);
        // Those that are saying goodbye would be more.
        config.limits.recipients = 10_000;
        config.limits.idle = Duration::from_millis(200);
    })
    .await;
    let script = full().with(|s| s.latency = Duration::from_millis(25));
    let mx = world.mail("a.test", "127.0.0.1", script).await;
    let url = redis.url();
    let engines = [world.engine_at(Some(&url)), world.engine_at(Some(&url))];
    let list = addresses(12, "a.test");
    let until_asked = |count: usize| {
        let mx = &mx;
        async move {
            listmill_tests::eventually("they are asked", Duration::from_secs(20), || async {
                (mx.recipients().len() >= count).then_some(())
            })
            .await;
        }
    };
    let (one, (two, then)) = tokio::join!(work(&engines[0], &list, 90), async {
        until_asked(24).await;
        assert_eq!(mx.open(), 6, "who is alone has them all");
        (work(&engines[1], &list, 20).await, mx.recipients().len())
    });
    assert_eq!((asked(&one), asked(&two)), (1080, 240));
    assert!(then < 1080, "the second one had its part while the first went on: {then}");
    assert_eq!(mx.counts.most_open.load(SeqCst), 6, "together no more than one");
    // Who has nothing to ask any more leaves its part to the others.
    assert!(mx.wait_open(0).await);
    let (third, open) = tokio::join!(work(&engines[1], &list, 5), async {
        until_asked(1080 + 240 + 36).await;
        mx.open()
    });
    assert_eq!((asked(&third), open, mx.counts.most_open.load(SeqCst)), (60, 6, 6));
}

#[tokio::test]
async fn processes_tell_each_other_of_refusals() {
    let redis = Redis::start().await;
    let world = World::with(paced(figures(MANY, MANY, 20))).await;
    let refuses = || Script::usual().with(|s| s.banner = say("421 4.7.0 too busy"));
    let mx = world.mails("a.test", "127.0.0.1", vec![refuses(), refuses(), Script::usual()]).await;
    let url = redis.url();
    let (one, two) = (world.engine_at(Some(&url)), world.engine_at(Some(&url)));
    let asks = |engine| async move {
        let Finding { verdict, .. } = Smtp::check(engine, "known@a.test").await;
        (verdict.reason, verdict.again_in.map(|wait| wait.as_secs()))
    };
    let left_alone = |rest| (Reason::SmtpUnavailable, Some(rest));
    // Nobody has a part any more, so whoever asks next looks at what is known first.
    let told = |refusals: &'static str| {
        let redis = &redis;
        async move {
            listmill_tests::eventually(
                "they have told each other",
                Duration::from_secs(5),
                || async {
                    let rest = redis.command("HGET test:share:127.0.0.1 rest").ok()?;
                    let fields = redis.command("HLEN test:share:127.0.0.1").ok()?;
                    let known = rest.split_whitespace().nth(2) == Some(refusals);
                    (known && fields.trim() == ":1").then_some(())
                },
            )
            .await;
        }
    };
    assert_eq!(asks(&one).await, (Reason::SmtpUnavailable, None), "asked");
    told("1").await;
    assert_eq!(asks(&two).await, left_alone(5));
    world.clock.advance(5_000);
    assert_eq!(asks(&two).await, (Reason::SmtpUnavailable, None), "asked");
    told("2").await;
    assert_eq!(asks(&one).await, left_alone(15));
    assert_eq!(mx.connections(), 2);
    world.clock.advance(15_000);
    // Whoever is answered first says so, too.
    assert_eq!(asks(&one).await, (Reason::Accepted, None));
    listmill_tests::eventually("a crowd is let in", Duration::from_secs(30), || async {
        let found = check_all(&two, &addresses(5, "a.test")).await;
        found.iter().all(|f| f.verdict.reason == Reason::Accepted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_redis_each_process_keeps_the_pace_alone() {
    let mut redis = Redis::start().await;
    let world = World::with(paced(figures(60, MANY, 20))).await;
    let mx = world.mail("a.test", "127.0.0.1", full()).await;
    let away = world.engine_at(Some(&redis.url()));
    redis.stop();
    let list = addresses(10, "a.test");
    let found = tokio::join!(check_all(&away, &list), check_all(&world.engine, &list));
    assert_eq!((asked(&found.0), asked(&found.1)), (6, 6));
    assert_eq!(mx.recipients().len(), 12);
}

#[tokio::test]
async fn hosts_of_one_provider_share_its_figures() {
    let world = World::with(|config| {
        paced(figures(MANY, MANY, 20))(config);
        let figured = config.pace.as_mut().unwrap();
        let hosts = vec!["big.test".into()];
        let (name, figures) = ("big".into(), figures(30, MANY, 20));
        figured.together.push(Together { name, hosts, figures });
    })
    .await;
    let one = world.mail("a.big.test", "127.0.0.1", full()).await;
    let two = world.mail("b.big.test", "127.0.0.2", full()).await;
    let other = world.mail("bigger.test", "127.0.0.3", full()).await;
    let mut list = addresses(4, "a.big.test");
    list.extend(addresses(4, "b.big.test"));
    assert_eq!(asked(&check_all(&world.engine, &list).await), 3);
    assert_eq!(one.recipients().len() + two.recipients().len(), 3);
    assert_eq!(asked(&check_all(&world.engine, &addresses(40, "bigger.test")).await), 40);
    assert_eq!(other.recipients().len(), 40);
}

#[tokio::test]
async fn a_host_whose_pace_is_used_up_starves_nobody() {
    const SLOW: usize = 300;
    let world = World::with(|config| {
        paced(figures(MANY, MANY, 20))(config);
        config.timeout = Duration::from_secs(4);
        let (name, hosts) = ("slow".into(), vec!["slow.test".into()]);
        let figures = figures(60, MANY, 5);
        config.pace.as_mut().unwrap().together.push(Together { name, hosts, figures });
    })
    .await;
    let slow = world.mail("slow.test", "127.0.0.1", full()).await;
    let _fast = world.mail("fast.test", "127.0.0.2", full()).await;
    let mut list = addresses(SLOW, "slow.test");
    list.extend(addresses(20, "fast.test"));
    // As a worker does: so many at once, the slow ones first.
    let asks = &world;
    let found: Vec<(&String, Finding)> = futures::stream::iter(&list)
        .map(|address| async move { (address, asks.check(address).await) })
        .buffer_unordered(50)
        .collect()
        .await;
    let (last_fast, _) = found.iter().enumerate().rfind(|(_, f)| f.0.contains("fast")).unwrap();
    let waited = &found[last_fast + 1..];
    assert!((1..=16).contains(&waited.len()), "{} waited on", waited.len());
    assert!(found.iter().filter(|f| f.0.contains("fast")).all(|f| f.1.verdict.again_in.is_none()));
    assert_eq!(slow.recipients().len(), 6);
    // They come back one a second, not all at once.
    let latest = found.iter().filter_map(|f| f.1.verdict.again_in).max().unwrap();
    assert!(latest > Duration::from_secs(SLOW as u64 - 20), "{latest:?}");
    assert!(latest < Duration::from_secs(SLOW as u64 + 20), "{latest:?}");
}

#[tokio::test]
async fn connections_have_a_pace_of_their_own() {
    let world = World::with(|config| {
        paced(figures(MANY, 20, 20))(config);
        config.limits.recipients = 10;
    })
    .await;
    let mx = world.mail("a.test", "127.0.0.1", full()).await;
    // The twenty that two connections bear, whoever opened them.
    assert_eq!(asked(&check_all(&world.engine, &addresses(30, "a.test")).await), 20);
    assert_eq!(mx.connections(), 2);
    world.clock.advance(3_000);
    assert_eq!(asked(&check_all(&world.engine, &addresses(30, "a.test")).await), 10);
    assert_eq!(mx.connections(), 3);
}

#[tokio::test]
async fn connections_of_a_group_stay_within_its_permits_over_all_its_hosts() {
    let world = World::with(|config| {
        paced(figures(MANY, MANY, 3))(config);
        config.timeout = Duration::from_secs(4);
        let (name, hosts) = ("big".into(), vec!["big.test".into()]);
        let figures = figures(MANY, MANY, 3);
        config.pace.as_mut().unwrap().together.push(Together { name, hosts, figures });
    })
    .await;
    let mut servers = Vec::new();
    for host in 1..=4 {
        let (domain, ip) = (format!("d{host}.big.test"), format!("127.0.0.{host}"));
        servers.push(world.mail(&domain, &ip, full()).await);
    }
    for round in 0..3 {
        for host in 1..=4 {
            let list = addresses(6, &format!("d{host}.big.test"));
            assert_eq!(asked(&check_all(&world.engine, &list).await), 6, "{round} {host}");
            // In use and idle ones; those that say goodbye are gone long before idle ones would be.
            let open = || servers.iter().map(|server| server.open()).sum::<usize>();
            listmill_tests::eventually("few are open", Duration::from_secs(2), || async {
                (open() <= 3).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_host_that_says_421_is_left_alone_for_longer_and_longer() {
    let world = World::with(paced(figures(MANY, MANY, 20))).await;
    let busy = || Script::usual().with(|s| s.banner = say("421 4.7.0 too busy"));
    let mx = world.mails("a.test", "127.0.0.1", vec![busy(), busy(), Script::usual()]).await;
    for (connections, rest) in [(1, 5_000), (2, 15_000)] {
        let found = world.check("known@a.test").await.verdict;
        assert_eq!((found.reason, found.again_in), (Reason::SmtpUnavailable, None), "asked");
        for _ in 0..5 {
            let found = world.check("known@a.test").await.verdict;
            assert_eq!((found.reason, found.temporary), (Reason::SmtpUnavailable, true));
            assert_eq!(found.again_in, Some(Duration::from_millis(rest)), "left alone");
        }
        assert_eq!(mx.connections(), connections);
        world.clock.advance(rest as i64);
    }
    // Crowded out at first, one after the other is let in again.
    let found = check_all(&world.engine, &addresses(5, "a.test")).await;
    assert_eq!(found.iter().filter(|f| f.verdict.reason == Reason::Accepted).count(), 1);
    assert!(found.iter().filter(|f| is_put_off(f)).count() == 4);
    let found = check_all(&world.engine, &addresses(5, "a.test")).await;
    assert!(found.iter().all(|f| f.verdict.reason == Reason::Accepted), "{found:?}");
}

#[tokio::test]
async fn a_session_that_ends_with_421_is_no_reason_to_back_off() {
    let world = World::with(|config| {
        paced(figures(MANY, MANY, 20))(config);
        config.timeout = Duration::from_secs(4);
    })
    .await;
    let script = Script::new(|seen| match (seen.in_session, seen.local.starts_with("known")) {
        (4.., _) => vec![Act::Say("421 4.4.5 enough for one session".into()), Act::Drop],
        (_, true) => say("250 ok"),
        (_, false) => say("550 5.1.1 no"),
    });
    let _mx = world.mail("a.test", "127.0.0.1", script).await;
    for address in addresses(20, "a.test") {
        assert_eq!(world.reason(&address).await, (Reason::Accepted, false), "{address}");
    }
}
