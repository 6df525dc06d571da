//! Servers that do not play by the rules: each costs the address's budget at most.

use std::time::{Duration, Instant};

use listmill_shared::domain::verdict::Reason;

use super::server::{Act, Script, say};
use super::world::World;

const BUDGET: Duration = Duration::from_secs(1);

async fn check(script: Script) -> (Reason, bool, Duration) {
    let world = World::with(|c| c.timeout = BUDGET).await;
    let _mx = world.mail("a.test", "127.0.0.1", script).await;
    let started = Instant::now();
    let (reason, temporary) = world.reason("known@a.test").await;
    (reason, temporary, started.elapsed())
}

fn banner(acts: Vec<Act>) -> Script {
    Script::usual().with(|s| s.banner = acts)
}

#[tokio::test]
async fn costs_at_most_the_budget() {
    let drip = (0..500)
        .flat_map(|_| [Act::Raw(b"220-x\r\n".to_vec()), Act::Wait(Duration::from_millis(20))]);
    let slow: Vec<Act> = "220 mx\r\n"
        .bytes()
        .flat_map(|b| [Act::Raw(vec![b]), Act::Wait(Duration::from_millis(200))])
        .collect();
    for (name, script, reason) in [
        ("silent banner", banner(vec![Act::Hang]), Reason::Timeout),
        ("dripping banner", banner(drip.collect()), Reason::Timeout),
        ("slow banner", banner(slow), Reason::Timeout),
        ("10 MB banner", banner(vec![Act::Flood(10 << 20)]), Reason::SmtpUnavailable),
        (
            "10 MB of banner lines",
            banner(vec![Act::Raw(b"220-x\r\n".repeat(1_500_000))]),
            Reason::SmtpUnavailable,
        ),
        ("garbage banner", banner(say("HTTP/1.0 400 Bad Request")), Reason::SmtpUnavailable),
        (
            "binary banner",
            banner(vec![Act::Raw(vec![0; 100]), Act::Raw(b"\n".to_vec())]),
            Reason::SmtpUnavailable,
        ),
        ("hangs up at once", banner(vec![Act::Drop]), Reason::SmtpUnavailable),
        ("half-closed", banner(vec![Act::HalfClose, Act::Hang]), Reason::SmtpUnavailable),
        (
            "half-closed after banner",
            banner(vec![Act::Say("220 mx".into()), Act::HalfClose]),
            Reason::SmtpUnavailable,
        ),
        ("silent at RCPT", Script::new(|_| vec![Act::Hang]), Reason::Timeout),
        ("hangs up at RCPT", Script::new(|_| vec![Act::Drop]), Reason::SmtpUnavailable),
        ("garbage at RCPT", Script::always("yes?"), Reason::SmtpUnavailable),
        ("codes differ at RCPT", Script::always("250-yes\n550 no"), Reason::SmtpUnavailable),
        ("354 at RCPT", Script::always("354 go on"), Reason::SmtpUnavailable),
    ] {
        let (found, temporary, took) = check(script).await;
        assert_eq!((found, temporary), (reason, true), "{name}");
        assert!(took < BUDGET * 2, "{name}: {took:?}");
    }
}

#[tokio::test]
async fn slow_and_wordy_servers_are_understood() {
    let many: String = (0..200).map(|i| format!("550-5.1.1 line {i}\n")).collect();
    let many: &'static str = Box::leak(format!("{many}550 5.1.1 no such user").into_boxed_str());
    let late = vec![Act::Wait(Duration::from_millis(300)), Act::Say("220-a\n220-b\n220 c".into())];
    assert_eq!(check(banner(late)).await.0, Reason::Accepted);
    let world = World::new().await;
    let _mx = world.mail("a.test", "127.0.0.1", Script::always(many)).await;
    let found = world.check("kate@a.test").await;
    assert_eq!(found.verdict.reason, Reason::MailboxNotFound);
    let text = found.evidence.text.unwrap();
    assert_eq!(text.len(), 500);
    assert!(text.starts_with("550 5.1.1 line 0 / 5.1.1 line 1"));
}

#[tokio::test]
async fn a_random_mailbox_that_hangs_leaves_the_target_s_answer() {
    let script = Script::new(|seen| match seen.local {
        "known" => say("250 ok"),
        _ => vec![Act::Hang],
    });
    let world = World::with(|c| c.timeout = BUDGET).await;
    let _mx = world.mail("a.test", "127.0.0.1", script).await;
    let started = Instant::now();
    let verdict = world.check("known@a.test").await.verdict;
    assert_eq!((verdict.reason, verdict.flags.catch_all), (Reason::Accepted, None));
    assert!(started.elapsed() < BUDGET * 2, "it was not waited for again");
}
