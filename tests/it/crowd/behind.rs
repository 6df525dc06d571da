//! Ten addresses of a newcomer behind a crowd: done within two seconds plus their own time, which is
//! what they take where nobody else is.
//!
//! One deployment takes all the crowds, one after the other. `LISTMILL_TEST_BIG=1` makes the longest
//! task one of 10,000,000 addresses.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use listmill_tests::{
    Client, Customer, Deployment, Size, Weight, eventually, for_each_size, lists,
};

use super::{AT_ONCE, LIMIT, disperse, steady, submit, submit_unpaid};

for_each_size!(ten_behind_any_crowd);

const TEN: usize = 10;
const MORE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// Who waits so long has failed; the cases after this one are looked at all the same.
const HOPELESS: Duration = Duration::from_secs(20);
const UNPAID: usize = 1_000;

/// One account's part of a crowd.
struct Member {
    client: Client,
    tasks: Vec<String>,
}

/// What was seen behind one crowd.
struct Seen {
    crowd: &'static str,
    wait: Option<Duration>,
    /// Addresses that the crowd still had to do afterwards.
    left: u64,
}

async fn ten_behind_any_crowd(size: Size) {
    let app = steady(size).weight(Weight::Heavy).start().await;
    let own = own_time(&app).await;
    let one = if std::env::var_os("LISTMILL_TEST_BIG").is_some() { 10_000_000 } else { 1_000_000 };
    let seen = [
        behind(&app, "one account's 20 tasks of 8,000", crowd(&app, 1, 20, 8_000).await).await,
        behind(&app, "one account's 300 tasks of 500", crowd(&app, 1, 300, 500).await).await,
        behind(&app, "40 accounts' task of 4,000 each", crowd(&app, 40, 1, 4_000).await).await,
        behind(&app, "1,000 paused tasks and a running one", paused(&app).await).await,
        behind(&app, "one huge task", crowd(&app, 1, 1, one).await).await,
    ];
    let mut report = format!("{size:?}: ten addresses take {own:.2?} by themselves\n");
    for case in &seen {
        let Seen { crowd, left, .. } = case;
        let wait = case.wait.map_or("in vain".to_owned(), |wait| format!("{wait:.2?}"));
        writeln!(report, "  behind {crowd}: {wait}; {left} left").expect("writes to memory");
    }
    eprintln!("{report}");
    for case in &seen {
        assert!(
            case.wait.is_some_and(|wait| wait < own + MORE),
            "{}: too late\n{report}",
            case.crowd
        );
        assert!(case.left > 0, "{}: nothing was tested, it had gone\n{report}", case.crowd);
    }
    app.finish().await;
}

/// What ten addresses take where nobody else is: the middle one of three times.
async fn own_time(app: &Deployment) -> Duration {
    let mut times = [Duration::ZERO; 3];
    for time in &mut times {
        let newcomer = app.customer(TEN as u64).await;
        *time = wait_for_ten(&newcomer).await.expect("nobody is in the way");
    }
    times.sort_unstable();
    times[1]
}

async fn crowd(app: &Deployment, accounts: usize, tasks: usize, each: u64) -> Vec<Member> {
    let mut members = Vec::new();
    let mut customers = Vec::new();
    for _ in 0..accounts {
        customers.push(app.customer(tasks as u64 * each).await);
    }
    for customer in customers {
        let tasks = submit(&customer.client, std::iter::repeat_n(each, tasks)).await;
        members.push(Member { client: customer.client, tasks });
    }
    members
}

/// Tasks that wait, half of them for credits and half as they were asked to; and one that runs.
async fn paused(app: &Deployment) -> Vec<Member> {
    let poor = app.customer(0).await;
    let tasks = submit_unpaid(app, &poor, UNPAID, 2).await;
    let asked = stream::iter(&tasks[..UNPAID / 2]).map(|id| async {
        poor.client.pause(id).await.expect(200);
    });
    asked.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let mut members = crowd(app, 1, 1, 200_000).await;
    members.push(Member { client: poor.client, tasks });
    members
}

/// Comes with ten addresses when the crowd is at work; then sends the crowd away.
async fn behind(app: &Deployment, name: &'static str, crowd: Vec<Member>) -> Seen {
    let newcomer = app.customer(TEN as u64).await;
    let busy = if app.size.is_scaled() { 300.0 } else { 150.0 };
    eventually("the crowd keeps the workers busy", LIMIT, || async {
        (app.inflight().await > busy).then_some(())
    })
    .await;
    let wait = wait_for_ten(&newcomer).await;
    let mut left = disperse(&crowd[0].client, &crowd[0].tasks).await;
    for member in &crowd[1..] {
        left += disperse(&member.client, &member.tasks).await;
    }
    eventually("the workers are free again", LIMIT, || async {
        (app.inflight().await < 1.0).then_some(())
    })
    .await;
    eprintln!("behind {name}: {wait:.2?}, {left} left");
    Seen { crowd: name, wait, left }
}

/// From before the first byte of the submission to the first answer that says `completed`.
async fn wait_for_ten(newcomer: &Customer) -> Option<Duration> {
    let start = Instant::now();
    let id = newcomer.client.submit(&lists::people(TEN)).await.id;
    while start.elapsed() < HOPELESS {
        let task = newcomer.client.task(&id).await;
        if task.status == "completed" {
            assert_eq!(task.credits.charged, TEN as u64);
            return Some(start.elapsed());
        }
        tokio::time::sleep(POLL).await;
    }
    newcomer.client.cancel(&id).await;
    None
}
