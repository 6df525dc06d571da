//! The pages of keys and requests: who may do what, the secret in one answer alone, and what a key's end says.

use std::time::Duration;

use listmill_tests::{Deployment, Setup, Size, eventually, for_each_size, sql};
use serde_json::json;

use listmill_tests::dashboard::{PASSWORD, Page, Person};

for_each_size!(owners_change_keys, others_look, forms_and_accounts_are_apart, requests_are_found);

const LABEL: &str = "<script>alert('x')</script>\"&";
const SHOWN: &str = "&#60;script&#62;alert(&#39;x&#39;)&#60;/script&#62;&#34;&#38;";

/// What `POST /keys/new` sends.
fn draft<'a>(label: &'a str, once: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("once", once),
        ("label", label),
        ("environment", "live"),
        ("scope-tasks:write", "1"),
        ("scope-tasks:read", "1"),
        ("scope-account:read", "1"),
        ("ends_on", ""),
        ("password", PASSWORD),
    ]
}

/// The secret that an answer shows.
fn secret(app: &Deployment, page: &Page) -> String {
    let (_, rest) = page.text.split_once("id=\"api-key\"").expect("the field");
    let (_, rest) = rest.split_once("value=\"").expect("its value");
    let secret = rest.split_once('"').expect("its end").0.to_owned();
    assert!(secret.starts_with("VEC"), "{secret}");
    app.keep_secret(&secret);
    secret
}

/// Id of the key with this secret, as its row has it.
fn id_of(list: &Page, secret: &str) -> String {
    let start = format!("<code>{}", &secret[..8]);
    let before = list.text.split_once(&start).expect("its row").0;
    let (_, id) = before.rsplit_once("<tr id=\"").expect("the row's id");
    id.split_once('"').expect("its end").0.to_owned()
}

async fn make(app: &Deployment, person: &Person, label: &str) -> (String, String) {
    let form = person.get("/keys/new").await.expect(200);
    let once = form.field("once").expect("a number");
    let made = person.post("/keys/new", &draft(label, &once)).await.expect(200);
    let secret = secret(app, &made);
    let list = person.get("/keys").await.expect(200);
    let id = id_of(&list, &secret);
    (id, secret)
}

async fn owners_change_keys(size: Size) {
    let app = Setup::new(size).latency("500ms").concurrency(20).start().await;
    app.sign_up("owner@keys.example", 10_000, false).await;
    let owner = Person::login(&app, "owner@keys.example", PASSWORD).await;
    owner.get("/keys").await.expect(200).assert_has("No API keys yet");
    // Made once, however often the form is sent; the secret is nowhere else.
    let form = owner.get("/keys/new").await.expect(200);
    let once = form.field("once").expect("a number");
    let empty = owner.post("/keys/new", &draft(" ", &once)).await.expect(422);
    empty.assert_has("role=\"alert\"");
    let nothing = [("once", once.as_str()), ("label", "x"), ("password", PASSWORD)];
    owner.post("/keys/new", &nothing).await.expect(422);
    let made = owner.post("/keys/new", &draft(LABEL, &once)).await.expect(200);
    let key = secret(&app, &made);
    made.assert_has(SHOWN);
    made.assert_lacks("<script>alert");
    made.assert_has("/v1/verifications");
    owner.post("/keys/new", &draft(LABEL, &once)).await.expect(200);
    owner.post("/keys/new", &draft("another", &once)).await.expect(422);
    let list = owner.get("/keys").await.expect(200);
    list.assert_lacks(&key);
    list.assert_has(SHOWN);
    list.assert_has("owner@keys.example");
    assert_eq!(list.text.matches("<tr id=").count(), 1, "one key was made");
    let id = id_of(&list, &key);
    // The account's own trail names the person.
    let url = app.database_url();
    let made_by = "SELECT made_by_person FROM api_keys WHERE made_by_person IS NOT NULL";
    assert_eq!(sql::text(&url, made_by).await.as_deref(), Some("owner@keys.example"));
    // With a task of it at work.
    let client = app.client(&key);
    let emails: Vec<String> = (0..600).map(|n| format!("ok{n}@keys.example")).collect();
    let task = client.submit(&emails).await;
    let ask = owner.get(&format!("/keys/{id}/disable")).await.expect(200);
    ask.assert_has("1 task of this key goes on");
    eventually("its use is known", Duration::from_secs(30), || async {
        let page = client.get("/v1/requests").await.expect(200).json();
        page["data"].as_array().is_some_and(|rows| !rows.is_empty()).then_some(())
    })
    .await;
    owner.get(&format!("/keys/{id}/disable")).await.expect(200).assert_has("was used");
    let done = owner.post(&format!("/keys/{id}/disable"), &[]).await.expect(303);
    let receipt = owner.get(&done.location.expect("the receipt")).await.expect(200);
    receipt.assert_has(&task.id);
    receipt.assert_has("Effective at");
    client.get("/v1/tasks").await.expect(403);
    owner.get("/keys?state=disabled").await.expect(200).assert_has(&id);
    owner.get("/keys?state=active").await.expect(200).assert_lacks(&id);
    owner.get("/keys?q=SCRIPT").await.expect(200).assert_has(&id);
    owner.get("/keys?q=%25").await.expect(200).assert_lacks(&id);
    owner.post(&format!("/keys/{id}/enable"), &[]).await.expect(303);
    client.get("/v1/tasks").await.expect(200);
    // Limits.
    owner.get(&format!("/keys/{id}/limits")).await.expect(200).assert_has("Requests a minute");
    let wrong = [("rate", "60"), ("credits", ""), ("allow", "not a network")];
    owner.post(&format!("/keys/{id}/limits"), &wrong).await.expect(422).assert_has("value=\"60\"");
    let limits = [
        ("rate", "600"),
        ("credits", "5000"),
        ("refill", "monthly"),
        ("amount", "100"),
        ("day", "31"),
        ("allow", "127.0.0.0/8\n::1"),
    ];
    owner.post(&format!("/keys/{id}/limits"), &limits).await.expect(303);
    let shown = owner.get(&format!("/keys/{id}/limits")).await.expect(200);
    for value in ["value=\"600\"", "value=\"5000\"", "value=\"31\"", "127.0.0.0/8\n::1/128"] {
        shown.assert_has(value);
    }
    // Rotated: both open for a while, and the new secret is shown once.
    let form = owner.get(&format!("/keys/{id}/rotate")).await.expect(200);
    let once = form.field("once").expect("a number");
    let rotate = [("once", once.as_str()), ("grace", "3600"), ("password", PASSWORD)];
    let rotated = owner.post(&format!("/keys/{id}/rotate"), &rotate).await.expect(200);
    let new = secret(&app, &rotated);
    assert_ne!(new, key);
    for key in [&key, &new] {
        app.client(key).get("/v1/tasks").await.expect(200);
    }
    owner.get("/keys").await.expect(200).assert_lacks(&new);
    // Deleted for good, twice by the same form; the task goes on to its end.
    let delete = [("password", PASSWORD)];
    owner.post(&format!("/keys/{id}/delete"), &delete).await.expect(303);
    let again = owner.post(&format!("/keys/{id}/delete"), &delete).await.expect(303);
    assert_eq!(again.location.as_deref(), Some(format!("/keys/{id}/receipt").as_str()));
    client.get("/v1/tasks").await.expect(401);
    app.client(&new).wait_completed(&task.id).await;
    owner.get("/keys?state=deleted").await.expect(200).assert_has(&id);
    app.finish().await;
}

async fn others_look(size: Size) {
    let app = Setup::new(size).start().await;
    app.sign_up("role@keys.example", 10, false).await;
    let person = Person::login(&app, "role@keys.example", PASSWORD).await;
    let (id, _) = make(&app, &person, "mine").await;
    for role in ["member", "viewer"] {
        let change = format!("UPDATE memberships SET role = '{role}'");
        assert!(sql::execute(&app.database_url(), &change).await >= 1);
        let list = person.get("/keys").await.expect(200);
        list.assert_has(&id);
        for control in ["Generate key", "Actions", "/disable", "/delete"] {
            list.assert_lacks(control);
        }
        person.get(&format!("/keys/{id}/receipt")).await.expect(200);
        person.get("/requests").await.expect(200);
        person.get("/keys/new").await.expect(403);
        person.post("/keys/new", &draft("theirs", "1")).await.expect(403);
        for action in ["disable", "enable", "rotate", "limits", "delete"] {
            let path = format!("/keys/{id}/{action}");
            person.get(&path).await.expect(403);
            person.post(&path, &[("password", PASSWORD), ("grace", "0")]).await.expect(403);
        }
    }
    let count = "SELECT count(*) FROM api_keys WHERE disabled OR deleted_at IS NOT NULL";
    assert_eq!(sql::number(&app.database_url(), count).await, 0, "nothing was changed");
    app.finish().await;
}

async fn forms_and_accounts_are_apart(size: Size) {
    let app = Setup::new(size).start().await;
    app.sign_up("one@keys.example", 10, false).await;
    let other = app.customer(10).await;
    let one = Person::login(&app, "one@keys.example", PASSWORD).await;
    let (id, _) = make(&app, &one, "mine").await;
    // What is another's is not there.
    let list = one.get("/keys").await.expect(200);
    list.assert_lacks(&other.key.id);
    one.get(&format!("/keys/{}/receipt", other.key.id)).await.expect(404);
    for action in ["disable", "enable", "rotate", "limits", "delete", "nothing"] {
        let path = format!("/keys/{}/{action}", other.key.id);
        one.get(&path).await.expect(404);
        one.get("/keys/new").await.expect(200);
        one.post(&path, &[("password", PASSWORD), ("grace", "0")]).await.expect(404);
    }
    for id in ["key_0", "new", "key_zzz"] {
        one.get(&format!("/keys/{id}/disable")).await.expect(404);
    }
    other.client.get("/v1/tasks").await.expect(200);
    one.get(&format!("/requests?key={}", other.key.id)).await.expect(200).assert_lacks("<tbody>");
    // A form without its token does nothing, and neither does one without the password.
    for csrf in ["", "0", &"0".repeat(64)] {
        one.post_with(csrf, "/keys/new", &draft("stolen", "1")).await.expect(403);
        one.post_with(csrf, &format!("/keys/{id}/disable"), &[]).await.expect(403);
    }
    let count = "SELECT count(*) FROM api_keys WHERE disabled OR label = 'stolen'";
    assert_eq!(sql::number(&app.database_url(), count).await, 0);
    let old = "UPDATE sessions SET proven_at = 0";
    sql::execute(&app.database_url(), old).await;
    one.get(&format!("/keys/{id}/delete")).await.expect(200).assert_has("type=\"password\"");
    for password in ["", "wrong password"] {
        let page = one.post(&format!("/keys/{id}/delete"), &[("password", password)]).await;
        page.expect(422).assert_has("role=\"alert\"");
    }
    one.post(&format!("/keys/{id}/delete"), &[("password", PASSWORD)]).await.expect(303);
    // Without a session one is sent to log in.
    let nobody = Person::login(&app, "one@keys.example", PASSWORD).await;
    nobody.forget_cookies();
    let sent = nobody.get("/keys?q=a").await.expect(303);
    assert!(sent.location.expect("login").starts_with("/login?next="));
    nobody.post("/keys/new", &draft("x", "1")).await;
    app.finish().await;
}

async fn requests_are_found(size: Size) {
    let app = Setup::new(size).start().await;
    app.sign_up("log@keys.example", 10, false).await;
    let owner = Person::login(&app, "log@keys.example", PASSWORD).await;
    owner.get("/requests").await.expect(200).assert_has("No requests yet");
    let (id, key) = make(&app, &owner, LABEL).await;
    let client = app.client(&key);
    for _ in 0..60 {
        client.get("/v1/tasks").await.expect(200);
    }
    client.post("/v1/keys", &json!({ "label": "more" })).await.expect(403);
    // Each process writes its own share of the log: the refusal of one may stand before what
    // another has answered.
    eventually("the log has all of them", Duration::from_secs(30), || async {
        let refused = client.get("/v1/requests?outcome=scope").await.expect(200).json();
        let refused = refused["data"].as_array().is_some_and(|rows| !rows.is_empty());
        let page = owner.get("/requests").await.expect(200);
        (refused && page.text.contains("rel=\"next\"")).then_some(())
    })
    .await;
    let page = owner.get("/requests").await.expect(200);
    page.assert_has(SHOWN);
    page.assert_lacks("<script>alert");
    page.assert_lacks(&key);
    let (_, older) = page.text.split_once("rel=\"next\"").map_or(("", ""), |parts| parts);
    assert!(!older.is_empty(), "there is a second page");
    let scope = owner.get("/requests?outcome=scope").await.expect(200);
    assert_eq!(scope.text.matches("<th scope=\"row\">").count(), 1);
    scope.assert_has("Scope missing");
    for (filter, found) in [
        (format!("key={id}"), true),
        (format!("key={}", &key[..8]), true),
        (String::from("key=no-such-label"), false),
        (String::from("network=127.0.0.0%2F8"), true),
        (String::from("network=192.0.2.1"), false),
        (String::from("from=2020-01-01T00%3A00"), true),
        (String::from("to=2020-01-01T00%3A00"), false),
        (format!("key={id}&outcome=scope&network=127.0.0.1"), true),
        (format!("key={id}&outcome=expired"), false),
    ] {
        let page = owner.get(&format!("/requests?{filter}")).await.expect(200);
        assert_eq!(page.text.contains("<tbody>"), found, "{filter}");
    }
    for wrong in ["network=nonsense", "from=yesterday", "outcome=none"] {
        let page = owner.get(&format!("/requests?{wrong}")).await.expect(200);
        page.assert_has("role=\"alert\"");
    }
    app.finish().await;
}
