//! What is not there, and what is not allowed.

use listmill_tests::client::send;
use listmill_tests::{Setup, Size, for_each_size, lists};
use reqwest::Method;

for_each_size!(unknown_routes_and_methods, unknown_and_foreign_tasks_look_alike);

async fn unknown_routes_and_methods(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.customer(0).await.client;
    client.get("/v1/nothing").await.expect(404).expect_problem();
    client.get("/v1/tasks/a/b/c").await.expect(404).expect_problem();
    client.get("/api/nothing").await.expect(404).expect_plain_error();
    client.get("/nothing").await.expect(404);
    let with = |method: Method, path: &'static str| send(client.request(method, path));
    with(Method::PUT, "/v1/tasks").await.expect(405).expect_problem();
    with(Method::POST, "/v1/account/credits").await.expect(405).expect_problem();
    with(Method::GET, "/api/verify-single").await.expect(405).expect_plain_error();
    with(Method::DELETE, "/api/verify-bulk").await.expect(405).expect_plain_error();
    app.finish().await;
}

async fn unknown_and_foreign_tasks_look_alike(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(100).await;
    let stranger = app.customer(100).await.client;
    let foreign = owner.client.submit(&lists::people(3)).await.id;
    owner.client.wait_completed(&foreign).await;
    // Well formed, only not there: the owner's id with another end.
    let last = foreign.chars().last().expect("not empty");
    let other = if last == '0' { '1' } else { '0' };
    let unknown = format!("{}{other}", &foreign[..foreign.len() - last.len_utf8()]);
    let routes: &[(Method, &str)] = &[
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/results"),
        (Method::GET, "/results?format=csv"),
        (Method::GET, "/results/0"),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/pause"),
        (Method::POST, "/resume"),
    ];
    for (method, rest) in routes {
        let ask = |id: &str| {
            let request = stranger.request(method.clone(), &format!("/v1/tasks/{id}{rest}"));
            send(request)
        };
        let theirs = ask(&foreign).await.expect(404);
        let nobodys = ask(&unknown).await.expect(404);
        theirs.expect_problem();
        let alike = theirs.text().replace(&foreign, "ID") == nobodys.text().replace(&unknown, "ID");
        assert!(alike, "{theirs}\n{nobodys}");
    }
    for id in [&foreign, &unknown, &"task_x".to_owned(), &"%00".to_owned()] {
        stranger.get(&format!("/api/get-results/{id}")).await.expect(404).expect_plain_error();
    }
    for path in [
        format!("{foreign}/results/%FF"),
        format!("{foreign}/results/-1"),
        "%FF/results/0".to_owned(),
    ] {
        owner.client.get(&format!("/v1/tasks/{path}")).await.expect(404).expect_problem();
    }
    for id in ["task_", "x", "task_%F0%9F%92%A9", "key_1", &"9".repeat(500)] {
        stranger.get(&format!("/v1/tasks/{id}")).await.expect(404).expect_problem();
    }
    assert_eq!(owner.client.results(&foreign).await.len(), 3, "nothing happened to it");
    app.finish().await;
}
