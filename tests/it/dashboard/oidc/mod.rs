//! Logging in by OpenID Connect: who gets in, and everything that must not help.

mod issuer;

use std::time::{Duration, Instant};

use listmill_tests::dashboard::{PASSWORD, SESSION};
use listmill_tests::{Person, Setup, Size, for_each_size};
use ring::hmac;
use serde_json::{Value, json};

use self::issuer::{
    HERE, Issuer, NAME, SECRET, Trip, begin, come_back, es_key, press, signed, signed_by,
};
use super::sends_to_login;

/// The cookie of a log-in that is under way.
const COOKIE: &str = "listmill_oidc";

for_each_size!(whom_the_issuer_knows_is_let_in, what_comes_back_is_of_use_once);

/// Nobody is logged in, and the page says why and what to do.
fn assert_refused(person: &Person, page: &listmill_tests::dashboard::Page, what: &str) {
    assert_eq!(page.status, 403, "{what}: {}", page.reply);
    assert!(person.cookie(SESSION).is_none(), "{what}");
    assert!(person.cookie(COOKIE).is_none(), "{what}: nothing is kept");
    page.assert_has("role=\"alert\"");
    page.assert_has("action=\"/login/oidc\"");
}

async fn whom_the_issuer_knows_is_let_in(size: Size) {
    let issuer = Issuer::start().await;
    let app = issuer.setup(size).start().await;
    app.keep_secret(SECRET);
    let login = app.person(1).await;
    let person = Person::stranger(&app);
    let page = person.get("/login?next=%2Fcredits").await.expect(200);
    assert!(page.words().contains(&format!("Log in with {NAME}")), "{}", page.words());

    let trip = begin(&person, "/credits").await;
    assert!(trip.to.starts_with(&format!("{}/authorize?", issuer.url())), "{}", trip.to);
    for (name, value) in [
        ("response_type", "code"),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
        ("redirect_uri", &format!("{HERE}/login/oidc/back")),
    ] {
        assert_eq!(trip.field(name), value);
    }
    for (name, value) in &trip.fields {
        let kept = person.cookie(COOKIE).expect("a cookie");
        assert!(!value.contains(&kept), "{name} tells the cookie");
    }
    let email = login.email.to_uppercase();
    let token = issuer.es256(&issuer.claims(&trip, "ada", &email));
    app.keep_secret(&token);
    let code = issuer.grant(&trip, token);
    let page = come_back(&person, &code, trip.field("state")).await;
    page.expect_redirect("/credits");
    assert!(person.cookie(COOKIE).is_none(), "used up");
    person.get("/credits").await.expect(200).assert_has(&login.email);

    // From now on the issuer's name for them is enough, whatever their email is there.
    let again = Person::stranger(&app);
    let page = issuer.log_in(&again, "/keys", |trip| {
        let mut claims = issuer.claims(trip, "ada", "somebody@else.example");
        claims["email_verified"] = json!(false);
        claims["aud"] = json!([issuer::CLIENT]);
        issuer.es256(&claims)
    });
    page.await.expect_redirect("/keys");
    again.get("/keys").await.expect(200).assert_has(&login.email);

    // RS256, and no page of somebody else's.
    let other = app.person(1).await;
    let person = Person::stranger(&app);
    let page = issuer.log_in(&person, "//evil.example", |trip| {
        issuer.rs256(&issuer.claims(trip, "bert", &other.email))
    });
    page.await.expect_redirect("/tasks");
    person.get("/tasks").await.expect(200).assert_has(&other.email);
    // What is final asks for the password that they have.
    person.get("/keys/new").await.expect(200).assert_has("type=\"password\"");

    // An email that the issuer gives to somebody else leads to nobody, until that is settled here.
    let heir = |trip: &Trip| issuer.es256(&issuer.claims(trip, "carol", &other.email));
    let person = Person::stranger(&app);
    let page = issuer.log_in(&person, "/tasks", heir).await;
    assert_refused(&person, &page, "an inherited email");
    app.cli(&["admin", "account", "disconnect", "--email", &other.email]).await.expect_success();
    issuer.log_in(&person, "/tasks", heir).await.expect_redirect("/tasks");
    app.finish().await;
}

async fn what_comes_back_is_of_use_once(size: Size) {
    let issuer = Issuer::start().await;
    let app = issuer.setup(size).start().await;
    let login = app.person(1).await;
    let right = |trip: &Trip| issuer.es256(&issuer.claims(trip, "ada", &login.email));

    // The state of another browser, or none, or a wrong one.
    let (victim, thief) = (Person::stranger(&app), Person::stranger(&app));
    let (own, other) = (begin(&victim, "/tasks").await, begin(&thief, "/tasks").await);
    let code = issuer.grant(&other, right(&other));
    for state in [other.field("state"), "", "wrong"] {
        let page = come_back(&victim, &code, state).await;
        assert_eq!(page.status, 403, "{state}: {}", page.reply);
        assert!(victim.cookie(SESSION).is_none());
    }
    // The code of another browser.
    let page = come_back(&victim, &code, own.field("state")).await;
    assert_refused(&victim, &page, "another's code");
    // A browser that began nothing.
    let page = come_back(&Person::stranger(&app), &code, other.field("state")).await;
    assert_eq!(page.status, 403, "{}", page.reply);

    // Twice: whoever has kept the cookie, and another code.
    let person = Person::stranger(&app);
    let trip = begin(&person, "/tasks").await;
    let cookie = person.cookie(COOKIE).expect("a cookie");
    let codes = [issuer.grant(&trip, right(&trip)), issuer.grant(&trip, right(&trip))];
    come_back(&person, &codes[0], trip.field("state")).await.expect_redirect("/tasks");
    let replayed = Person::stranger(&app);
    for code in &codes {
        replayed.set_cookie(COOKIE, &cookie);
        let page = come_back(&replayed, code, trip.field("state")).await;
        assert_refused(&replayed, &page, "a replay");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_word_is_believed() {
    let issuer = Issuer::start().await;
    let app = issuer.setup(Size::Embedded).start().await;
    let login = app.person(1).await;
    let with = |trip: &Trip, name: &str, value: Value| {
        let mut claims = issuer.claims(trip, "ada", &login.email);
        claims[name] = value;
        issuer.es256(&claims)
    };
    let now = |trip: &Trip| issuer.claims(trip, "", "")["iat"].as_i64().expect("a time");
    let right = |trip: &Trip| issuer.claims(trip, "ada", &login.email);
    let shared = |trip: &Trip, key: &[u8]| {
        let header = json!({ "alg": "HS256", "kid": "es" });
        signed(&header, &right(trip), |message| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
        })
    };
    let stranger = es_key();
    type Forge<'a> = Box<dyn Fn(&Trip) -> String + 'a>;
    let forged: [(&str, Forge<'_>); 21] = [
        ("another nonce", Box::new(|trip| with(trip, "nonce", json!("x")))),
        ("no nonce", Box::new(|trip| with(trip, "nonce", Value::Null))),
        (
            "no signature",
            Box::new(|trip| {
                signed(&json!({ "alg": "none", "kid": "es" }), &right(trip), |_| Vec::new())
            }),
        ),
        ("a shared secret: the public key", Box::new(|trip| shared(trip, issuer.public()))),
        ("a shared secret: the client's", Box::new(|trip| shared(trip, SECRET.as_bytes()))),
        ("another key", Box::new(|trip| signed_by(&stranger, "es", &right(trip)))),
        ("a key that is not shown", Box::new(|trip| signed_by(&stranger, "new", &right(trip)))),
        (
            "ES256 said of an RSA signature",
            Box::new(|trip| {
                let token = issuer.rs256(&right(trip));
                let (_, rest) = token.split_once('.').expect("a header");
                let header = json!({ "alg": "ES256", "kid": "es" });
                format!("{}.{rest}", issuer::coded(header.to_string()))
            }),
        ),
        (
            "claims changed afterwards",
            Box::new(|trip| {
                let token = with(trip, "email", json!("x@x.example"));
                let parts: Vec<&str> = token.split('.').collect();
                format!("{}.{}.{}", parts[0], issuer::coded(right(trip).to_string()), parts[2])
            }),
        ),
        ("for another client", Box::new(|trip| with(trip, "aud", json!("somebody")))),
        (
            "for several, asked for by none",
            Box::new(|trip| with(trip, "aud", json!([issuer::CLIENT, "somebody"]))),
        ),
        ("asked for by another", Box::new(|trip| with(trip, "azp", json!("somebody")))),
        ("another issuer", Box::new(|trip| with(trip, "iss", json!("https://evil.example")))),
        ("expired", Box::new(|trip| with(trip, "exp", json!(now(trip) - 61)))),
        ("of long ago", Box::new(|trip| with(trip, "iat", json!(now(trip) - 3_600)))),
        ("of the future", Box::new(|trip| with(trip, "iat", json!(now(trip) + 3_600)))),
        ("nobody", Box::new(|trip| with(trip, "sub", json!("")))),
        ("an untested email", Box::new(|trip| with(trip, "email_verified", json!(false)))),
        ("a tested email, as text", Box::new(|trip| with(trip, "email_verified", json!("true")))),
        ("an email of nobody here", Box::new(|trip| with(trip, "email", json!("no@body.example")))),
        ("no token", Box::new(|_| String::from("x"))),
    ];
    for (what, forge) in forged {
        let person = Person::stranger(&app);
        let page = issuer.log_in(&person, "/tasks", forge).await;
        assert_refused(&person, &page, what);
        assert!(sends_to_login(&person, "/tasks").await, "{what}");
    }
    assert_eq!(issuer.asked_keys(), 1, "an unknown key is looked for once a minute at the most");
    // The same without anything wrong.
    let person = Person::stranger(&app);
    issuer
        .log_in(&person, "/tasks", |trip| issuer.es256(&right(trip)))
        .await
        .expect_redirect("/tasks");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_issuer_teach() {
    let issuer = Issuer::start().await;
    let app = issuer.setup(Size::Embedded).start().await;
    let person = Person::stranger(&app);
    for (error, says) in [
        ("access_denied", "did not let you go on"),
        ("server_error", "server_error"),
        ("%3Cscript%3Ealert(1)%3C%2Fscript%3E", "scriptalert1script"),
        ("", "unknown"),
    ] {
        let trip = begin(&person, "/credits").await;
        let state = trip.field("state");
        let hostile = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E";
        let path =
            format!("/login/oidc/back?error={error}&error_description={hostile}&state={state}");
        let page = person.get(&path).await;
        assert_refused(&person, &page, error);
        assert!(page.words().contains(says), "{error}: {}", page.words());
        for raw in ["<script>alert", "<img", "onerror"] {
            page.assert_lacks(raw);
        }
        assert_eq!(page.field("next").as_deref(), Some("/credits"), "where they wanted to go");
    }
    // An answer of another issuer, no code, the same field twice.
    for rest in ["code=x&iss=https%3A%2F%2Fevil.example", "x=y", "code=a&code=b"] {
        let trip = begin(&person, "/tasks").await;
        let path = format!("/login/oidc/back?{rest}&state={}", trip.field("state"));
        let page = person.get(&path).await;
        assert_eq!(page.status, 403, "{rest}: {}", page.reply);
        page.assert_has("role=\"alert\"");
    }
    let asked = issuer.asked();
    // Without the token of the form nothing begins.
    let page = person.post_with("", "/login/oidc", &[("next", "/tasks")]).await;
    assert_eq!((page.status, issuer.asked()), (403, asked), "{}", page.reply);
    app.finish().await;

    // Not set up: no button, no page.
    let app = Setup::new(Size::Embedded).start().await;
    let person = Person::stranger(&app);
    person.get("/login").await.expect(200).assert_lacks("/login/oidc");
    assert_eq!(press(&person, "/tasks").await.status, 404);
    assert_eq!(come_back(&person, "x", "y").await.status, 404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_a_domain_get_an_account() {
    let issuer = Issuer::start().await;
    let setup = issuer.setup(Size::Embedded).env("LISTMILL_OIDC_SIGN_UP", "on");
    let app = setup.env("LISTMILL_OIDC_DOMAINS", "ours.example").start().await;
    let of = |email: &'static str| {
        let (app, issuer) = (&app, &issuer);
        async move {
            let person = Person::stranger(app);
            let page = issuer.log_in(&person, "/account", |trip| {
                issuer.es256(&issuer.claims(trip, email, email))
            });
            (page.await, person)
        }
    };
    for other in ["a@theirs.example", "a@sub.ours.example", "a@ours.example.org"] {
        let (page, person) = of(other).await;
        assert_refused(&person, &page, other);
    }
    let (page, person) = of("new@ours.example").await;
    page.expect_redirect("/account");
    let page = person.get("/account").await.expect(200);
    assert!(page.words().contains("new@ours.example"), "{}", page.words());
    assert!(!page.text.contains("/operator"), "nobody becomes an operator by it");
    // Who has no password is as good as they log in.
    person.get("/keys/new").await.expect(200).assert_lacks("type=\"password\"");
    let (page, _) = of("new@ours.example").await;
    page.expect_redirect("/account");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_stands_still_stops_nobody_else() {
    let issuer = Issuer::start().await;
    let app = issuer.setup(Size::Embedded).start().await;
    let login = app.person(1).await;
    issuer.stall(true);
    let started = Instant::now();
    // Two of a network ask, or wait for what the other learns; a third is told so at once.
    let pressed = async {
        let three: Vec<Person> = (0..3).map(|_| Person::stranger(&app)).collect();
        let all = three.iter().map(|person| async {
            let page = press(person, "/tasks").await;
            page.assert_has("role=\"alert\"");
            (page.status, started.elapsed())
        });
        let mut all = futures::future::join_all(all).await;
        all.sort_unstable();
        assert_eq!(all.iter().map(|one| one.0).collect::<Vec<_>>(), [502, 502, 503]);
        assert!(all[1].1 < Duration::from_secs(15), "{all:?}");
        assert!(all[2].1 < Duration::from_secs(8), "{all:?}");
    };
    let meanwhile = async {
        issuer.wait_asked(1).await;
        Person::login(&app, &login.email, PASSWORD).await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(9), "before the issuer is given up: {took:?}");
    };
    tokio::join!(pressed, meanwhile);
    // It is well again, and nothing is remembered against it.
    issuer.stall(false);
    let person = Person::stranger(&app);
    let page = issuer
        .log_in(&person, "/tasks", |trip| issuer.es256(&issuer.claims(trip, "ada", &login.email)));
    page.await.expect_redirect("/tasks");
    app.finish().await;
}
