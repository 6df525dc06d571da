//! The credits page: what is held and why, what is wanted, the days, and the ledger page by page.

use listmill_shared::domain::ledger::{EntryType, Kind};
use listmill_shared::domain::verdict::Reason;
use listmill_shared::store::credit_page::Wanted;

use super::on_both_engines;
use super::world::{START, World};

on_both_engines!(
    credits_are_where_the_page_says,
    the_ledger_is_read_page_by_page,
    rare_entries_are_found,
);

async fn credits_are_where_the_page_says(world: World) {
    world.grant(15).await;
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    let page = world.app.whereabouts(world.account).await.expect("page");
    assert_eq!(page.holders.len(), 1);
    assert_eq!((page.holders[0].id, page.holders[0].held), (task, 10));
    assert_eq!((page.want.tasks, page.want.credits), (0, 0));
    let email = page.books.iter().find(|books| books.kind == "email").expect("email");
    assert_eq!((email.given, email.balance, email.held, email.last_grant), (15, 5, 10, 15));
    world.finish(&lease, Reason::Accepted).await;
    let page = world.app.whereabouts(world.account).await.expect("page");
    assert!(page.holders.is_empty());
    let days = world.app.charged_by_hour(world.account, START - 86_400_000).await.expect("days");
    assert_eq!(days.iter().map(|(_, credits)| credits).sum::<i64>(), 10);
    assert!(days.iter().all(|(hour, _)| hour % 3_600_000 == 0 && *hour <= START));
    world.check_books().await;
}

async fn the_ledger_is_read_page_by_page(world: World) {
    for credits in 1..=7 {
        world.grant(credits).await;
    }
    let (mut before, mut amounts) = (None, Vec::new());
    loop {
        let wanted = Wanted { kind: Some(Kind::Email), ..Wanted::default() };
        let page = world.app.ledger(world.account, wanted, before, 3).await.expect("page");
        assert!(page.rows.len() <= 3);
        amounts.extend(page.rows.iter().map(|row| row.entry.amount));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(amounts, [7, 6, 5, 4, 3, 2, 1]);
    let phone = Wanted { kind: Some(Kind::Phone), ..Wanted::default() };
    let page = world.app.ledger(world.account, phone, None, 3).await.expect("page");
    assert!(page.rows.is_empty() && page.next.is_none());
}

async fn rare_entries_are_found(world: World) {
    world.grant(100).await;
    let task = world.people(10).await;
    let lease = world.lease(task, 0).await;
    world
        .finish_with(&lease, |seq| if seq == 2 { Reason::Timeout } else { Reason::Accepted })
        .await;
    world.grant(-5).await;
    for (entry, amounts) in [
        (EntryType::Grant, vec![100]),
        (EntryType::Adjust, vec![-5]),
        (EntryType::Hold, vec![10]),
        (EntryType::Charge, vec![9]),
        (EntryType::Refund, vec![1]),
    ] {
        let wanted = Wanted { entry: Some(entry), ..Wanted::default() };
        let page = world.app.ledger(world.account, wanted, None, 10).await.expect("page");
        let found: Vec<i64> = page.rows.iter().map(|row| row.entry.amount).collect();
        assert_eq!((found, page.next), (amounts, None), "{entry:?}");
    }
    let wanted = Wanted { task: Some(task), ..Wanted::default() };
    let page = world.app.ledger(world.account, wanted, None, 2).await.expect("page");
    assert_eq!(page.rows.len(), 2);
    assert!(page.rows.iter().all(|row| row.entry.task == Some(task) && row.task_is_there));
    let rest = world.app.ledger(world.account, wanted, page.next, 2).await.expect("page");
    assert_eq!((rest.rows.len(), rest.next), (1, None));
}
