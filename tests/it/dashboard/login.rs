//! Logging in and out: who gets in, what a session is, and where one is sent.

use std::time::{Duration, Instant};

use listmill_tests::dashboard::{PASSWORD, SESSION};
use listmill_tests::{Browser, Person, Setup, Size, for_each_size};
use reqwest::Method;

use super::{PAGES, browsed, sends_to_login};

for_each_size!(
    sessions_are_their_own,
    next_is_a_page_of_ours,
    who_is_known_is_not_told,
    guessing_is_slowed,
    uses_of_links_are_counted_by_network,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_browser() {
    let size = Size::Embedded;
    let app = browsed(size).env("LISTMILL_SIGN_UP", "on").start().await;
    let login = app.person(100).await;
    let browser = Browser::start(&app).await;
    browser.open("/signup").await;
    browser.heading("Create an account").wait().await;
    browser.assert_accessible("sign-up").await;
    browser.open("/keys?q=abc").await;
    browser.wait_path("/login?next=").await;
    browser.heading("Log in").wait().await;
    browser.assert_accessible("login").await;

    browser.forgive("status of 422");
    browser.field("Email").fill(&login.email).await;
    browser.field("Password").fill("wrong horse battery").await;
    browser.button("Log in").click().await;
    browser.wait_for("not right").await;
    assert_eq!(browser.field("Email").value().await, login.email, "it need not be typed again");
    assert_eq!(browser.field("Password").value().await, "");
    assert!(browser.cookie(SESSION).await.is_none());
    browser.assert_accessible("login refused").await;

    login.fill_in(&browser).await;
    browser.heading("API keys").wait().await;
    assert_eq!(browser.path().await, "/keys?q=abc", "where they wanted to go");
    let cookie = browser.cookie(SESSION).await.expect("a session");
    assert_eq!(cookie.http_only, Some(true));
    assert_eq!(format!("{:?}", cookie.same_site), "Some(Lax)");
    let seen = browser.script("return document.cookie", vec![]).await;
    assert!(!seen.to_string().contains(SESSION), "no script sees it: {seen}");

    browser.button("Log out").click().await;
    browser.heading("Log in").wait().await;
    browser.back().await;
    browser.open("/tasks").await;
    browser.wait_path("/login?next=").await;
    browser.finish().await;
    app.finish().await;
}

async fn sessions_are_their_own(size: Size) {
    let app = Setup::new(size).start().await;
    let login = app.person(100).await;
    let stranger = Person::stranger(&app);
    for path in PAGES {
        assert!(sends_to_login(&stranger, path).await, "{path}");
    }

    // What somebody else has set before is not the session afterwards.
    let planted = "0".repeat(64);
    stranger.set_cookie(SESSION, &planted);
    assert!(sends_to_login(&stranger, "/tasks").await, "it opens nothing");
    let page = stranger.try_login(&login.email, PASSWORD).await.expect_redirect("/tasks");
    let line = page.reply.headers.get_all("set-cookie").iter();
    let line = line.filter_map(|line| line.to_str().ok()).find(|line| line.starts_with(SESSION));
    let line = line.expect("a session").to_ascii_lowercase();
    for word in ["httponly", "samesite=lax", "path=/"] {
        assert!(line.contains(word), "{line}");
    }
    let first = stranger.cookie(SESSION).expect("a session");
    assert_ne!(first, planted);
    stranger.get("/tasks").await.expect(200);

    // A second login ends what was there before, and is another value.
    let person = login.person(&app).await;
    let old = person.cookie(SESSION).expect("a session");
    let again = person.get("/login").await;
    assert_eq!(again.status, 303, "who is logged in need not log in: {}", again.reply);

    // Logged out, the old value is of no use to whoever kept it.
    person.get("/tasks").await.expect(200);
    person.post("/logout", &[]).await.expect_redirect("/login");
    assert!(person.cookie(SESSION).is_none(), "the browser forgets it");
    let thief = Person::stranger(&app);
    thief.set_cookie(SESSION, &old);
    assert!(sends_to_login(&thief, "/tasks").await, "the server has forgotten it");
    stranger.get("/tasks").await.expect(200);

    // One of two sessions ends the other from the account's page.
    let other = login.person(&app).await;
    stranger.submit("/account", "/account/sessions/end", &[]).await.expect(303);
    assert!(sends_to_login(&other, "/tasks").await, "it was ended");
    stranger.get("/tasks").await.expect(200);

    // So does another password.
    let other = login.person(&app).await;
    stranger.get("/account").await.expect(200);
    let new = "another battery staple";
    let fields = [("old", PASSWORD), ("new", new)];
    stranger.post("/account/password", &fields).await.expect(303);
    assert!(sends_to_login(&other, "/tasks").await, "the password is another");
    stranger.get("/tasks").await.expect(200);
    let late = Person::stranger(&app).try_login(&login.email, PASSWORD).await;
    assert_eq!(late.status, 422, "{}", late.reply);
    Person::login(&app, &login.email, new).await;
    app.finish().await;
}

async fn next_is_a_page_of_ours(size: Size) {
    let app = Setup::new(size).start().await;
    let login = app.person(1).await;
    for (next, to) in [
        ("/credits", "/credits"),
        ("/keys?q=a&state=active", "/keys?q=a&state=active"),
        ("//evil.example", "/tasks"),
        ("https://evil.example", "/tasks"),
        ("/\\evil.example", "/tasks"),
        ("\\\\evil.example", "/tasks"),
        ("/\t/evil.example", "/tasks"),
        ("javascript:alert(1)", "/tasks"),
        ("/logout", "/tasks"),
        ("", "/tasks"),
    ] {
        // As the form has it, and as somebody else may have written it.
        let person = Person::stranger(&app);
        let coded: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let page = person.get(&format!("/login?next={coded}")).await.expect(200);
        let kept = page.field("next").expect("the field");
        assert_eq!(kept, to, "{next:?}");
        let fields = [("email", login.email.as_str()), ("password", PASSWORD), ("next", next)];
        person.post("/login", &fields).await.expect_redirect(to);
        let page = person.get(&format!("/login?next={coded}")).await;
        page.expect_redirect(to);
    }
    app.finish().await;
}

/// Unknown, without a password, wrong password: the same answer, and the same work for it.
async fn who_is_known_is_not_told(size: Size) {
    let app = Setup::new(size).start().await;
    let login = app.person(1).await;
    let args = ["admin", "account", "create", "--email", "nopassword@customer.example", "--json"];
    app.cli(&args).await.expect_success();
    let mut answers = Vec::new();
    for email in [login.email.as_str(), "nobody@customer.example", "nopassword@customer.example"] {
        let person = Person::stranger(&app);
        let mut times = Vec::new();
        let mut text = String::new();
        for _ in 0..7 {
            let started = Instant::now();
            let page = person.try_login(email, "not the password").await.expect(422);
            times.push(started.elapsed());
            // The token differs in each page; the email is what was typed.
            let csrf = page.csrf().expect("a token");
            text = page.text.replace(&csrf, "").replace(email, "");
            assert!(person.cookie(SESSION).is_none());
        }
        times.sort_unstable();
        answers.push((text, times[times.len() / 2]));
    }
    for (text, time) in &answers[1..] {
        assert_eq!(text, &answers[0].0);
        // Coarse: the machine has other work. Without the hash it would be a tenth.
        assert!(*time * 4 > answers[0].1, "{answers:#?}");
        assert!(*time < answers[0].1 * 4, "{answers:#?}");
    }
    app.finish().await;
}

async fn guessing_is_slowed(size: Size) {
    let app = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on").start().await;
    let login = app.person(1).await;
    let person = Person::stranger(&app);
    let mut refused = 0;
    let started = Instant::now();
    loop {
        let page = person.try_login(&login.email, "not the password").await;
        match page.status {
            422 => refused += 1,
            429 => {
                assert!(page.reply.header("retry-after").is_some(), "{}", page.reply);
                break;
            }
            _ => panic!("{}", page.reply),
        }
        assert!(refused < 50, "nobody slows it, over all processes together");
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    // The right password has to wait too, and another person does not.
    assert_eq!(person.try_login(&login.email, PASSWORD).await.status, 429);
    let other = app.person(1).await;
    Person::login(&app, &other.email, PASSWORD).await;
    app.finish().await;
}

/// Nobody who guesses links keeps people elsewhere from using theirs.
async fn uses_of_links_are_counted_by_network(size: Size) {
    let setup = Setup::new(size).env("LISTMILL_RATE_LIMITS", "on");
    let app = setup.env("LISTMILL_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let person = Person::stranger(&app);
    let path = format!("/login/link/{}", "0".repeat(64));
    let look = |network: u8| {
        let from = format!("203.0.113.{network}");
        person.send(person.request(Method::GET, &path).header("x-forwarded-for", from))
    };
    for network in 1..=11 {
        for _ in 0..10 {
            look(network).await.expect(422);
        }
    }
    look(12).await.expect(422);
    for _ in 10..100 {
        look(1).await.expect(422);
    }
    let page = look(1).await.expect(429);
    assert!(page.reply.header("retry-after").is_some(), "{}", page.reply);
    look(2).await.expect(422);
    app.finish().await;
}
