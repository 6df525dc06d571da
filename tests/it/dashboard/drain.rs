//! A worker that an operator drains ends by itself, and nothing is lost; one that shares a process cannot be drained.

use std::time::Duration;

use listmill_tests::{Setup, Size, eventually, lists};

use super::operator::boss;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_ends_and_others_go_on() {
    let setup = Setup::new(Size::Scaled { apis: 1, workers: 2 }).latency("1s").concurrency(20);
    let setup = setup.env("LISTMILL_BATCH_SIZE", "10").env("LISTMILL_LEASE_TTL", "120s");
    let mut app = setup.env("LISTMILL_SHUTDOWN_GRACE", "20s").start().await;
    let (email, boss) = boss(&app).await;
    let customer = app.customer(300).await;
    let id = customer.client.submit(&lists::people(300)).await.id;
    let (node, boss_ref) = (&app.workers[0], &boss);
    eventually("the worker is busy", LIMIT, || async move {
        (node.metric("listmill_inflight_addresses").await? > 5.0).then_some(())
    })
    .await;
    // Its name holds the process's number.
    let pid = app.workers[0].process.pid();
    let (linked, shown) = (format!("%2D{pid}%2D"), format!("-{pid}-"));
    let (linked, shown) = (linked.as_str(), shown.as_str());
    let ask = eventually("it can be drained", LIMIT, || async move {
        let links = boss_ref.get("/operator/workers").await.expect(200).links();
        links.into_iter().find(|link| link.contains("/drain?") && link.contains(linked))
    })
    .await;
    let told = boss.submit(&ask, "/operator/workers/drain", &[]).await;
    told.expect_redirect("/operator/workers");
    let page = boss.get("/operator/workers").await.expect(200);
    assert!(page.words().contains("draining") || !page.text.contains(shown), "{}", page.words());
    let ended = app.workers[0].process.wait_end(Duration::from_secs(25)).await;
    assert!(ended.success(), "{ended}\n{}", app.workers[0].process.tail(20));
    boss.get("/operator/workers").await.expect(200).assert_lacks(shown);
    let task = customer.client.wait_for(&id, "completed", Duration::from_secs(60)).await;
    assert_eq!((task.credits.charged, task.credits.held), (300, 0));
    assert_eq!(customer.client.results(&id).await.len(), 300);
    let log = app.cli(&["admin", "audit", "export"]).await.expect_success().stdout;
    let row = log.lines().find(|line| line.contains("worker.drain")).expect("a row");
    assert!(row.contains(&email) && row.contains(shown), "{row}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_shares_a_process_cannot_be_drained() {
    let app = Setup::new(Size::Embedded).start().await;
    let (_, boss) = boss(&app).await;
    let (boss_ref, shown) = (&boss, format!("-{}-", app.apis[0].process.pid()));
    let shown = shown.as_str();
    let page = eventually("it is listed", LIMIT, || async move {
        let page = boss_ref.get("/operator/workers").await.expect(200);
        page.text.contains(shown).then_some(page)
    })
    .await;
    page.assert_lacks("/operator/workers/drain");
    assert!(page.words().contains("cannot be drained by itself"), "{}", page.words());
    let start = page.text.find(shown).expect("its name");
    let before = page.text[..start].rfind('>').expect("a tag") + 1;
    let name = page.text[before..].split('<').next().expect("a name").to_owned();
    let path = format!("/operator/workers/drain?name={name}");
    // The token is that of any page with a form.
    boss.get(&path).await.expect(200);
    boss.post(&path, &[]).await.expect(422);
    app.finish().await;
}
