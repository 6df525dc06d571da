//! Bad input at large: what could cost memory, disk or time before it is refused.

use std::time::Duration;

use listmill_tests::{Client, Setup, Size, Weight, for_each_size, lists, within};
use reqwest::Method;

use crate::bad_input::assert_untouched;

for_each_size!(gzip_bombs, list_over_the_limit, upload_cut_off);

const MIB: u64 = 1 << 20;

/// 5 GB in some megabytes: of nothing, and of one address over and over.
async fn gzip_bombs(size: Size) {
    let app = Setup::new(size).weight(Weight::Middle).start().await;
    let client = app.customer(1_000).await.client;
    for (name, pattern) in
        [("blank lines", &b"\n"[..]), ("one address", b"bomb@example.com\n"), ("a line", b"x")]
    {
        let bomb = lists::gzip_bomb(pattern, 5 << 30);
        assert!(bomb.len() < 40 << 20, "{name}: {} bytes", bomb.len());
        let headers = [("content-type", "text/plain"), ("content-encoding", "gzip")];
        let sent = client.post_refused("/v1/tasks", &headers, &bomb);
        let reply = within(name, Duration::from_secs(60), sent).await;
        assert!(matches!(reply.status, 400 | 413 | 422), "{name}: {reply}");
        reply.expect_problem();
        assert_untouched(&client, 1_000, name).await;
    }
    for node in &app.apis {
        let peak = node.process.peak_rss() / MIB;
        assert!(peak < 250, "{} grew to {peak} MiB", node.process.name);
    }
    app.finish().await;
}

/// One address too many. They are all the same, so that only their number can be at fault.
async fn list_over_the_limit(size: Size) {
    let app = Setup::new(size.with(1, 1)).weight(Weight::Middle).start().await;
    let client = app.customer(1_000).await.client;
    let list = lists::lines("", 10_000_001, |_| "a@b.example".to_owned());
    let reply = post_to_the_end(&client, list).await;
    if let Some(reply) = reply {
        assert!(matches!(reply.status, 400 | 413 | 422), "{reply}");
        let problem = reply.expect_problem();
        let detail = problem["detail"].as_str().expect("detail");
        assert!(detail.replace([',', '_', ' '], "").contains("10000000"), "{detail}");
    }
    assert_untouched(&client, 1_000, "one too many").await;
    app.finish().await;
}

/// A server may hang up on a sender that goes on sending after the refusal: `None`.
async fn post_to_the_end<S>(client: &Client, list: S) -> Option<listmill_tests::Reply>
where
    S: futures::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static,
{
    let request = client.request(Method::POST, "/v1/tasks").header("content-type", "text/plain");
    let request = request.timeout(Duration::from_secs(120));
    let sent = listmill_tests::client::try_send(request.body(reqwest::Body::wrap_stream(list)));
    match sent.await {
        Ok(reply) => Some(reply),
        Err(error) => {
            assert!(!error.is_timeout(), "{error:?}");
            None
        }
    }
}

/// The sender goes away in the middle of a list: there is no task, not even half of one.
async fn upload_cut_off(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(100_000).await.client;
    let half = futures::StreamExt::chain(
        lists::big_text(50_000),
        futures::stream::iter([Err(std::io::Error::other("the sender goes away"))]),
    );
    let request = client.request(Method::POST, "/v1/tasks").header("content-type", "text/plain");
    let body = reqwest::Body::wrap_stream(half);
    let sent = listmill_tests::client::try_send(request.body(body)).await;
    if let Ok(reply) = sent {
        assert!(matches!(reply.status, 400..=499), "{reply}");
    }
    assert_untouched(&client, 100_000, "cut off").await;
    // And the account is not held up by it.
    let id = client.submit(&lists::people(10)).await.id;
    client.wait_completed(&id).await;
    assert_eq!(client.tasks().await.len(), 1);
    app.finish().await;
}
