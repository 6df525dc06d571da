//! Two accounts with endless work: each gets its part, however many tasks it has.
//!
//! `LISTMILL_TEST_FAIR_SECONDS` says for how long they are watched (20).

use std::time::{Duration, Instant};

use futures::future::join_all;
use listmill_tests::{Customer, Deployment, Setup, Size, Weight, eventually, for_each_size};

use super::{LIMIT, disperse, most_a_second, steady, submit};

for_each_size!(equal_accounts_share_equally, weights_divide_the_work);

/// One account's work, and how much of it was done when the watch began.
struct Worked {
    customer: Customer,
    tasks: Vec<String>,
    before: u64,
}

impl Worked {
    /// Enough for the whole time, even if it got everything, in so many tasks.
    async fn start(app: &Deployment, tasks: u64, weight: Option<u32>) -> Self {
        // Besides the time of the watch there is that before it.
        let enough = most_a_second(app.size) * (seconds() + 8);
        let customer = app.customer(enough).await;
        if let Some(weight) = weight {
            app.weigh(&customer.account, weight).await;
        }
        let lengths = std::iter::repeat_n(enough / tasks, usize::try_from(tasks).expect("few"));
        let tasks = submit(&customer.client, lengths).await;
        Self { customer, tasks, before: 0 }
    }

    async fn processed(&self) -> u64 {
        let polls = self.tasks.iter().map(|id| self.customer.client.task(id));
        join_all(polls).await.iter().map(|task| task.counts.processed).sum()
    }

    async fn end(self) {
        let left = disperse(&self.customer.client, &self.tasks).await;
        assert!(left > 0, "its work was not endless");
    }
}

fn seconds() -> u64 {
    std::env::var("LISTMILL_TEST_FAIR_SECONDS")
        .map_or(20, |text| text.parse().expect("LISTMILL_TEST_FAIR_SECONDS is a number"))
}

fn setup(size: Size) -> Setup {
    steady(size).weight(Weight::Middle)
}

/// What each of the two got done in the same time.
async fn watch(one: &mut Worked, other: &mut Worked) -> (f64, f64) {
    let (first, second) = (&*one, &*other);
    eventually("both are at work", LIMIT, || async move {
        let (a, b) = tokio::join!(first.processed(), second.processed());
        // What the first had out before the other came has ended by then.
        (a > 0 && b > 10_000).then_some(())
    })
    .await;
    (one.before, other.before) = tokio::join!(one.processed(), other.processed());
    let start = Instant::now();
    // The span itself is what is measured here, not a wait for something.
    tokio::time::sleep(Duration::from_secs(seconds())).await;
    let (a, b) = tokio::join!(one.processed(), other.processed());
    let (a, b) = (a - one.before, b - other.before);
    eprintln!("in {:.1?}: {a} and {b} addresses, 1 : {:.3}", start.elapsed(), b as f64 / a as f64);
    (a as f64, b as f64)
}

/// One has a single task, the other ten.
async fn equal_accounts_share_equally(size: Size) {
    let app = setup(size).start().await;
    let mut one = Worked::start(&app, 1, None).await;
    let mut other = Worked::start(&app, 10, None).await;
    let (a, b) = watch(&mut one, &mut other).await;
    assert!((a - b).abs() / a.max(b) < 0.1, "{a} and {b} differ by a tenth or more");
    one.end().await;
    other.end().await;
    app.finish().await;
}

async fn weights_divide_the_work(size: Size) {
    let app = setup(size).start().await;
    let mut one = Worked::start(&app, 4, Some(1)).await;
    let mut other = Worked::start(&app, 4, Some(3)).await;
    let (a, b) = watch(&mut one, &mut other).await;
    assert!((b / a - 3.0).abs() < 3.0 * 0.15, "{a} and {b} are not one to three");
    one.end().await;
    other.end().await;
    app.finish().await;
}
