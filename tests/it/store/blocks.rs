//! Results in blocks: pieces, merged blocks, pages over both, and the audit that finds what is wrong.

use std::time::Duration;

use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::batch::{After, BatchRef, Lease};
use listmill_shared::domain::id::TaskId;
use listmill_shared::domain::result_filter::ResultFilter;
use listmill_shared::domain::verdict::{Flags, Reason};
use listmill_shared::store::control::Changed;
use listmill_shared::store::results::Found;
use listmill_tests::sql;

use super::world::{BATCH, World, findings, step};

super::on_both_engines!(
    pieces_are_read_like_a_whole_and_merged,
    pages_and_filters_meet_the_same_results,
    no_address_gets_a_second_result,
    the_audit_finds_what_is_wrong,
    an_erased_task_leaves_no_block,
    an_erasure_goes_on_where_it_stopped,
);

/// Settles a lease in pieces: every third address, then the next ones, then the rest.
async fn in_pieces(world: &World, mut lease: Lease, reason: impl Fn(i64) -> Reason) -> BatchRef {
    for turn in 0..3 {
        let mut found = findings(&lease, &reason);
        found.retain(|finding| finding.seq % 3 == turn);
        // Found in another order than they stand in the list.
        found.reverse();
        let after = if turn == 2 { After::Release } else { After::Keep };
        let piece = step(&lease, found, after);
        for finding in &piece.findings {
            lease.done.insert((finding.seq - lease.first_seq) as usize);
        }
        let number = world.number();
        let settled = world.settle(number, std::slice::from_ref(&piece)).await;
        assert_eq!(settled.pieces.len(), usize::from(turn == 2));
    }
    lease.batch
}

async fn blocks(world: &World, task: TaskId) -> i64 {
    stored(world, "result_blocks", task).await
}

/// A task's rows of one table.
async fn stored(world: &World, table: &str, task: TaskId) -> i64 {
    let id = task.0.simple();
    let of = match world.url.starts_with("sqlite:") {
        true => format!("lower(hex(task_id)) = '{id}'"),
        false => format!("replace(task_id::text, '-', '') = '{id}'"),
    };
    let query = format!("SELECT count(*) FROM {table} WHERE {of}");
    sql::number(&world.url, &query).await
}

async fn all(world: &World, task: TaskId) -> Vec<Found> {
    world.app.store.results(task, -1, 10_000, None).await.expect("results")
}

fn seqs(found: &[Found]) -> Vec<i64> {
    found.iter().map(|found| found.seq).collect()
}

async fn pieces_are_read_like_a_whole_and_merged(world: World) {
    world.grant(100).await;
    let task = world.people(2 * BATCH).await;
    let first = in_pieces(&world, world.lease(task, 0).await, |_| Reason::Accepted).await;
    assert_eq!(blocks(&world, task).await, 3);
    let before = all(&world, task).await;
    assert_eq!(seqs(&before), (0..10).collect::<Vec<_>>());
    assert_eq!(before[7].address, "person7@example.com");
    world.app.store.merge_blocks(&[first]).await.expect("merge");
    assert_eq!(blocks(&world, task).await, 1);
    assert_eq!(format!("{:?}", all(&world, task).await), format!("{before:?}"));
    // One that is not done is left alone; so is one that was merged before.
    let open = BatchRef { task, no: 1 };
    world.app.store.merge_blocks(&[first, open]).await.expect("merge");
    assert_eq!(blocks(&world, task).await, 1);
    assert_eq!(world.app.store.audit_task(task).await.expect("audit"), [""; 0]);
    world.check_books().await;
}

async fn pages_and_filters_meet_the_same_results(world: World) {
    world.grant(1_000).await;
    let count = 23 * BATCH;
    let task = world.people(count).await;
    let reason = |seq: i64| match seq % 50 {
        7 => Reason::MailboxNotFound,
        9 => Reason::Timeout,
        _ => Reason::Accepted,
    };
    for no in [3, 0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22] {
        let lease = world.lease(task, no).await;
        if no % 4 == 0 {
            in_pieces(&world, lease, reason).await;
        } else {
            world.finish_with(&lease, reason).await;
        }
    }
    // Batch 7 has nothing yet, then some of its first addresses.
    let store = &world.app.store;
    assert_eq!(store.first_gap(task).await.expect("gap"), 70);
    let lease = world.lease(task, 7).await;
    let some = findings(&lease, reason)[..4].to_vec();
    world.settle(world.number(), &[step(&lease, some, After::Keep)]).await;
    assert_eq!(store.first_gap(task).await.expect("gap"), 74);
    let stored: Vec<i64> = (0..count as i64).filter(|seq| !(74..80).contains(seq)).collect();
    assert_eq!(seqs(&all(&world, task).await), stored);
    for limit in [1, 7, 10, 100, 1_000] {
        for filter in [
            None,
            Some(vec![Reason::MailboxNotFound]),
            Some(vec![Reason::Timeout, Reason::Accepted]),
        ] {
            let filter = filter.map(ResultFilter::of_reasons);
            let wanted: Vec<i64> = stored
                .iter()
                .copied()
                .filter(|seq| {
                    filter.as_ref().is_none_or(|f| f.fits(reason(*seq), Flags::default()))
                })
                .collect();
            let (mut got, mut after) = (Vec::new(), -1);
            loop {
                let page = store.results(task, after, limit, filter.as_ref()).await.expect("page");
                let Some(last) = page.last() else { break };
                assert!(page.len() as i64 <= limit);
                after = last.seq;
                got.extend(seqs(&page));
            }
            assert_eq!(got, wanted, "{limit} a page, {filter:?}");
            let between =
                store.results_between(task, 33, 171, filter.as_ref()).await.expect("part");
            let part: Vec<i64> = wanted.into_iter().filter(|seq| (33..171).contains(seq)).collect();
            assert_eq!(seqs(&between), part, "{filter:?}");
        }
    }
    let layout = store.layout(task).await.expect("layout");
    let at = store.results_at(task, &layout, &[0, 5, 44, 73, 75, 229]).await.expect("some");
    assert_eq!(seqs(&at), [0, 5, 44, 73, 229]);
    let counts = store.reasons(task).await.expect("reasons");
    assert_eq!(counts.iter().map(|(_, count)| *count as usize).sum::<usize>(), stored.len());
}

async fn no_address_gets_a_second_result(world: World) {
    world.grant(100).await;
    let task = world.people(BATCH).await;
    let mut lease = world.lease(task, 0).await;
    let some = findings(&lease, |_| Reason::Accepted)[..4].to_vec();
    let keep = step(&lease, some.clone(), After::Keep);
    world.settle(world.number(), &[keep]).await;
    // Its holder has forgotten what it settled: the row has not.
    let again = step(&lease, some.clone(), After::Keep);
    let refused = world.try_settle(world.number(), &[again]).await;
    assert!(refused.is_err(), "{refused:?}");
    // It remembers, and says it all the same.
    (0..4).for_each(|place| assert!(lease.done.insert(place)));
    let twice = step(&lease, some, After::Keep);
    let refused = world.try_settle(world.number(), &[twice]).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(all(&world, task).await.len(), 4);
    world.check_books().await;
    world.finish(&lease, Reason::Accepted).await;
    assert_eq!(all(&world, task).await.len(), 10);
    world.check_books().await;
}

async fn the_audit_finds_what_is_wrong(world: World) {
    world.grant(1_000).await;
    let task = world.people(3 * BATCH).await;
    for no in 0..2 {
        in_pieces(&world, world.lease(task, no).await, |_| Reason::Accepted).await;
    }
    let store = &world.app.store;
    let faults = async || store.audit_task(task).await.expect("audit");
    assert_eq!(faults().await, [""; 0]);
    let lite = world.url.starts_with("sqlite:");
    let one = "first_seq = 0 AND step = (SELECT min(step) FROM result_blocks WHERE first_seq = 0)";
    let change = async |change: &str| sql::execute(&world.url, change).await;
    change("CREATE TABLE kept AS SELECT * FROM result_blocks").await;
    let restore = async || {
        change("DELETE FROM result_blocks").await;
        change("INSERT INTO result_blocks SELECT * FROM kept").await;
        assert_eq!(faults().await, [""; 0]);
    };
    // One flipped bit, anywhere in a block.
    for at in [0, 1, 3, 9] {
        let flipped = match lite {
            true => format!(
                "substr(payload, 1, {at}) || CASE substr(payload, {at} + 1, 1) WHEN x'00' THEN x'01' ELSE x'00' END || substr(payload, {at} + 2)"
            ),
            false => format!("set_byte(payload, {at}, get_byte(payload, {at}) # 4)"),
        };
        let cast = if lite { format!("CAST({flipped} AS BLOB)") } else { flipped };
        change(&format!("UPDATE result_blocks SET payload = {cast} WHERE {one}")).await;
        let found = faults().await;
        assert!(found.iter().any(|fault| fault.contains("cannot be opened")), "{at}: {found:?}");
        restore().await;
    }
    change(&format!("DELETE FROM result_blocks WHERE {one}")).await;
    let found = faults().await;
    assert!(found.iter().any(|fault| fault.contains("results are missing")), "{found:?}");
    restore().await;
    let columns = "task_id, first_seq, step + 1000000, no, deliverable, undeliverable, risky, unknown, charged, refunded, reasons, payload, flags";
    change(&format!("INSERT INTO result_blocks SELECT {columns} FROM result_blocks WHERE {one}"))
        .await;
    let found = faults().await;
    assert!(found.iter().any(|fault| fault.contains("two results of address")), "{found:?}");
    restore().await;
    // One beyond the last batch.
    let beyond = columns.replace("first_seq, step + 1000000", "900, step");
    change(&format!("INSERT INTO result_blocks SELECT {beyond} FROM result_blocks WHERE {one}"))
        .await;
    let found = faults().await;
    assert!(found.iter().any(|fault| fault.contains("1 blocks of no batch")), "{found:?}");
    restore().await;
    // A block that was put in another's place, and figures that are not its own.
    change(&format!("UPDATE result_blocks SET first_seq = 10 WHERE {one}")).await;
    assert!(!faults().await.is_empty());
    restore().await;
    change(&format!("UPDATE result_blocks SET first_seq = 7 WHERE {one}")).await;
    assert!(!faults().await.is_empty());
    restore().await;
    change(&format!("UPDATE result_blocks SET deliverable = deliverable + 1 WHERE {one}")).await;
    assert!(!faults().await.is_empty());
    restore().await;
    change(&format!("UPDATE result_blocks SET reasons = reasons + 4 WHERE {one}")).await;
    assert!(!faults().await.is_empty());
    restore().await;
    // A batch whose figures are not those of its blocks.
    let of_batch = "UPDATE batches SET deliverable = deliverable";
    change(&format!("{of_batch} - 1, risky = risky + 1 WHERE no = 0")).await;
    let found = faults().await;
    assert!(found.iter().any(|fault| fault.contains("its blocks hold Tally")), "{found:?}");
    change(&format!("{of_batch} + 1, risky = risky - 1 WHERE no = 0")).await;
    // One that is not done, and knows of another result than it has.
    let lease = world.lease(task, 2).await;
    let some = findings(&lease, |_| Reason::Accepted)[..3].to_vec();
    world.settle(world.number(), &[step(&lease, some, After::Keep)]).await;
    assert_eq!(faults().await, [""; 0]);
    let other = if lite { "x'38'" } else { r"'\x38'" };
    change(&format!("UPDATE batches SET done = {other} WHERE no = 2")).await;
    let found = faults().await;
    assert!(found.iter().any(|fault| fault.contains("than it knows of")), "{found:?}");
}

async fn an_erased_task_leaves_no_block(world: World) {
    world.grant(100).await;
    let task = world.people(2 * BATCH).await;
    let mut batches = Vec::new();
    for no in 0..2 {
        batches.push(in_pieces(&world, world.lease(task, no).await, |_| Reason::Accepted).await);
    }
    let (now, store) = (world.app.now(), &world.app.store);
    let by = Origin::operator();
    let (erased, merged) =
        tokio::join!(store.erase_task(task, world.account, &by, now), store.merge_blocks(&batches));
    erased.expect("erase");
    merged.expect("merge");
    world.app.empty(task, Duration::MAX).await;
    assert_eq!(blocks(&world, task).await, 0);
    assert!(all(&world, task).await.is_empty());
    world.check_books().await;
}

async fn an_erasure_goes_on_where_it_stopped(world: World) {
    world.grant(10_000).await;
    let (task, beside) = (world.people(600 * BATCH).await, world.people(BATCH).await);
    for (task, no) in [(task, 0), (task, 400), (beside, 0)] {
        let lease = world.lease(task, no).await;
        world.finish(&lease, Reason::Accepted).await;
    }
    let (now, store) = (world.app.now(), &world.app.store);
    world.app.cancel(task, world.account).await.expect("cancel");
    let asked = [3, 4_001];
    let layout = store.layout(task).await.expect("layout");
    let addresses = store.addresses_at(task, &layout, &asked).await.expect("addresses");
    assert_eq!(addresses.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), asked);
    let erased =
        store.erase_task(task, world.account, &Origin::operator(), now).await.expect("erase");
    assert_eq!(erased, Changed::Done);
    for _ in 0..2 {
        assert!(world.app.task(task, world.account).await.is_err(), "nobody sees it");
        assert_eq!(store.audit_task(task).await.expect("audit"), Vec::<String>::new());
        world.check_books().await;
        assert!(store.erase_slice(task).await.expect("one slice"), "more is left");
        // A download that is under way must break off, not end with empty cells.
        store.addresses_at(task, &layout, &asked).await.expect_err("one is gone");
    }
    assert_eq!(store.erasures(10).await.expect("erasures"), [task]);
    assert!(blocks(&world, task).await > 0, "nothing was interrupted");
    world.app.empty(task, Duration::MAX).await;
    assert!(store.erasures(10).await.expect("erasures").is_empty());
    assert_eq!(blocks(&world, task).await, 0);
    for table in ["batches", "task_rows"] {
        assert_eq!(stored(&world, table, task).await, 0, "{table}");
    }
    assert_eq!(
        store.erase_task(task, world.account, &Origin::operator(), now).await.expect("gone"),
        Changed::Missing
    );
    assert_eq!(all(&world, beside).await.len(), BATCH);
    assert!(store.audit_task(beside).await.expect("audit").is_empty());
    world.check_books().await;
}
