//! Many askings, few calls: what is asked while a call is under way goes into the next one.
//!
//! Data: a bounded line of askings, and a few lanes that each take up to [`MOST`] of them at a time.
//!
//! Invariants:
//! - a call starts after everything in it was asked for: nobody gets an answer from before they asked;
//! - answers stand in the order of what was asked; where a call fails, each of its askers is told `None`;
//! - a call has the line to itself for [`ALONE`]; only behind a slow one does the next lane set out. The
//!   fewer calls there are at once, the more each one answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

/// Askings in one call.
pub const MOST: usize = 128;
/// Askings that may wait; more wait before they are taken up.
const WAITING: usize = 4_096;
/// See the module. A second call at once costs a quarter of what a gate can do.
const ALONE: Duration = Duration::from_millis(10);

/// An asking, and where its answer goes.
type Asked<Q, A> = (Q, oneshot::Sender<A>);

/// Gathers askings into few calls. What it has started ends when it is dropped.
pub struct Gather<Q, A>(mpsc::Sender<Asked<Q, A>>);

impl<Q, A> Gather<Q, A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    /// `lanes`: calls under way at once. `call` answers all askings, in their order; none = it failed, and
    /// has said so. It must end in bounded time.
    pub fn new<F>(lanes: usize, call: F) -> Self
    where
        F: Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>> + Send + Sync + 'static,
    {
        let (sender, receiver) = mpsc::channel(WAITING);
        let (receiver, call) = (Arc::new(Mutex::new(receiver)), Arc::new(call));
        for _ in 0..lanes {
            tokio::spawn(lane(receiver.clone(), call.clone()));
        }
        Self(sender)
    }

    /// The answer; `None` = the call failed.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (answer, wait) = oneshot::channel();
        self.0.send((question, answer)).await.ok()?;
        wait.await.ok()
    }
}

async fn lane<Q, A, F>(receiver: Arc<Mutex<mpsc::Receiver<Asked<Q, A>>>>, call: Arc<F>)
where
    F: Fn(Vec<Q>) -> BoxFuture<'static, Vec<A>>,
{
    let mut asked = Vec::with_capacity(MOST);
    loop {
        let mut turn = receiver.lock().await;
        if turn.recv_many(&mut asked, MOST).await == 0 {
            return;
        }
        // Whoever is ready to ask at this very moment comes along.
        tokio::task::yield_now().await;
        while asked.len() < MOST
            && let Ok(one) = turn.try_recv()
        {
            asked.push(one);
        }
        let (questions, askers): (Vec<Q>, Vec<oneshot::Sender<A>>) = asked.drain(..).unzip();
        // A panic is that call's own: its askers are told that it failed, and the lane goes on.
        let calling = AssertUnwindSafe(call(questions)).catch_unwind();
        let mut calling = Box::pin(calling.map(Result::unwrap_or_default));
        let quick = timeout(ALONE, &mut calling).await;
        drop(turn);
        let answers = match quick {
            Ok(answers) => answers,
            Err(_) => calling.await,
        };
        for (asker, answer) in askers.into_iter().zip(answers) {
            // Who has gone away needs no answer.
            let _ = asker.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Plain;

    use tokio::sync::Semaphore;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    /// Lets everything that is ready get on.
    async fn settle() {
        for _ in 0..1_000 {
            yield_now().await;
        }
    }

    fn spawn(gather: &Arc<Gather<u32, u32>>, question: u32) -> JoinHandle<Option<u32>> {
        let gather = gather.clone();
        tokio::spawn(async move { gather.ask(question).await })
    }

    #[tokio::test]
    async fn what_is_asked_during_a_call_goes_into_the_next() {
        let calls = Arc::new(Plain::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (seen, behind) = (calls.clone(), gate.clone());
        let gather = Arc::new(Gather::new(1, move |asked: Vec<u32>| {
            seen.lock().unwrap().push(asked.len());
            let behind = behind.clone();
            Box::pin(async move {
                behind.acquire().await.unwrap().forget();
                asked.into_iter().map(|n| n * 2).collect()
            })
        }));
        let mut asking = vec![spawn(&gather, 0)];
        settle().await;
        asking.extend((1..299).map(|n| spawn(&gather, n)));
        settle().await;
        gate.add_permits(4);
        for (n, asked) in asking.into_iter().enumerate() {
            assert_eq!(asked.await.unwrap(), Some(n as u32 * 2));
        }
        assert_eq!(*calls.lock().unwrap(), [1, 128, 128, 42]);
    }

    #[tokio::test]
    async fn a_call_that_panics_takes_no_lane_along() {
        let gather = Gather::new(1, |asked: Vec<u32>| {
            Box::pin(async move {
                assert_ne!(asked[0], 0, "on trial");
                asked
            })
        });
        assert_eq!(gather.ask(0).await, None);
        assert_eq!(gather.ask(1).await, Some(1));
    }

    #[tokio::test]
    async fn a_slow_call_holds_up_no_other_lane_and_a_failed_one_its_own_askers_only() {
        let gate = Arc::new(Semaphore::new(0));
        let behind = gate.clone();
        let gather = Arc::new(Gather::new(2, move |asked: Vec<u32>| {
            let behind = behind.clone();
            Box::pin(async move {
                if asked[0] != 0 {
                    return asked;
                }
                behind.acquire().await.unwrap().forget();
                Vec::new()
            })
        }));
        let slow = spawn(&gather, 0);
        settle().await;
        assert_eq!(gather.ask(1).await, Some(1));
        assert!(!slow.is_finished());
        gate.add_permits(1);
        assert_eq!(slow.await.unwrap(), None);
    }
}
