//! The API reference: made from the OpenAPI document, for everybody, with nothing inline.

use listmill_tests::{Browser, Person, Setup, Size};

use super::browsed;

/// `POST /v1/tasks/{id}` → `post-v1-tasks-id`.
fn anchor(method: &str, path: &str) -> String {
    let text = format!("{method} {path}").to_lowercase();
    let parts = text.split(|sign: char| !sign.is_ascii_alphanumeric());
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_every_route_of_the_document() {
    let app = Setup::new(Size::Embedded).start().await;
    let document = app.anonymous().get("/openapi.json").await.expect(200).json();
    let stranger = Person::stranger(&app);
    let page = stranger.get("/docs").await.expect(200);
    let text = &page.text;
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            let id = format!("id=\"{}\"", anchor(method, path));
            assert_eq!(text.matches(&id).count(), 1, "{method} {path}");
            assert!(text.contains(path.as_str()), "{path}");
            routes += 1;
        }
    }
    assert!(routes > 50, "{routes}");
    for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
        assert!(text.contains(&format!("id=\"type-{}\"", anchor("", name))), "{name}");
    }
    // Every link within the page leads somewhere, and no id is there twice.
    for link in text.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert_eq!(text.matches(&format!("id=\"{link}\"")).count(), 1, "#{link}");
    }
    assert!(text.contains(&app.bases()[0]), "samples have the server's own address");
    assert!(text.contains("tasks:write") && text.contains("$LISTMILL_KEY"));
    assert!(!text.contains(" style=") && !text.contains("<style"), "inline styles");
    for script in text.split("<script").skip(1) {
        let tag = script.split('>').next().expect("a tag");
        assert!(tag.contains("src=\"/assets/"), "{tag}");
    }
    assert!(page.reply.header("content-security-policy").is_some());
    let old = stranger.get("/docs/api").await;
    assert_eq!((old.status, old.location.as_deref()), (308, Some("/docs")));
    let problems = stranger.get("/docs/problems").await.expect(200);
    problems.assert_has("id=\"account_suspended\"");
    app.finish().await;
}

/// All routes at once: not a page that anybody waits for, and large for axe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_accessible() {
    let app = browsed(Size::Embedded).start().await;
    let browser = Browser::start(&app).await;
    for path in ["/docs", "/docs/problems"] {
        browser.open(path).await;
        browser.assert_accessible(path).await;
    }
    browser.finish().await;
    app.finish().await;
}
