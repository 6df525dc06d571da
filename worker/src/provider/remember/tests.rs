use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::join_all;
use listmill_shared::domain::verdict::Reason;
use tokio::sync::Semaphore;

use super::*;

/// Answers one question for each permit, and says how often it was asked.
struct Scripted {
    asked: AtomicUsize,
    answers: Semaphore,
    verdict: Mutex<Verdict>,
}

impl Scripted {
    fn new(verdict: Verdict) -> Arc<Self> {
        let verdict = Mutex::new(verdict);
        Arc::new(Self { asked: AtomicUsize::new(0), answers: Semaphore::new(0), verdict })
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

impl Provider for Scripted {
    fn verify<'a>(&'a self, _address: &'a str, _attempt: i16) -> BoxFuture<'a, Verdict> {
        async move {
            self.asked.fetch_add(1, SeqCst);
            self.answers.acquire().await.unwrap().forget();
            self.verdict.lock().unwrap().clone()
        }
        .boxed()
    }

    fn name(&self) -> &'static str {
        "scripted"
    }
}

fn accepted() -> Verdict {
    Verdict { detail: Some("{\"code\":250}".into()), ..Verdict::of(Reason::Accepted) }
}

fn remember(provider: &Arc<Scripted>, age: u64, clock: &Clock) -> Arc<Remember> {
    Arc::new(Remember::new(provider.clone(), Duration::from_secs(age), clock.clone()))
}

#[tokio::test]
async fn the_same_address_is_asked_about_once_at_a_time() {
    let provider = Scripted::new(accepted());
    let all = remember(&provider, 0, &Clock::manual(0));
    let mut asking = Box::pin(join_all((0..5).map(|_| all.verify("a@x.test", 1))));
    assert!(futures::poll!(&mut asking).is_pending());
    assert_eq!(provider.asked(), 1);
    let mut other = Box::pin(all.verify("b@x.test", 1));
    assert!(futures::poll!(&mut other).is_pending());
    assert_eq!(provider.asked(), 2);
    provider.answers.add_permits(2);
    assert_eq!(asking.await, vec![accepted(); 5]);
    other.await;
    assert_eq!(provider.asked(), 2);
    // Nothing is kept: who comes later asks anew.
    assert!(all.under_way.lock().unwrap().is_empty());
    provider.answers.add_permits(1);
    assert_eq!(all.verify("a@x.test", 1).await, accepted());
    assert_eq!(provider.asked(), 3);
}

#[tokio::test]
async fn when_the_one_who_asks_goes_away_the_next_asks() {
    let provider = Scripted::new(accepted());
    let all = remember(&provider, 0, &Clock::manual(0));
    let mut first = all.verify("a@x.test", 1);
    let mut second = all.verify("a@x.test", 1);
    let mut third = all.verify("a@x.test", 1);
    for waiting in [&mut first, &mut second, &mut third] {
        assert!(futures::poll!(waiting).is_pending());
    }
    assert_eq!(provider.asked(), 1);
    drop(first);
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(provider.asked(), 2);
    drop(third);
    provider.answers.add_permits(1);
    assert_eq!(second.await, accepted());
    assert_eq!(provider.asked(), 2);
    assert!(all.under_way.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_question_that_everybody_dropped_is_forgotten() {
    let provider = Scripted::new(accepted());
    let all = remember(&provider, 0, &Clock::manual(0));
    let mut asking: Vec<_> = (0..3).map(|_| all.verify("a@x.test", 1)).collect();
    for waiting in &mut asking {
        assert!(futures::poll!(waiting).is_pending());
    }
    drop(asking);
    assert!(all.under_way.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_whoever_comes_and_goes() {
    let provider = Scripted::new(accepted());
    provider.answers.add_permits(1_000_000);
    let all = remember(&provider, 0, &Clock::manual(0));
    let tasks = (0..8).map(|task| {
        let all = all.clone();
        tokio::spawn(async move {
            for round in 0..500 {
                let address = format!("{}@x.test", (round + task) % 7);
                let mut asking = all.verify(&address, 1);
                if (round + task) % 3 == 0 {
                    let _ = futures::poll!(&mut asking);
                    tokio::task::yield_now().await;
                } else {
                    assert_eq!(asking.await, accepted());
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert!(all.under_way.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_kept_verdict_says_when_it_was_found_and_grows_old() {
    let provider = Scripted::new(accepted());
    provider.answers.add_permits(3);
    let clock = Clock::manual(1_700_000_000_000);
    let all = remember(&provider, 3600, &clock);
    assert_eq!(all.verify("a@x.test", 1).await, accepted());
    clock.advance(3_599_999);
    let kept = all.verify("a@x.test", 1).await;
    let detail = r#"{"remembered_from":"2023-11-14T22:13:20.000Z","evidence":{"code":250}}"#;
    assert_eq!(kept, Verdict { detail: Some(detail.into()), ..accepted() });
    assert_eq!(kept.reason.credit(), accepted().reason.credit());
    assert_eq!(provider.asked(), 1);
    clock.advance(1);
    assert_eq!(all.verify("a@x.test", 1).await, accepted());
    assert_eq!(provider.asked(), 2);
    // The local part's case matters.
    assert_eq!(all.verify("A@x.test", 1).await, accepted());
    assert_eq!(provider.asked(), 3);
}

#[tokio::test]
async fn what_is_not_definitive_is_never_kept() {
    for verdict in [
        Verdict::of(Reason::Timeout),
        Verdict { temporary: true, ..Verdict::of(Reason::Greylisted) },
        Verdict { temporary: true, ..Verdict::of(Reason::MailboxFull) },
    ] {
        let provider = Scripted::new(verdict.clone());
        provider.answers.add_permits(2);
        let all = remember(&provider, 3600, &Clock::manual(0));
        assert_eq!(all.verify("a@x.test", 1).await, verdict);
        assert_eq!(all.verify("a@x.test", 1).await, verdict);
        assert_eq!(provider.asked(), 2);
    }
}
