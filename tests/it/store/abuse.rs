//! Abuse protection on both engines: counts of writers at once are exact, one of many acts, what was done is undone
//! as a whole, thresholds are met to the one, what is old goes.

use std::time::Duration;

use futures::future::join_all;
use listmill_shared::app::App;
use listmill_shared::app::request_log::RequestLog;
use listmill_shared::domain::abuse::{Action, FORGOTTEN, MINUTE_MS, Rule, Seen};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::{Key, KeyHash, Suspension};
use listmill_shared::domain::request::{DAY_MS, Decision, HOUR_MS, Outcome};
use listmill_shared::queue::{MemoryQueue, Queue};
use listmill_shared::settings::Settings;
use listmill_shared::store::abuse::{Count, Question, Signal, Tally};
use listmill_shared::store::abuse_acts::{Acted, Finding, Subject};
use listmill_shared::store::audit_log::AuditFilter;
use listmill_shared::store::key_edits::Hashed;
use listmill_shared::store::key_networks::Uses;
use listmill_tests::{eventually, sql};

use super::on_both_engines;
use super::world::{START, World};

on_both_engines!(
    counts_of_writers_at_once_are_exact,
    one_of_many_acts,
    a_suspension_is_lifted_as_a_whole,
    shipped_thresholds_are_met_to_the_one,
    habits_are_broken_to_the_one,
    networks_of_a_key_are_bounded,
    nobody_waits_in_a_circle,
    what_is_old_goes,
);

const NETWORK: &str = "198.51.100.0/24";

/// The same database, as an API process with these settings has it.
fn with(world: &World, pairs: &[(&str, &str)]) -> App {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = Settings::load(None, pairs).expect("settings");
    let queue = Queue::Memory(MemoryQueue::default());
    let (store, clock, ids) =
        (world.app.store.clone(), world.app.clock.clone(), world.app.ids.clone());
    App::new(store, queue, clock, ids, settings)
}

async fn make_key(world: &World) -> Key {
    make_key_of(world, None).await
}

/// A key of this family, or the first of its own.
async fn make_key_of(world: &World, family: Option<KeyId>) -> Key {
    let id = KeyId::new(&world.app.ids, START);
    let mut key = Key::new(id, world.account, String::from("VECabcde"), String::from("k"), START);
    key.family = family.unwrap_or(id);
    let mut hash: KeyHash = [0; 32];
    hash[..16].copy_from_slice(id.0.as_bytes());
    let hashed = Hashed { hash: &hash, pepper: "p" };
    world.app.store.create_key(&key, hashed, &Origin::operator()).await.expect("a key");
    key
}

fn finding(world: &World, rule: Rule, subject: Subject) -> Finding<'static> {
    Finding {
        rule,
        subject,
        seen: Seen {
            counted: 50,
            requests: 60,
            first_at: START,
            last_at: START,
            ..Seen::default()
        },
        networks: vec![String::from(NETWORK)],
        dry: false,
        first: HOUR_MS,
        proxies: &[],
        id: world.app.ids.number(world.app.now()),
    }
}

fn done(acted: &Acted) -> Option<&Signal> {
    match acted {
        Acted::Done(signal) => Some(signal),
        _ => None,
    }
}

fn count(subject: &str, minute: i64, item: i64, requests: i64) -> Count {
    let (rule, subject) = (Rule::UnknownKeys, subject.to_owned());
    Count { rule, subject, minute, item, requests, first_at: minute + 1, last_at: minute + 2 }
}

async fn counts_of_writers_at_once_are_exact(world: World) {
    const WRITERS: i64 = 8;
    const ROUNDS: i64 = 20;
    let store = &world.app.store;
    let minute = START - START % MINUTE_MS;
    let adding = (0..WRITERS).map(|writer| async move {
        for round in 0..ROUNDS {
            let counts = vec![
                count("a", minute, 7, 1),
                count("a", minute, 100 + writer, 2),
                count("b", minute + round % 2 * MINUTE_MS, 0, 1),
            ];
            let mut tally = Tally { counts, uses: Vec::new() };
            tally.counts.sort();
            store.add_tally(&tally).await.expect("added");
        }
    });
    join_all(adding).await;
    let ask =
        |subject: &str, since| Question { rule: Rule::UnknownKeys, subject: subject.into(), since };
    let questions = [ask("a", minute - 1), ask("b", minute - 1), ask("c", 0)];
    let mut seen = store.seen_by_rules(&questions).await.expect("seen");
    seen.sort_by(|a, b| a.0.subject.cmp(&b.0.subject));
    assert_eq!(seen.len(), 2, "nobody has counted c");
    let (a, b) = (seen[0].1, seen[1].1);
    assert_eq!((a.counted, a.requests), (WRITERS + 1, 3 * WRITERS * ROUNDS), "items count once");
    assert_eq!((a.first_at, a.last_at, a.minutes), (minute + 1, minute + 2, 1));
    assert_eq!((b.counted, b.requests, b.minutes), (1, WRITERS * ROUNDS, 2));
    let later = store.seen_by_rules(&[ask("b", minute)]).await.expect("seen");
    assert_eq!(later[0].1.requests, WRITERS * ROUNDS / 2, "a minute later");
    store.forget_counts(Rule::UnknownKeys, "a").await.expect("forgotten");
    assert_eq!(store.seen_by_rules(&questions).await.expect("seen").len(), 1);
}

async fn one_of_many_acts(world: World) {
    let store = &world.app.store;
    let key = make_key(&world).await;
    for (rule, subject) in [
        (Rule::UnknownKeys, Subject::Network(NETWORK.to_owned())),
        (Rule::RateLimits, Subject::Key(key.id)),
    ] {
        let now = world.app.now();
        let acting = (0..6).map(|_| {
            let finding = finding(&world, rule, subject.clone());
            async move { store.act(&finding, now).await.expect("acted") }
        });
        let acted = join_all(acting).await;
        assert_eq!(acted.iter().filter_map(done).count(), 1, "{acted:?}");
    }
    let blocks = store.ip_blocks().await.expect("blocks");
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].ends_at, Some(START + HOUR_MS));
    assert!(blocks[0].holds(START + HOUR_MS - 1) && !blocks[0].holds(START + HOUR_MS));
    let suspended = store.key(key.id, None).await.expect("a look").expect("the key");
    let suspension = suspended.suspended.as_ref().expect("suspended");
    assert_eq!(suspension.reason, "Excessive rate-limit violations");
    assert_eq!(suspended.status(START + HOUR_MS), "active", "it ends by itself");
    let filter = AuditFilter { action: Some("key.suspend".into()), target: None };
    let audit = store.audit_page(world.account, &filter, None, 10).await.expect("audit");
    assert_eq!((audit.len(), audit[0].actor.as_str()), (1, "system"));

    // It lasts twice as long the next time, on whoever opens something by then.
    world.app.clock.advance(HOUR_MS);
    let now = world.app.now();
    let again = finding(&world, Rule::RateLimits, Subject::Key(key.id));
    let acted = store.act(&again, now).await.expect("acted");
    let signal = done(&acted).expect("done");
    assert_eq!((signal.strikes, signal.ends_at), (2, now + 2 * HOUR_MS));
    let other = finding(&world, Rule::Networks, Subject::Key(key.id));
    assert_eq!(store.act(&other, now).await.expect("acted"), Acted::Moot, "suspended already");

    // A dry run leaves everything as it is, but says so.
    let dry = Finding {
        dry: true,
        ..finding(&world, Rule::DeadKeys, Subject::Network("2001:db8::/64".into()))
    };
    let acted = store.act(&dry, now).await.expect("acted");
    assert_eq!(done(&acted).expect("done").action, Action::DryRun);
    assert_eq!(store.act(&dry, now).await.expect("acted"), Acted::Holds);
    assert_eq!(store.ip_blocks().await.expect("blocks").len(), 1);
    assert_eq!(store.signals(None, None, 10).await.expect("signals").len(), 4);
    // And what is ours is spared.
    let proxies = ["203.0.113.9/32".parse().expect("a network")];
    let spared = Finding {
        proxies: &proxies,
        ..finding(&world, Rule::DeadKeys, Subject::Network("203.0.113.0/24".into()))
    };
    let acted = store.act(&spared, now).await.expect("acted");
    let signal = done(&acted).expect("done");
    assert_eq!((signal.action, signal.strikes), (Action::Spared, 0), "that is no strike");
    assert_eq!(store.act(&spared, now).await.expect("acted"), Acted::Holds);
    assert_eq!(store.ip_blocks().await.expect("blocks").len(), 1);
    world.app.clock.advance(HOUR_MS);
    let found = finding(&world, Rule::DeadKeys, Subject::Network("203.0.113.0/24".into()));
    let acted = store.act(&found, world.app.now()).await.expect("acted");
    let signal = done(&acted).expect("done");
    assert_eq!((signal.action, signal.strikes), (Action::Blocked, 1), "it is no proxy any more");
}

fn uses(key: KeyId, network: String, at: i64) -> Uses {
    Uses { key, network, first_at: at, last_at: at, requests: 1, accepted: 1 }
}

async fn a_suspension_is_lifted_as_a_whole(world: World) {
    let store = &world.app.store;
    let (key, now) = (make_key(&world).await, world.app.now());
    let uses: Vec<Uses> =
        (10..40).map(|net| uses(key.id, format!("10.0.{net}.0/24"), now)).collect();
    let counts = vec![Count {
        rule: Rule::RateLimits,
        subject: key.id.to_string(),
        minute: now - now % MINUTE_MS,
        item: 0,
        requests: 5,
        first_at: now,
        last_at: now,
    }];
    store.add_tally(&Tally { counts, uses }).await.expect("added");
    let since = now - 10 * MINUTE_MS;
    let spread = || async { store.spreads(&[key.id], since, since).await.expect("spreads")[0] };
    assert_eq!((spread().await.active, spread().await.known), (30, 0));
    assert!(!spread().await.settled && spread().await.networks == 30);
    let finding = finding(&world, Rule::Networks, Subject::Key(key.id));
    let acted = store.act(&finding, now).await.expect("acted");
    let signal = done(&acted).expect("done").clone();
    assert_eq!((signal.account, signal.rule), (Some(world.account), Rule::Networks));

    // What was part of a signal is not known, however old it gets by itself.
    let late = now + DAY_MS;
    let later = store.spreads(&[key.id], late, late).await.expect("spreads")[0];
    assert_eq!((later.known, later.active, later.settled), (0, 0, true));
    let lifted = store.lift_suspension(key.id, &Origin::operator(), now).await.expect("lifted");
    let lifted = lifted.expect("the key");
    assert_eq!(lifted.signal, Some(signal));
    assert_eq!(lifted.strikes, [(Rule::Networks, 1)]);
    assert_eq!((lifted.counts, lifted.networks), (1, 30));
    assert_eq!((spread().await.active, spread().await.known), (30, 30));
    assert!(store.key(key.id, None).await.expect("a look").expect("the key").suspended.is_none());
    let acted = store.act(&finding, now).await;
    assert!(acted.is_err_and(|error| error.is_conflict()), "a signal's number is its own");

    // What an operator has done is no signal's.
    let suspension = Suspension { reason: "x".into(), until: None, note: None };
    let edit = |key: &mut Key| {
        key.suspended = Some(suspension);
        Ok::<_, ()>(())
    };
    let by = Origin::operator();
    let mark = listmill_shared::store::key_edits::Mark { action: "key.suspend", by: &by };
    store.edit_key(key.id, None, edit, mark, now).await.expect("suspended");
    let lifted = store.lift_suspension(key.id, &by, now).await.expect("lifted").expect("the key");
    assert_eq!(lifted.signal, None);
    assert!(lifted.keys.0.suspended.is_some() && lifted.keys.1.suspended.is_none());
}

fn decision(key: Option<&Key>, outcome: Outcome, ip: &str, at: i64) -> Decision {
    Decision {
        at,
        account: key.map(|key| key.account),
        key: key.map(|key| key.id),
        outcome,
        ip: Some(ip.parse().expect("an address")),
        route: "/v1/tasks".into(),
        method: "GET",
        status: 200,
        latency_us: 1,
        request_id: format!("r{at}"),
    }
}

/// Through the buffer, the writer and the rules, to the end; decision and number of the presented key.
async fn note(app: &App, decisions: impl IntoIterator<Item = (Decision, Option<i64>)>) {
    let (log, writer) = RequestLog::new(app);
    for (decision, print) in decisions {
        log.note_presented(decision, print);
    }
    let writing = tokio::spawn(writer.expect("the log is on").run());
    let limit = Duration::from_secs(60);
    eventually("all is judged", limit, || async { log.is_written().then_some(()) }).await;
    log.close();
    writing.await.expect("the writer ends");
    assert_eq!(log.lost(), 0);
}

/// With the settings as they are shipped, through the writer, with time that stands still or is moved on.
async fn shipped_thresholds_are_met_to_the_one(world: World) {
    let app = with(&world, &[]);
    let store = &app.store;
    let action = |rule: Rule| async move {
        let all = store.signals(None, None, 100).await.expect("signals");
        all.into_iter().find(|signal| signal.rule == rule).map(|signal| signal.counted)
    };

    let guess = |print| (decision(None, Outcome::Unknown, "198.51.100.7", START), Some(print));
    note(&app, (0..49).chain(0..49).map(guess)).await;
    assert_eq!(action(Rule::UnknownKeys).await, None);
    note(&app, [guess(49)]).await;
    assert_eq!(action(Rule::UnknownKeys).await, Some(50));

    let dead = make_key(&world).await;
    let tries = |number: usize| {
        (0..number).map(|_| (decision(Some(&dead), Outcome::Unknown, "203.0.113.7", START), None))
    };
    note(&app, tries(999)).await;
    assert_eq!(action(Rule::DeadKeys).await, None);
    note(&app, tries(1)).await;
    assert_eq!(action(Rule::DeadKeys).await, Some(1_000));

    // Rate limits: 199 over five minutes, or 300 within four of them, are not enough.
    let (steady, burst) = (make_key(&world).await, make_key(&world).await);
    let mut at = START;
    for minute in 0..=5 {
        at = START + minute * MINUTE_MS;
        let refused = |key| (decision(Some(key), Outcome::RateLimit, "192.0.2.1", at), None);
        note(&app, (0..33).map(|_| refused(&steady))).await;
        if minute < 4 {
            note(&app, (0..75).map(|_| refused(&burst))).await;
        }
        app.clock.advance(MINUTE_MS);
    }
    assert_eq!(action(Rule::RateLimits).await, None);
    let refused = |_| (decision(Some(&steady), Outcome::RateLimit, "192.0.2.1", at), None);
    note(&app, (0..2).map(refused)).await;
    assert_eq!(action(Rule::RateLimits).await, Some(200));
    let status = |key: KeyId| async move {
        store.key(key, None).await.expect("a look").expect("the key").status(START + 7 * MINUTE_MS)
    };
    assert_eq!(status(steady.id).await, "suspended");
    assert_eq!(status(burst.id).await, "active");
    assert_eq!(store.signals(None, None, 100).await.expect("signals").len(), 3);
}

/// A key of three networks may not have twenty at once; one of four may, and so may its rotation and a new key. With
/// the settings as they are shipped.
async fn habits_are_broken_to_the_one(world: World) {
    let app = with(&world, &[]);
    let store = &app.store;
    let found = || async {
        let all = store.signals(None, None, 100).await.expect("signals");
        all.iter().map(|signal| (signal.rule, signal.counted)).collect::<Vec<_>>()
    };
    let (few, many) = (make_key(&world).await, make_key(&world).await);
    let (rotated, new) = (make_key_of(&world, Some(many.family)).await, make_key(&world).await);
    let used = |key: &Key, net: i32, at| {
        (decision(Some(key), Outcome::Accepted, &format!("10.0.{net}.1"), at), None)
    };
    let now = app.now();
    note(&app, (0..3).map(|net| used(&few, net, now))).await;
    note(&app, (0..4).map(|net| used(&many, net, now))).await;
    app.clock.advance(DAY_MS - 1);
    let now = app.now();
    note(&app, (20..39).map(|net| used(&few, net, now))).await;
    for key in [&many, &rotated, &new] {
        note(&app, (20..60).map(|net| used(key, net, now))).await;
    }
    assert!(found().await.is_empty());
    note(&app, [used(&few, 39, now)]).await;
    assert!(found().await.is_empty(), "its first network is not a day old");
    // That is, to the millisecond; and everything above is judged again.
    app.clock.advance(1);
    let now = app.now();
    for key in [&many, &rotated, &new] {
        note(&app, (20..60).map(|net| used(key, net, now))).await;
    }
    assert!(found().await.is_empty());
    note(&app, [used(&few, 39, now)]).await;
    assert_eq!(found().await, [(Rule::Networks, 20)]);
    // Its own are in use; known are those of its family, each once.
    let spread = store.spreads(&[rotated.id], now - 1, now - DAY_MS).await.expect("spreads")[0];
    assert_eq!((spread.active, spread.networks), (40, 40));
    assert_eq!((spread.known, spread.settled), (4 + 40, true));
    let alive = |key: KeyId| async move {
        store.key(key, None).await.expect("a look").expect("the key").alive(now).is_ok()
    };
    assert!(!alive(few.id).await && alive(many.id).await);
    assert!(alive(rotated.id).await && alive(new.id).await);
}

async fn networks_of_a_key_are_bounded(world: World) {
    let app = with(&world, &[("LISTMILL_ABUSE_NETWORKS", "off")]);
    let key = make_key(&world).await;
    for part in 0..3_i64 {
        let used = (0..500_i64).map(|net| {
            let (at, net) = (START + part, part * 500 + net);
            let ip = format!("10.{}.{}.1", net / 250, net % 250);
            (decision(Some(&key), Outcome::Accepted, &ip, at), None)
        });
        note(&app, used).await;
    }
    let kept = app.store.key_networks(key.id, None, 10_000).await.expect("networks");
    assert_eq!(kept.len(), 1_000);
    assert!(kept.iter().all(|one| one.last_at > START), "the oldest went");
}

/// Those who add rows of a key meet those who change and remove them, again and again.
async fn nobody_waits_in_a_circle(world: World) {
    const ROUNDS: i64 = 25;
    let store = &world.app.store;
    let (key, now) = (make_key(&world).await, world.app.now());
    let minute = now - now % MINUTE_MS;
    let subject = key.id.to_string();
    let networks: Vec<String> = (100..160).map(|net| format!("10.0.{net}.0/24")).collect();
    // They came in another order than that of their text.
    for network in networks.iter().rev() {
        let uses = vec![uses(key.id, network.clone(), now)];
        store.add_tally(&Tally { counts: Vec::new(), uses }).await.expect("added");
    }
    let adding = (0..4).map(|_| async {
        for _ in 0..ROUNDS {
            let uses = networks.iter().map(|network| uses(key.id, network.clone(), now)).collect();
            let counts = (0..60).map(|item| count(&subject, minute, item, 1)).collect();
            store.add_tally(&Tally { counts, uses }).await.expect("added");
        }
    });
    let lifting = (0..2).map(|_| async {
        for _ in 0..ROUNDS {
            let lifted = store.lift_suspension(key.id, &Origin::operator(), now).await;
            assert_eq!(lifted.expect("lifted").expect("the key").networks, 60);
            store.forget_counts(Rule::UnknownKeys, &subject).await.expect("forgotten");
        }
    });
    tokio::join!(join_all(adding), join_all(lifting));
    let kept = store.key_networks(key.id, None, 100).await.expect("networks");
    assert_eq!(kept.len(), 60);
    assert!(kept.iter().all(|one| one.requests == 1 + 4 * ROUNDS), "{kept:?}");
}

async fn what_is_old_goes(world: World) {
    let (app, store) = (&world.app, &world.app.store);
    let key = make_key(&world).await;
    let minute = START - START % MINUTE_MS;
    let counts = vec![count("a", minute, 0, 1), count("a", minute + MINUTE_MS, 0, 1)];
    let uses = vec![uses(key.id, String::from("10.0.0.0/24"), START)];
    store.add_tally(&Tally { counts, uses }).await.expect("added");
    let found = finding(&world, Rule::DeadKeys, Subject::Network(NETWORK.into()));
    store.act(&found, START).await.expect("acted");
    let rows = |table: &'static str| {
        let url = world.url.clone();
        async move { sql::number(&url, &format!("SELECT count(*) FROM {table}")).await }
    };
    let left = || async {
        let mut left = Vec::new();
        for table in ["abuse_counts", "abuse_strikes", "abuse_signals", "ip_blocks", "key_networks"]
        {
            left.push(rows(table).await);
        }
        left
    };
    // Whoever keeps the list of blocks asks for this number.
    let version = || async {
        sql::number(&world.url, "SELECT value FROM versions WHERE name = 'ip_blocks'").await
    };
    let blocked = version().await;
    let budget = Duration::from_secs(60);
    app.expire_abuse(budget).await.expect("expired");
    assert_eq!(left().await, [2, 1, 1, 1, 1], "nothing is old");
    app.clock.advance(3 * HOUR_MS);
    app.expire_abuse(budget).await.expect("expired");
    assert_eq!(left().await, [0, 1, 1, 1, 1], "no rule looks back so far");
    assert_eq!(version().await, blocked);
    app.clock.advance(FORGOTTEN);
    app.expire_abuse(budget).await.expect("expired");
    assert_eq!(left().await, [0, 0, 1, 0, 1]);
    assert_eq!(version().await, blocked + 1, "the block's row is gone");
    app.clock.advance(400 * DAY_MS);
    app.expire_abuse(budget).await.expect("expired");
    assert_eq!(left().await, [0, 0, 0, 0, 0]);
}
