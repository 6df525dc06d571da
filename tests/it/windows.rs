//! Sliding windows over several processes ([`listmill_shared::throttle::windows`]): the script does
//! what the Rust does, no window is exceeded, and a Redis that is away stops nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use listmill_shared::domain::clock::Clock;
use listmill_shared::queue::RedisQueue;
use listmill_shared::throttle::windows::{Standing, Window, Windows};
use listmill_tests::eventually;
use listmill_tests::redis::Redis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What one process has; a busy machine is no Redis that is away, unless a test is about that.
fn process(redis: &Redis) -> Windows {
    let queue = RedisQueue::open(&redis.url(), "test").expect("a URL");
    Windows::new(Some(queue))
}

/// What a limit is asked, and by how much the clock has moved since the last call.
#[derive(Debug, Clone)]
struct Call {
    pause: i64,
    asked: Vec<(usize, u32, u32)>,
}

/// Longer than the test: rows expire in real time.
const LENGTHS: [u32; 3] = [600_000, 3_600_000, 2_678_400_000];
const NAMES: [&str; 3] = ["requests", "{a} name", "ü"];

fn call() -> impl Strategy<Value = Call> {
    let pause = prop_oneof![
        4 => Just(0_i64),
        8 => 0_i64..60_000,
        2 => 0_i64..900_000,
        1 => -2_000_000_i64..0,
        1 => Just(40 * 86_400_000_i64),
    ];
    let limit = prop_oneof![Just(7_u32), Just(200), Just(u32::MAX)];
    let cost = prop_oneof![1 => Just(0_u32), 6 => Just(1), 2 => 1_u32..50, 1 => Just(u32::MAX)];
    let asked = proptest::collection::vec((0..NAMES.len(), limit, cost), 1..4);
    (pause, asked).prop_map(|(pause, asked)| Call { pause, asked })
}

#[test]
fn the_script_says_what_the_rust_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(Redis::start());
    let _inside = runtime.enter();
    let there = process(&redis).patient(Duration::from_secs(10)).by_callers_clock();
    let here = Windows::new(None);
    let mut runner = TestRunner::new(Config::with_cases(60));
    let cases = (0..LENGTHS.len(), proptest::collection::vec(call(), 1..150));
    let owner = AtomicU64::new(1);
    let counted = AtomicU64::new(0);
    runner
        .run(&cases, |(length, calls)| {
            let owner = owner.fetch_add(1, Ordering::Relaxed).into();
            let mut now = 1_700_000_000_000;
            for Call { pause, asked } in calls {
                now += pause;
                let window = |(name, limit, cost): &(usize, u32, u32)| Window {
                    name: NAMES[*name],
                    limit: *limit,
                    window_ms: LENGTHS[(length + name) % LENGTHS.len()],
                    cost: *cost,
                };
                let limits: Vec<Window<'_>> = asked.iter().map(window).collect();
                let both = async {
                    tokio::join!(there.take(owner, &limits, now), here.take(owner, &limits, now))
                };
                let (there, here): (Vec<Standing>, Vec<Standing>) = runtime.block_on(both);
                prop_assert_eq!(&there, &here, "{:?}", limits);
                counted.fetch_add(u64::from(!there[0].exceeded), Ordering::Relaxed);
            }
            Ok(())
        })
        .unwrap();
    assert!(redis.calls("evalsha") > 1_000, "Redis was asked");
    assert!(counted.into_inner() > 1_000, "some passed");
}

#[tokio::test]
async fn a_call_is_one_round_trip_and_its_keys_expire() {
    let redis = Redis::start().await;
    let windows = process(&redis).patient(Duration::from_secs(10));
    let names: Vec<String> = (0..5).map(|i| format!("limit{i}")).collect();
    let window = |name| Window { name, limit: 1_000, window_ms: 1_000, cost: 1 };
    let limits: Vec<Window<'_>> = names.iter().map(|name| window(name.as_str())).collect();
    windows.take(7, &limits, 0).await;
    redis.command("CONFIG RESETSTAT").expect("Redis answers");
    for _ in 0..50 {
        assert!(windows.take(7, &limits, 0).await.iter().all(|standing| !standing.exceeded));
    }
    assert_eq!(redis.calls("evalsha"), 50);
    assert_eq!(redis.calls("eval") + redis.calls("script|load"), 0);
    let size = redis.command("DBSIZE").expect("Redis answers");
    assert!(size.starts_with(":5\r\n"), "{size}");
    eventually("the keys expire", Duration::from_secs(10), || async {
        redis.command("DBSIZE").ok().filter(|size| size.starts_with(":0\r\n"))
    })
    .await;
}

/// A crowd that names many limits each does not keep Redis from everybody else by one long call.
#[tokio::test]
async fn a_call_is_bounded_in_rows() {
    const CROWD: u64 = 60;
    let redis = Redis::start().await;
    let windows = process(&redis).patient(Duration::from_secs(10));
    let names: Vec<String> = (0..50).map(|i| format!("limit{i}")).collect();
    let window = |name| Window { name, limit: 1_000, window_ms: 60_000, cost: 1 };
    let limits: Vec<Window<'_>> = names.iter().map(|name| window(name.as_str())).collect();
    windows.take(0, &limits, 0).await;
    redis.command("CONFIG RESETSTAT").expect("Redis answers");
    let crowd = (0..CROWD).map(|owner| windows.take(owner.into(), &limits, 0));
    for told in futures::future::join_all(crowd).await {
        assert!(told.len() == limits.len() && told.iter().all(|one| !one.exceeded));
    }
    // Two of them fill a call.
    assert!(redis.calls("evalsha") >= CROWD / 2, "{} calls", redis.calls("evalsha"));
}

#[tokio::test]
async fn a_row_stays_small() {
    let redis = Redis::start().await;
    let windows = process(&redis).patient(Duration::from_secs(10)).by_callers_clock();
    let window = Window { name: "a", limit: 100_000, window_ms: 600_000, cost: 7 };
    let start = 1_700_000_000_000;
    for use_ in 0..20_000 {
        windows.take(1, &[window], start + use_ * 41).await;
    }
    let key = format!("test:window:{{{:032x}}}:600000:a", 1);
    let length = redis.command(&format!("LLEN {key}")).expect("Redis answers");
    let length: usize = length.trim_start_matches(':').trim().parse().expect("a length");
    assert!((60..=130).contains(&length), "{length} parts");
    let bytes = redis.command(&format!("MEMORY USAGE {key}")).expect("Redis answers");
    let bytes: usize = bytes.trim_start_matches(':').trim().parse().expect("bytes");
    assert!(bytes < 8_192, "{bytes} bytes");
}

/// A use that passed: it was counted at some time between these.
struct Passed {
    asked: Instant,
    answered: Instant,
}

/// Three processes, 64 tasks that ask all the time.
async fn crowd(redis: &Redis, limit: u32, window_ms: u32, lasts: Duration) -> Vec<Passed> {
    let processes: Vec<Arc<Windows>> =
        (0..3).map(|_| Arc::new(process(redis).patient(Duration::from_secs(10)))).collect();
    let clock = Clock::system();
    let end = Instant::now() + lasts;
    let tasks = (0..64).map(|task| {
        let (windows, clock) = (processes[task % 3].clone(), clock.clone());
        tokio::spawn(async move {
            let window = Window { name: "requests", limit, window_ms, cost: 1 };
            let mut passed = Vec::new();
            while Instant::now() < end {
                let asked = Instant::now();
                let told = windows.take(42, &[window], clock.now()).await;
                if !told[0].exceeded {
                    passed.push(Passed { asked, answered: Instant::now() });
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            passed
        })
    });
    let mut passed = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        passed.extend(task.await.expect("a task"));
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_let_no_more_pass_than_the_limit_in_any_window() {
    const LIMIT: u32 = 100;
    const WINDOW: u32 = 2_000;
    let redis = Redis::start().await;
    let windows = 4;
    // Half a window more: the last one is over before the crowd is.
    let lasts = Duration::from_millis(u64::from(WINDOW) * windows + u64::from(WINDOW) / 2);
    let mut passed = crowd(&redis, LIMIT, WINDOW, lasts).await;
    passed.sort_by_key(|one| one.asked);
    let length = Duration::from_millis(WINDOW.into());
    for first in &passed {
        let end = first.asked + length;
        let inside = passed.iter().filter(|one| one.asked >= first.asked && one.answered <= end);
        let inside = inside.count();
        assert!(inside <= LIMIT as usize, "{inside} passed within {WINDOW} ms");
    }
    // A log of every use would have let the whole limit pass once a window, and at the start.
    let by_log = (windows + 1) * u64::from(LIMIT);
    let passed = passed.len() as u64;
    assert!(passed * 100 >= by_log * 95 && passed <= by_log, "{passed} of {by_log}");
}

/// How many of `asks` pass, and how long the slowest took.
async fn burst(windows: &Windows, owner: u128, limit: u32, asks: u32) -> (u32, Duration) {
    let window = Window { name: "requests", limit, window_ms: 600_000, cost: 1 };
    let clock = Clock::system();
    let (mut passed, mut slowest) = (0, Duration::ZERO);
    for _ in 0..asks {
        let start = Instant::now();
        let told = windows.take(owner, &[window], clock.now()).await;
        slowest = slowest.max(start.elapsed());
        passed += u32::from(!told[0].exceeded);
    }
    (passed, slowest)
}

/// What one process uses up is used up for the others: Redis judges.
async fn until_shared(processes: &[Windows], first_owner: u128) {
    let owner = AtomicU64::new(0);
    eventually("Redis judges for all", Duration::from_secs(20), async || {
        let owner = first_owner + u128::from(owner.fetch_add(1, Ordering::Relaxed));
        let mut passed = 0;
        for windows in processes {
            passed += burst(windows, owner, 5, 6).await.0;
        }
        (passed == 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_judges_alone_and_comes_back() {
    let mut redis = Redis::start().await;
    let processes: Vec<Windows> = (0..3).map(|_| process(&redis)).collect();
    until_shared(&processes, 1_000_000).await;

    // It hangs.
    redis.stall();
    for windows in &processes {
        let (passed, slowest) = burst(windows, 1, 20, 60).await;
        assert_eq!(passed, 20, "the limit holds in each");
        assert!(slowest < Duration::from_millis(1_500), "{slowest:?}");
    }
    redis.resume();
    until_shared(&processes, 2_000_000).await;

    // It is gone, and comes back empty.
    redis.stop();
    for windows in &processes {
        let (passed, slowest) = burst(windows, 2, 20, 60).await;
        assert_eq!(passed, 20);
        assert!(slowest < Duration::from_millis(1_500), "{slowest:?}");
    }
    redis.start_again().await;
    until_shared(&processes, 3_000_000).await;
}
