//! Whoever has to wait for a mail host waits once, in order: lists of one host's addresses, as long as
//! the host's pace makes them wait, through the product; and the line itself, through Redis.

use std::time::{Duration, Instant};

use futures::future::join_all;
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::throttle::line::Line;
use listmill_shared::throttle::pace::Pacer;
use listmill_tests::redis::Redis;
use listmill_tests::{Client, Deployment, Setup, Size, eventually, for_each_size};

use super::server::{Script, Server};
use super::world::World;

for_each_size!(
    each_is_written_once,
    a_long_line_is_not_written_again,
    cancel_and_pause_end_what_waits,
    a_worker_that_drains_waits_for_no_turn,
);

const LIMIT: Duration = Duration::from_secs(90);

/// An answer that costs one recipient: believed at once, and no random mailbox is asked about.
async fn host(world: &World) -> Server {
    world.mail("one.test", "127.0.0.1", Script::always("452 4.2.2 mailbox full")).await
}

async fn start(world: &World, size: Size, per_minute: u32) -> Deployment {
    let setup = Setup::new(size.with(1, 2)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", world.zone.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_PORT", world.port.to_string());
    let setup = setup.env("LISTMILL_SMTP_HOST_RECIPIENTS_PER_MINUTE", per_minute.to_string());
    setup.start().await
}

fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("known{i}@one.test")).collect()
}

/// How many addresses were written down as set aside, again and again ones each time.
async fn written(app: &Deployment) -> usize {
    let nodes = if app.size.is_scaled() { &app.workers } else { &app.apis };
    let counts = nodes.iter().map(|node| node.metric("listmill_set_aside_total"));
    join_all(counts).await.into_iter().flatten().sum::<f64>() as usize
}

/// Half a minute's addresses, and their host's pace is kept.
async fn each_is_written_once(size: Size) {
    const COUNT: usize = 1_500;
    let world = World::new().await;
    let mx = host(&world).await;
    let app = start(&world, size, 3_000).await;
    let customer = app.customer(COUNT as u64).await;
    let started = Instant::now();
    let id = customer.client.submit(&addresses(COUNT)).await.id;
    let done = |task: &listmill_tests::Task| task.status == "completed";
    let task = customer.client.wait_until(&id, "all are asked", LIMIT, done).await;
    let took = started.elapsed();
    assert_eq!(task.credits.charged, COUNT as u64);
    // A tenth of a minute's may be asked at once, and a block by each process.
    assert!(took > Duration::from_secs(21), "{took:?}");
    assert!(took < Duration::from_secs(60), "the host is used: {took:?}");
    let written = written(&app).await;
    println!("{took:?}, written {written}");
    assert!(written * 10 <= COUNT * 11, "{written} times written");
    assert_eq!(mx.recipients().len(), COUNT, "each is asked about once");
    app.finish().await;
}

/// Hours of one host's addresses: once all are in line, only those are written whose turn it is.
async fn a_long_line_is_not_written_again(size: Size) {
    const COUNT: usize = 20_000;
    const WATCHED: Duration = Duration::from_secs(20);
    let world = World::new().await;
    let mx = host(&world).await;
    let app = start(&world, size, 60).await;
    let customer = app.customer(COUNT as u64).await;
    let id = customer.client.submit(&addresses(COUNT)).await.id;
    // But for those that are asked, or wait for a turn that comes soon.
    let first = eventually("all are in line", LIMIT, || async {
        let written = written(&app).await;
        (written >= COUNT - 150).then_some(written)
    })
    .await;
    let asked = mx.recipients().len();
    let started = Instant::now();
    eventually("the time is over", WATCHED * 2, || async {
        (started.elapsed() > WATCHED).then_some(())
    })
    .await;
    let (then, asked) = (written(&app).await, mx.recipients().len() - asked);
    println!("written {first}, then {then}; asked {asked}");
    assert!(then <= COUNT, "{first}, and then {then} times written");
    assert!((12..=32).contains(&asked), "the host is used at its pace: {asked}");
    customer.client.cancel(&id).await;
    let task = customer.client.task(&id).await;
    assert_eq!(customer.client.balance().await, customer.granted - task.credits.charged);
    app.finish().await;
}

/// Waits until some of `id`'s addresses are done and the others wait.
async fn some_wait(client: &Client, id: &str) {
    let some = |task: &listmill_tests::Task| task.counts.processed >= 70;
    client.wait_until(id, "some are done", LIMIT, some).await;
    let held = client.task(id).await.credits.held;
    assert!(held > 0, "those that wait hold their credits");
}

async fn cancel_and_pause_end_what_waits(size: Size) {
    let world = World::new().await;
    let mx = host(&world).await;
    let app = start(&world, size, 600).await;
    let customer = app.customer(1_000).await;
    let client = &customer.client;
    let id = client.submit(&addresses(200)).await.id;
    some_wait(client, &id).await;
    client.pause(&id).await.expect(200);
    let soon = Duration::from_secs(5);
    client.wait_until(&id, "nothing is held", soon, |task| task.credits.held == 0).await;
    client.resume(&id).await.expect(200);
    let done = client.wait_until(&id, "all are asked", LIMIT, |t| t.status == "completed").await;
    assert_eq!((done.credits.charged, mx.recipients().len()), (200, 200));
    let id = client.submit(&addresses(300)).await.id;
    let more = |task: &listmill_tests::Task| task.counts.processed >= 20;
    client.wait_until(&id, "some are done", LIMIT, more).await;
    client.cancel(&id).await;
    let task = client.task(&id).await;
    assert_eq!((task.status.as_str(), task.credits.held), ("cancelled", 0));
    assert_eq!(client.balance().await, 800 - task.credits.charged);
    app.finish().await;
}

async fn a_worker_that_drains_waits_for_no_turn(size: Size) {
    let world = World::new().await;
    let mx = host(&world).await;
    let mut app = start(&world, size, 600).await;
    let customer = app.customer(1_000).await;
    let client = customer.client.clone().patient();
    let id = client.submit(&addresses(250)).await.id;
    some_wait(&client, &id).await;
    let nodes = if size.is_scaled() { &mut app.workers } else { &mut app.apis };
    for node in nodes {
        node.process.sigterm(Duration::from_secs(8)).await;
        node.process.start_again();
    }
    let done = client.wait_until(&id, "all are asked", LIMIT, |t| t.status == "completed").await;
    assert_eq!(done.credits.charged, 250);
    assert!(mx.recipients().len() >= 250);
    app.finish().await;
}

const INTERVAL: f64 = 10_000.0;

/// A process with a clock of its own, and its line.
fn process(redis: &Redis, clock: Clock) -> (Pacer, Line) {
    let pacer = Pacer::open(Some(&redis.url()), "test", clock, &Ids::system()).unwrap();
    // A busy machine is no Redis that is away.
    let pacer = pacer.patient(Duration::from_secs(10));
    let line = pacer.line("a");
    (pacer, line)
}

/// How far the line reaches, as Redis has it.
fn tail(redis: &Redis) -> Option<f64> {
    let value = redis.command("GET test:line:a").ok()?;
    value.lines().nth(1)?.split_whitespace().next()?.parse().ok()
}

#[tokio::test]
async fn processes_whose_clocks_differ_stand_in_one_line() {
    let redis = Redis::start().await;
    let clocks = [0, 3_600_000, -86_400_000].map(|s| Clock::manual(1_700_000_000_000 + s));
    let processes: Vec<_> = clocks.iter().map(|clock| process(&redis, clock.clone())).collect();
    let started = Instant::now();
    let ask = |at: usize| {
        let ((pacer, line), clock) = (&processes[at % 3], &clocks[at % 3]);
        async move {
            let turn = pacer.reserve(line, clock.now() + 5_000, INTERVAL).await;
            (turn - clock.now()) as f64 + started.elapsed().as_secs_f64() * 1_000.0
        }
    };
    let mut turns = join_all((0..300).map(ask)).await;
    turns.extend(join_all((0..301).map(ask)).await);
    turns.sort_by(f64::total_cmp);
    for (before, after) in turns.iter().zip(&turns[1..]) {
        let apart = after - before;
        assert!((apart - INTERVAL).abs() < INTERVAL / 2.0, "one turn each: {before} {after}");
    }
}

#[tokio::test]
async fn the_later_tail_wins_when_redis_is_back() {
    let mut redis = Redis::start().await;
    let clock = Clock::manual(1_700_000_000_000);
    let (one, line) = process(&redis, clock.clone());
    let (two, other) = process(&redis, clock.clone());
    let now = clock.now();
    for turn in 0..3_i64 {
        let found = one.reserve(&line, now, INTERVAL).await;
        assert!((found - now - turn * 10_000).abs() < 5_000, "{found}");
    }
    redis.stop();
    let alone = one.reserve(&line, now, INTERVAL).await;
    assert!(alone - now > 25_000, "what was known goes on: {alone}");
    redis.start_again().await;
    clock.advance(5_000);
    one.reserve(&line, clock.now(), INTERVAL).await;
    let known = tail(&redis).expect("Redis has learnt it again");
    let found = two.reserve(&other, clock.now(), INTERVAL).await;
    assert!(found - clock.now() > 35_000, "after all that were promised: {found}");
    assert!((tail(&redis).expect("a line") - known - INTERVAL).abs() < 0.01);
}
