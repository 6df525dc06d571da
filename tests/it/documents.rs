//! The pages that need no key: description, documentation, health, metrics.

use std::collections::BTreeSet;

use listmill_tests::{Setup, Size, for_each_size};

for_each_size!(openapi_lists_the_routes, pages_answer_without_a_key);

const ROUTES: &[(&str, &str)] = &[
    ("post", "/api/verify-single"),
    ("post", "/api/verify-bulk"),
    ("get", "/api/get-results/{}"),
    ("post", "/v1/tasks"),
    ("get", "/v1/tasks"),
    ("get", "/v1/tasks/{}"),
    ("delete", "/v1/tasks/{}"),
    ("post", "/v1/tasks/{}/cancel"),
    ("post", "/v1/tasks/{}/pause"),
    ("post", "/v1/tasks/{}/resume"),
    ("get", "/v1/tasks/{}/results"),
    ("get", "/v1/tasks/{}/results/{}"),
    ("get", "/v1/tasks/{}/events"),
    ("post", "/v1/verifications"),
    ("get", "/v1/account/credits"),
    ("get", "/v1/ledger"),
    ("get", "/v1/audit"),
    ("post", "/v1/keys"),
    ("get", "/v1/keys"),
    ("delete", "/v1/keys/{}"),
    ("post", "/v1/keys/{}/disable"),
    ("post", "/v1/keys/{}/enable"),
    ("get", "/v1/keys/{}/usage"),
    ("get", "/v1/keys/{}/networks"),
    ("get", "/v1/requests"),
    ("get", "/v1/usage"),
    ("post", "/v2/keys.createKey"),
    ("post", "/v2/keys.getKey"),
    ("post", "/v2/keys.updateKey"),
    ("post", "/v2/keys.deleteKey"),
    ("post", "/v2/keys.rerollKey"),
    ("post", "/v2/keys.verifyKey"),
    ("post", "/v2/keys.whoami"),
    ("post", "/v2/keys.updateCredits"),
    ("post", "/v2/apis.createApi"),
    ("post", "/v2/apis.getApi"),
    ("post", "/v2/apis.listKeys"),
    ("post", "/v2/apis.deleteApi"),
    ("get", "/v2/liveness"),
];

/// `/v1/tasks/{id}` → `/v1/tasks/{}`: names of parameters are the document's own affair.
fn without_names(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

async fn openapi_lists_the_routes(size: Size) {
    let app = Setup::new(size).start().await;
    let document = app.anonymous().get("/openapi.json").await.expect(200).json();
    let version = document["openapi"].as_str().expect("a version");
    assert!(version.starts_with("3."), "{version}");
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            described.insert((method.clone(), without_names(path)));
        }
    }
    for (method, path) in ROUTES {
        let route = ((*method).to_owned(), (*path).to_owned());
        assert!(described.contains(&route), "{method} {path} is not in the document");
    }
    // And nothing is described that is not served.
    let client = app.customer(0).await.client;
    for (method, path) in &described {
        if *method != "get" || !path.starts_with("/v1") || path.contains("{}") {
            continue;
        }
        let reply = client.get(path).await;
        assert!(!matches!(reply.status, 404 | 405) && reply.status < 500, "{reply}");
    }
    app.finish().await;
}

async fn pages_answer_without_a_key(size: Size) {
    let app = Setup::new(size).start().await;
    let client = app.anonymous();
    let docs = client.get("/docs").await.expect(200);
    assert!(docs.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    for node in app.apis.iter().chain(&app.workers) {
        for path in ["/healthz", "/readyz"] {
            let (status, body) = node.probe(path).await.expect("an answer");
            assert_eq!(status, 200, "{}{path}: {body}", node.process.name);
        }
        let (status, text) = node.probe("/metrics").await.expect("an answer");
        assert_eq!(status, 200, "{}", node.process.name);
        assert!(text.contains("# TYPE listmill_"), "{}: {text}", node.process.name);
    }
    assert!(app.inflight().await < 1.0, "idle");
    app.finish().await;
}
