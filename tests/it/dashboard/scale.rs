//! Every page where a great many tasks, results and keys are.
//!
//! `LISTMILL_TEST_SCALE=1` (`tests/soak dashboard::scale`) fills in 10,000 tasks, 10,000,000 results and 1,000
//! keys and says how long each page takes; the suite fills in a hundredth of it, and only asks that each page is
//! there and finds what it looks for.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use listmill_tests::dashboard::Page;
use listmill_tests::{Client, for_each_size, lists};
use reqwest::Method;
use serde_json::json;

use super::*;

for_each_size!(every_page_with_very_many);

/// What a page may take at the server.
const MOST: Duration = Duration::from_millis(100);
/// Each page is asked for so many times; the first one counts too.
const ASKED: usize = 5;
/// Submissions on their way at once.
const AT_ONCE: usize = 8;
/// Addresses of a short task.
const SHORT: usize = 10;
/// How long all the work may take.
const WORKED: Duration = Duration::from_secs(1_800);

struct Scale {
    tasks: usize,
    /// Addresses in each of the long tasks.
    long: u64,
    /// The longest of all.
    longest: u64,
    long_tasks: usize,
    keys: usize,
}

impl Scale {
    fn of_this_run() -> (Self, bool) {
        if std::env::var_os("LISTMILL_TEST_SCALE").is_some() {
            (
                Self {
                    tasks: 10_000,
                    long: 1_000_000,
                    longest: 4_900_000,
                    long_tasks: 5,
                    keys: 1_000,
                },
                true,
            )
        } else {
            (Self { tasks: 100, long: 10_000, longest: 40_000, long_tasks: 1, keys: 20 }, false)
        }
    }

    fn addresses(&self) -> u64 {
        let short = (self.tasks - self.long_tasks - 1) * SHORT;
        self.longest + self.long * self.long_tasks as u64 + short as u64
    }
}

async fn every_page_with_very_many(size: Size) {
    let (scale, measured) = Scale::of_this_run();
    let app = alone(size).concurrency(20_000).start().await;
    let login = app.operator(scale.addresses() + 1_000).await;
    let client = login.client(&app).await.patient();
    let longest = fill(&app, &client, &scale).await;
    let person = login.person(&app).await;
    let mut paths: Vec<String> =
        PAGES.iter().chain(&OPERATORS).map(|path| (*path).to_owned()).collect();
    paths.extend(of_tasks(&person, &longest, &scale).await);
    paths.extend(of_keys(&client, &person).await);
    paths.extend(
        [
            "/requests?outcome=scope",
            "/requests?outcome=accepted&network=127.0.0.1",
            "/credits?type=charge",
            "/operator/audit?check=1",
        ]
        .map(str::to_owned),
    );
    let mut report = format!(
        "{size:?}: {} tasks, {} results, {} keys\n",
        scale.tasks,
        scale.addresses(),
        scale.keys
    );
    let mut slow = Vec::new();
    for path in &paths {
        let mut times = Vec::new();
        for _ in 0..ASKED {
            let begun = Instant::now();
            let page = person.get(path).await;
            times.push(begun.elapsed());
            assert!(page.status == 200, "{path}: {}", page.reply);
        }
        let first = times[0];
        times.sort_unstable();
        let (middle, last) = (times[ASKED / 2], times[ASKED - 1]);
        writeln!(report, "  {middle:>9.1?} {last:>9.1?} (first {first:.1?})  {path}")
            .expect("writes to memory");
        if middle > MOST {
            slow.push(path.clone());
        }
    }
    eprintln!("{report}");
    assert!(!measured || slow.is_empty(), "slower than {MOST:?}: {slow:?}\n{report}");
    app.finish().await;
}

/// Fills it all in through the API; answers with the longest task, when all are done.
async fn fill(app: &Deployment, client: &Client, scale: &Scale) -> String {
    for number in 1..scale.keys {
        client
            .post(
                "/v1/keys",
                &json!({ "label": format!("service {number}"), "scopes": ["tasks:read"] }),
            )
            .await
            .expect(201);
    }
    let longest = submit_long(client, "the longest", scale.longest).await;
    for number in 0..scale.long_tasks {
        submit_long(client, &format!("long {number}"), scale.long).await;
    }
    let short = scale.tasks - scale.long_tasks - 1;
    let all = stream::iter(0..short).map(|number| async move {
        let emails = lists::people(SHORT);
        let body = json!({ "name": format!("short {number}"), "emails": emails });
        client.post("/v1/tasks", &body).await.expect(201);
    });
    all.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    client.wait_for(&longest, "completed", WORKED).await;
    eventually("all tasks are done", WORKED, || async {
        let open = client.get("/v1/tasks?status=running&limit=1").await.expect(200).json();
        let waiting = client.get("/v1/tasks?status=queued&limit=1").await.expect(200).json();
        let none = |page: &Value| page["data"].as_array().is_some_and(Vec::is_empty);
        (none(&open) && none(&waiting)).then_some(())
    })
    .await;
    // The figures that the database plans by are those of such a database in use.
    if app.size.is_scaled() {
        listmill_tests::sql::execute(&app.database_url(), "VACUUM (ANALYZE)").await;
    }
    longest
}

/// One address in 100,000 is of a rare kind; one in ten is not there.
async fn submit_long(client: &Client, name: &str, count: u64) -> String {
    let line = |i: u64| match i {
        i if i % 100_000 == 7_777 => format!("full{i}@d{}.example.com", i % 1000),
        i if i % 10 == 3 => format!("undeliverable{i}@d{}.example.com", i % 1000),
        i => format!("person{i}@d{}.example.com", i % 1000),
    };
    let name = name.replace(' ', "%20");
    let request = client.request(Method::POST, &format!("/v1/tasks?name={name}"));
    let body = reqwest::Body::wrap_stream(lists::lines("", count, line));
    let reply =
        listmill_tests::client::send(request.header("content-type", "text/plain").body(body)).await;
    reply.expect(201).json()["id"].as_str().expect("an id").to_owned()
}

/// Lists of tasks and the longest task's own pages, filters on what is rare and on what is not there included.
async fn of_tasks(person: &Person, longest: &str, scale: &Scale) -> Vec<String> {
    let mut paths = vec![
        String::from("/tasks?q=short%2099"),
        String::from("/tasks?q=long"),
        String::from("/tasks?q=nothing-like-it"),
        format!("/tasks/{longest}"),
    ];
    paths.extend(older(&person.get("/tasks").await.expect(200)));
    let last = scale.longest - 1;
    for filter in [
        "status=deliverable",
        "status=undeliverable",
        "status=risky",
        "status=unknown",
        "reason=mailbox_full",
        "reason=timeout",
        "reason=mailbox_not_found",
        "status=risky&reason=timeout",
        "flag=mailbox_full",
        "flag=role",
        "flag=disposable&status=deliverable",
    ] {
        paths.push(format!("/tasks/{longest}?{filter}"));
    }
    // The last one of the list; one that is not there.
    paths.push(format!("/tasks/{longest}?address=person{last}%40d{}.example.com", last % 1000));
    paths.push(format!("/tasks/{longest}?address=nobody%40example.com"));
    paths.push(format!("/tasks/{longest}/results/{}", scale.longest / 2));
    paths.push(format!("/tasks/{longest}/erase"));
    paths
}

async fn of_keys(client: &Client, person: &Person) -> Vec<String> {
    let page = client.get("/v1/keys?limit=1").await.expect(200).json();
    let id = page["data"][0]["id"].as_str().expect("a key").to_owned();
    let mut paths = vec![
        String::from("/keys?q=service%20777"),
        String::from("/keys?q=nothing-like-it"),
        String::from("/operator/keys?by=label&q=service"),
        format!("/operator/keys/{id}"),
        format!("/requests?key={id}"),
    ];
    paths.extend(["delete", "rotate", "limits"].map(|action| format!("/keys/{id}/{action}")));
    paths.extend(older(&person.get("/keys").await.expect(200)));
    paths
}

/// The page after this one.
fn older(page: &Page) -> Option<String> {
    let tags = listmill_tests::html::tags(&page.text);
    let next = tags.iter().find(|tag| tag.get("rel").is_some_and(|rel| rel == "next"))?;
    next.get("href").map(str::to_owned)
}
