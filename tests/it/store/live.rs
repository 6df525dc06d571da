//! What the live stream asks, and the search of tasks by name.

use listmill_shared::domain::id::TaskId;
use listmill_shared::store::live::{Mark, Money};
use listmill_shared::store::tasks::{Start, TaskFilter};

use super::world::{BATCH, World};

fn ids(marks: &[Mark]) -> Vec<TaskId> {
    marks.iter().map(|mark| mark.id).collect()
}

async fn a_task_is_open_then_ended_then_erased(world: World) {
    world.grant(1_000).await;
    let store = &world.app.store;
    let start = (world.app.now(), TaskId::FIRST);
    let first = world.people(BATCH).await;
    let second = world.sandbox_people(3).await;
    let open = store.open_tasks(world.account, 10).await.expect("open");
    // The clock stands still: which of them is newer is chance.
    let newest = first.max(second);
    assert_eq!(ids(&open), [newest, first.min(second)], "newest first");
    assert!(open.iter().all(|mark| mark.sandbox == (mark.id == second) && mark.family.is_none()));
    assert_eq!(ids(&store.open_tasks(world.account, 1).await.expect("open")), [newest]);
    let lease = world.lease(first, 0).await;
    let money = store.money(world.account).await.expect("money");
    assert_eq!(money, Some(Money { balance: 1_000 - BATCH as i64, held: BATCH as i64 }));
    drop(lease);
    for task in [first, second] {
        world.app.cancel(task, world.account).await.expect("cancel");
    }
    let money = store.money(world.account).await.expect("money");
    assert_eq!(money, Some(Money { balance: 1_000, held: 0 }));
    assert!(store.open_tasks(world.account, 10).await.expect("open").is_empty());
    let ended = store.ended_tasks(world.account, start, 10).await.expect("ended");
    assert_eq!(ended.len(), 2);
    let page = store.ended_tasks(world.account, start, 1).await.expect("ended");
    let next = (page[0].at, page[0].id);
    let rest = store.ended_tasks(world.account, next, 10).await.expect("ended");
    assert_eq!(ids(&rest), [ended[1].id], "page by page");
    world.app.erase(first, world.account).await.expect("erase");
    assert_eq!(ids(&store.erased_tasks(world.account, start, 10).await.expect("erased")), [first]);
    assert_eq!(ids(&store.ended_tasks(world.account, start, 10).await.expect("ended")), [second]);
}

async fn tasks_are_found_by_name_page_by_page(world: World) {
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(world.sandbox_people(1).await);
    }
    tasks.sort();
    let page = async |from, name| {
        let filter = TaskFilter { name, ..TaskFilter::default() };
        let page = world.app.store.tasks(world.account, filter, from, 2).await.expect("tasks");
        page.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(page(Start::Newest, None).await, [tasks[4], tasks[3]]);
    assert_eq!(page(Start::Before(tasks[3]), None).await, [tasks[2], tasks[1]]);
    assert_eq!(page(Start::After(tasks[1]), None).await, [tasks[3], tasks[2]]);
    assert!(page(Start::Newest, Some("no such name")).await.is_empty());
    assert!(page(Start::Newest, Some("100%\\")).await.is_empty());
}

super::on_both_engines!(
    a_task_is_open_then_ended_then_erased,
    tasks_are_found_by_name_page_by_page
);
