//! An address whose verification ends its process, every time: it must not do so for ever, nor take the
//! others with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use listmill_tests::{Client, Deployment, Setup, Size, Task, Weight, for_each_size, lists};
use serde_json::Value;
use tokio::sync::Notify;

use crate::provider::server::{Act, Seen, Upstream};

for_each_size!(an_address_that_kills_its_process_ends_as_internal_error);

const KILLER: &str = "killer@example.com";
const LIST: usize = 40;
/// Five in company, then 13 while 40 addresses are halved, and anew after each half that was well; more where a
/// step was stored first, or a kill comes late and hits once more.
const MOST_KILLS: usize = 40;
const LIMIT: Duration = Duration::from_secs(150);
const VALID: &str = r#"{"status":"valid"}"#;

/// Says of everybody that they exist, after a moment, so that others are being asked about when the killer
/// is; tells when it is asked about the killer, and gives no answer to that.
async fn service(struck: Arc<Notify>) -> Upstream {
    Upstream::start(move |seen: &Seen| {
        if seen.path.contains("killer%40") {
            struck.notify_one();
            return Act::Hang;
        }
        Act::Late(Duration::from_millis(200), 200, VALID.to_owned())
    })
    .await
}

/// Ends the process that verifies each time that it asks about the killer, until the future is done.
async fn kill_when_asked<T>(
    app: &mut Deployment,
    struck: &Notify,
    kills: &AtomicUsize,
    done: impl Future<Output = T>,
) -> T {
    tokio::pin!(done);
    loop {
        tokio::select! {
            value = &mut done => return value,
            () = struck.notified() => {
                app.kill9_and_restart_worker(0);
                let kills = kills.fetch_add(1, SeqCst) + 1;
                assert!(kills <= MOST_KILLS, "an address ended its process {kills} times");
            }
        }
    }
}

fn assert_all_deliverable(task: &Task, results: &[Value]) {
    let count = results.len() as u64;
    assert_eq!(task.counts.deliverable, count, "{task:#?}");
    let mut seqs: Vec<u64> = results.iter().map(|r| r["seq"].as_u64().expect("seq")).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (0..count).collect::<Vec<u64>>());
    assert!(results.iter().all(|result| result["credit"] == "charged"), "{results:#?}");
}

async fn assert_only_the_killer_is_unknown(client: &Client, task: &Task) {
    let c = task.counts;
    assert_eq!((c.processed, c.deliverable, c.unknown), (40, 39, 1), "{task:#?}");
    assert_eq!((task.credits.charged, task.credits.refunded, task.credits.held), (39, 1, 0));
    let results = client.results(&task.id).await;
    assert_eq!(results.len(), LIST);
    for result in results {
        let seen =
            ["email", "status", "reason", "credit"].map(|f| result[f].as_str().unwrap_or(""));
        match seen[0] {
            KILLER => assert_eq!(seen[1..], ["unknown", "internal_error", "refunded"], "{result}"),
            _ => assert_eq!(seen[1..], ["deliverable", "accepted", "charged"], "{result}"),
        }
    }
}

async fn an_address_that_kills_its_process_ends_as_internal_error(size: Size) {
    let struck = Arc::new(Notify::new());
    let service = service(struck.clone()).await;
    let setup = Setup::new(size.with(1, 1)).weight(Weight::Light).env("LISTMILL_PROVIDER", "http");
    let setup = setup.env("LISTMILL_HTTP_URL", format!("{}/?e={{email}}", service.base()));
    let setup = setup.env("LISTMILL_HTTP_MAP", "/status valid = accepted");
    let setup = setup.env("LISTMILL_BATCH_SIZE", LIST.to_string()).env("LISTMILL_LEASE_TTL", "1s");
    let mut app = setup.start().await;
    let customer = app.customer(LIST as u64).await;
    let neighbour = app.customer(3 * LIST as u64).await;
    // Embedded, the API goes down with the process: polls must be patient.
    let (client, beside) = (customer.client.clone().patient(), neighbour.client.clone().patient());
    let mut list = lists::people(LIST - 1);
    list.insert(LIST / 3, KILLER.to_owned());
    let innocent = lists::people(3 * LIST);
    // Sent before anybody is killed: the first batch waits for its lease at least this long.
    let beside_id = beside.submit(&innocent).await.id;
    let id = client.submit(&list).await.id;

    let (kills, since) = (AtomicUsize::new(0), Instant::now());
    let both = async {
        tokio::join!(
            client.wait_for(&id, "completed", LIMIT),
            beside.wait_for(&beside_id, "completed", LIMIT),
        )
    };
    let (task, beside_task) = kill_when_asked(&mut app, &struck, &kills, both).await;
    let kills = kills.load(SeqCst);
    eprintln!("the process was ended {kills} times in {:?}", since.elapsed());
    assert!(kills > 0, "nothing was tested");
    app.wait_ready().await;
    assert_only_the_killer_is_unknown(&client, &task).await;
    assert_eq!(client.balance().await, 1);
    assert_all_deliverable(&beside_task, &beside.results(&beside_id).await);
    assert_eq!(beside.balance().await, 0);
    let killer = format!("/v1/tasks/{id}/results/{}", LIST / 3);
    let killer = client.get(&killer).await.expect(200).json();
    assert_eq!(killer["email"], KILLER, "{killer}");
    let why = killer["evidence"]["error"].as_str().expect("a reason").to_owned();
    eprintln!("what is said of it: {why}");
    assert!(why.contains("process"), "it does not say why: {why}");
    app.finish().await;
}
