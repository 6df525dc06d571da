//! Results by flag: the same as the whole list, filtered, whatever blocks say of their flags and however little time
//! there is.

use std::time::Duration;

use listmill_shared::domain::batch::After;
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::verdict::{Flag, Flags, Reason};
use listmill_shared::store::results::{Found, Part};
use listmill_tests::sql;

use super::world::{BATCH, World, findings, step};

super::on_both_engines!(a_flag_finds_what_has_it, little_time_is_enough_in_the_end);

/// Batches of the task.
const BATCHES: usize = 25;

/// What is known of an address: much of some, nothing of most; the first of batch 17 alone is disabled.
fn flags(seq: i64) -> Flags {
    Flags {
        role: (seq % 3 == 0).then_some(seq % 2 == 0),
        free: Some(seq % 7 == 0),
        catch_all: Some(false),
        disabled: (seq == 170).then_some(true),
        ..Flags::default()
    }
}

fn reason(seq: i64) -> Reason {
    if seq % 5 == 0 { Reason::NoMx } else { Reason::Accepted }
}

/// A task whose results are all there, some of them in pieces.
async fn task(world: &World) -> TaskId {
    world.grant(1_000).await;
    let task = world.people(BATCHES * BATCH).await;
    for no in 0..BATCHES as i32 {
        let mut lease = world.lease(task, no).await;
        let mut all = findings(&lease, reason);
        all.iter_mut().for_each(|finding| finding.verdict.flags = flags(finding.seq));
        if no % 4 == 0 {
            let first = all.drain(..4).collect();
            world.settle(world.number(), &[step(&lease, first, After::Keep)]).await;
            (0..4).for_each(|place| assert!(lease.done.insert(place)));
        }
        world.settle(world.number(), &[step(&lease, all, After::Release)]).await;
    }
    task
}

fn seqs(found: &[Found]) -> Vec<i64> {
    found.iter().map(|found| found.seq).collect()
}

fn filters() -> Vec<ResultFilter> {
    let mut filters = vec![ResultFilter::of_reasons([Reason::NoMx])];
    for flag in Flag::ALL {
        filters.push(ResultFilter { reasons: None, flag: Some(*flag) });
        filters.push(ResultFilter { reasons: Some(vec![Reason::NoMx]), flag: Some(*flag) });
    }
    filters
}

fn wanted(filter: &ResultFilter) -> Vec<i64> {
    let all = 0..(BATCHES * BATCH) as i64;
    all.filter(|seq| filter.fits(reason(*seq), flags(*seq))).collect()
}

async fn a_flag_finds_what_has_it(world: World) {
    let task = task(&world).await;
    let store = &world.app.store;
    assert_eq!(store.audit_task(task).await.expect("audit"), [""; 0]);
    // As it is; with blocks from before flags were counted among them; with none but such.
    for change in ["", " WHERE first_seq < 90", " WHERE first_seq >= 0"] {
        if !change.is_empty() {
            let change = format!("UPDATE result_blocks SET flags = NULL{change}");
            sql::execute(&world.url, &change).await;
        }
        for filter in filters() {
            let wanted = wanted(&filter);
            let found = store.results(task, -1, 1_000, Some(&filter)).await.expect("results");
            assert_eq!(seqs(&found), wanted, "{filter:?}{change}");
            let part = store.results_between(task, 33, 171, Some(&filter)).await.expect("part");
            let inside: Vec<i64> =
                wanted.into_iter().filter(|seq| (33..171).contains(seq)).collect();
            assert_eq!(seqs(&part), inside, "{filter:?}{change}");
        }
        assert_eq!(store.audit_task(task).await.expect("audit"), [""; 0]);
    }
    world.check_books().await;
}

async fn little_time_is_enough_in_the_end(world: World) {
    let task = task(&world).await;
    let store = &world.app.store;
    for filter in filters() {
        let (mut got, mut after, mut looks) = (Vec::new(), -1, 0);
        loop {
            let Part { found, looked } = store
                .results_in_time(task, after, 3, Some(&filter), Duration::ZERO)
                .await
                .expect("a part");
            got.extend(seqs(&found));
            let last = found.last().filter(|_| found.len() == 3).map(|last| last.seq);
            looks += 1;
            match last.or(looked) {
                Some(on) => {
                    assert!(on > after, "{filter:?}: it gets on");
                    after = on;
                }
                None => break,
            }
        }
        assert_eq!(got, wanted(&filter), "{filter:?}");
        assert!(looks <= 2 * BATCHES + got.len(), "{filter:?}: {looks}");
    }
}
