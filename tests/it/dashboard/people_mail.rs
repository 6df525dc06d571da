//! What people get by mail, and accounts of their own: lost passwords, sign-up, invitations.
//!
//! The mails go to a server of the harness ([`Letterbox`]).

use std::time::{Duration, Instant};

use listmill_tests::dashboard::{PASSWORD, Page, SESSION};
use listmill_tests::letterbox::{Letterbox, Manner};
use listmill_tests::{Deployment, Login, Person, Setup, Size, eventually, for_each_size, sql};
use reqwest::Method;

use super::sends_to_login;

for_each_size!(
    a_lost_password_is_reset_by_mail,
    one_time_codes_outlast_a_reset,
    who_signs_up_confirms_their_address,
    invitations_come_by_mail_and_are_withdrawn,
);

const NEW: &str = "another battery staple";

/// A deployment whose mails go there; its own address is another than the one it is asked at.
fn posting(size: Size, url: &str) -> Setup {
    Setup::new(size)
        .env("LISTMILL_SMTP_URL", url)
        .env("LISTMILL_MAIL_FROM", "Listmill <post@listmill.example>")
        .env("LISTMILL_PUBLIC_URL", "https://listmill.example")
}

/// Fills in a page that asks for an email.
async fn ask(person: &Person, path: &str, email: &str) -> Page {
    person.get(path).await.expect(200);
    person.post(path, &[("email", email)]).await
}

async fn use_link(app: &Deployment, link: &str, password: &str) -> (Person, Page) {
    let person = Person::stranger(app);
    person.get(link).await.expect(200);
    let page = person.post(link, &[("password", password)]).await;
    (person, page)
}

/// It says that it was used or has expired, to who looks and to who sends its form.
async fn assert_dead(app: &Deployment, link: &str) {
    let person = Person::stranger(app);
    let page = person.get(link).await.expect(422);
    assert!(page.words().contains("was used or has expired"), "{}", page.words());
    person.get("/login").await.expect(200);
    person.post(link, &[("password", "yet another password")]).await.expect(422);
    assert!(person.cookie(SESSION).is_none());
}

async fn a_lost_password_is_reset_by_mail(size: Size) {
    let letterbox = Letterbox::start(Manner::Takes).await;
    let app = posting(size, &letterbox.url()).start().await;
    let login = app.person(1).await;
    let elsewhere = login.person(&app).await;
    let person = Person::stranger(&app);
    person.get("/login").await.expect(200).assert_has("href=\"/login/forgot\"");

    // The same answer for anybody.
    let unknown = ask(&person, "/login/forgot", "nobody@customer.example").await;
    let known = ask(&person, "/login/forgot", &login.email.to_uppercase()).await;
    assert_eq!(unknown.text, known.text);
    let notice = |page: &Page| page.reply.header("set-cookie").map(str::to_owned);
    assert_eq!(notice(&unknown), notice(&known));
    unknown.expect_redirect("/login");
    known.expect_redirect("/login");
    assert!(person.get("/login").await.words().contains("a link is on its way"));

    let mail = letterbox.mail(&login.email, 0).await;
    assert_eq!(mail.from, "post@listmill.example");
    assert_eq!(mail.header("subject"), Some("Choose a new password"));
    assert_eq!(mail.header("auto-submitted"), Some("auto-generated"));
    assert!(mail.text.contains("https://listmill.example/login/link/"), "{}", mail.text);

    // A password that cannot be uses nothing up; one that can ends what was there.
    let link = mail.link();
    let short = use_link(&app, &link, "short").await.1.expect(422);
    assert!(short.words().contains("New password"), "{}", short.words());
    let (owner, page) = use_link(&app, &link, NEW).await;
    page.expect_redirect("/tasks");
    owner.get("/tasks").await.expect(200);
    assert!(sends_to_login(&elsewhere, "/tasks").await, "another session goes on");
    Person::stranger(&app).try_login(&login.email, PASSWORD).await.expect(422);
    Person::login(&app, &login.email, NEW).await;
    assert_dead(&app, &link).await;

    // Of two links the use of one ends the other.
    ask(&person, "/login/forgot", &login.email).await.expect(303);
    let first = letterbox.mail(&login.email, 1).await.link();
    ask(&person, "/login/forgot", &login.email).await.expect(303);
    let second = letterbox.mail(&login.email, 2).await.link();
    use_link(&app, &first, PASSWORD).await.1.expect(303);
    assert_dead(&app, &second).await;

    // After an hour; and the link is ours, whatever a request says of its host.
    person.get("/login/forgot").await.expect(200);
    let forged = person.request(Method::POST, "/login/forgot").header("host", "evil.example");
    let forged = forged.header("content-type", "application/x-www-form-urlencoded");
    let body = format!("csrf={}&email={}", person.csrf(), login.email);
    person.send(forged.body(body)).await.expect(303);
    let mail = letterbox.mail(&login.email, 3).await;
    assert!(!mail.text.contains("evil.example"), "{}", mail.text);
    let aged = format!(
        "UPDATE person_links SET ends_at = ends_at - 3600000 WHERE email = '{}'",
        login.email
    );
    assert_eq!(sql::execute(&app.database_url(), &aged).await, 1);
    assert_dead(&app, &mail.link()).await;

    let stray: Vec<_> =
        letterbox.mails().into_iter().filter(|mail| mail.to != [login.email.as_str()]).collect();
    assert!(stray.is_empty(), "{stray:?}");
    app.finish().await;
}

async fn one_time_codes_outlast_a_reset(size: Size) {
    let letterbox = Letterbox::start(Manner::Takes).await;
    let app = posting(size, &letterbox.url()).start().await;
    let login = app.person(1).await;
    let on = format!("UPDATE people SET code_on = TRUE WHERE email = '{}'", login.email);
    assert_eq!(sql::execute(&app.database_url(), &on).await, 1);
    ask(&Person::stranger(&app), "/login/forgot", &login.email).await.expect(303);
    let link = letterbox.mail(&login.email, 0).await.link();
    let (person, page) = use_link(&app, &link, NEW).await;
    page.expect_redirect("/login");
    assert!(person.cookie(SESSION).is_none(), "a reset alone lets nobody in");
    let asked = person.try_login(&login.email, NEW).await.expect(200);
    assert!(asked.words().contains("One-time code"), "{}", asked.words());
    assert!(person.cookie(SESSION).is_none());
    person.try_login(&login.email, PASSWORD).await.expect(422);
    app.finish().await;
}

async fn accounts_of(app: &Deployment, email: &str) -> i64 {
    let query = format!("SELECT count(*) FROM accounts WHERE email = '{email}'");
    sql::number(&app.database_url(), &query).await
}

async fn who_signs_up_confirms_their_address(size: Size) {
    let letterbox = Letterbox::start(Manner::Takes).await;
    let setup = posting(size, &letterbox.url()).env("LISTMILL_SIGN_UP", "on");
    let app = setup.env("LISTMILL_SIGN_UP_CREDITS", "25").start().await;
    let login = app.person(1).await;
    let person = Person::stranger(&app);
    person.get("/login").await.expect(200).assert_has("href=\"/signup\"");
    let page = person.get("/signup").await.expect(200);
    assert!(page.field("password").is_none(), "it is chosen by who has the mail");

    let email = "new.person@customer.example";
    let unknown = ask(&person, "/signup", email).await;
    let known = ask(&person, "/signup", &login.email).await;
    let notice = |page: &Page| page.reply.header("set-cookie").map(str::to_owned);
    assert_eq!((&unknown.text, notice(&unknown)), (&known.text, notice(&known)));
    unknown.expect_redirect("/login");
    known.expect_redirect("/login");
    let told = letterbox.mail(&login.email, 0).await;
    assert_eq!(told.header("subject"), Some("You have an account already"));
    assert!(!told.text.contains("/login/link/"), "{}", told.text);
    let link = letterbox.mail(email, 0).await.link();
    ask(&person, "/signup", email).await.expect(303);
    let other = letterbox.mail(email, 1).await.link();
    assert_eq!(accounts_of(&app, email).await, 0, "nobody has confirmed it");

    use_link(&app, &link, "short").await.1.expect(422);
    let (owner, page) = use_link(&app, &link, PASSWORD).await;
    page.expect_redirect("/tasks");
    assert_eq!(accounts_of(&app, email).await, 1);
    let credits = owner.get("/credits").await.expect(200).words();
    assert!(credits.contains("25") && credits.contains("sign-up"), "{credits}");
    Person::login(&app, email, PASSWORD).await;
    for dead in [&link, &other] {
        assert_dead(&app, dead).await;
    }

    // What is no address, or more than one, is sent nothing.
    let before = letterbox.mails().len();
    for wrong in [
        "eve@x.example\r\nBcc: all@x.example",
        "eve@x.example,all@x.example",
        "eve@x.example all@x.example",
        "<eve@x.example>",
        "eve@x.example\0",
        "eve",
    ] {
        for path in ["/signup", "/login/forgot"] {
            ask(&person, path, wrong).await.expect(422).assert_lacks("<eve@");
        }
    }
    ask(&person, "/signup", "last@customer.example").await.expect(303);
    letterbox.mail("last@customer.example", 0).await;
    assert_eq!(letterbox.mails().len(), before + 1);
    app.finish().await;
}

async fn invite(owner: &Person, email: &str, role: &str) -> Page {
    owner.get("/account/invite").await.expect(200);
    let fields = [("email", email), ("role", role), ("password", PASSWORD)];
    owner.post("/account/invite", &fields).await
}

async fn withdraw(person: &Person, email: &str) -> Page {
    person.get("/account").await.expect(200);
    person.post("/account/invite/withdraw", &[("email", email)]).await
}

async fn invitations_come_by_mail_and_are_withdrawn(size: Size) {
    let letterbox = Letterbox::start(Manner::Takes).await;
    let app = posting(size, &letterbox.url()).start().await;
    let (login, other): (Login, Login) = (app.person(1).await, app.person(1).await);
    let (owner, foreign) = (login.person(&app).await, other.person(&app).await);
    // A name as somebody else may have written it.
    let name = format!(
        "UPDATE accounts SET email = 'Acme\r\nBcc: eve@x.example' WHERE email = '{}'",
        login.email
    );
    assert_eq!(sql::execute(&app.database_url(), &name).await, 1);

    let (member, guest) = ("member@colleagues.example", "guest@colleagues.example");
    let made = invite(&owner, member, "member").await;
    made.assert_lacks("/login/link/");
    made.expect_redirect("/account");
    let page = owner.get("/account").await.expect(200);
    assert!(page.words().contains("on its way to member@colleagues.example"));
    page.assert_lacks("/login/link/");
    for text in [member, "Member", "Withdraw"] {
        page.assert_has(text);
    }
    let mail = letterbox.mail(member, 0).await;
    assert_eq!(mail.to, [member]);
    assert!(mail.header("bcc").is_none() && !mail.text.contains("\nBcc:"), "{mail:?}");
    for text in [login.email.as_str(), "Acme", "https://listmill.example/login/link/"] {
        assert!(mail.text.contains(text), "{text}: {}", mail.text);
    }
    let (member_of, page) = use_link(&app, &mail.link(), PASSWORD).await;
    page.expect_redirect("/tasks");
    owner.get("/account").await.expect(200).assert_lacks("Withdraw");

    // A second invitation takes the place of the first.
    invite(&owner, guest, "viewer").await.expect(303);
    let first = letterbox.mail(guest, 0).await.link();
    invite(&owner, guest, "owner").await.expect(303);
    let second = letterbox.mail(guest, 1).await.link();
    assert_dead(&app, &first).await;
    let rows = owner.get("/account").await.expect(200);
    assert_eq!(rows.text.matches("value=\"guest@colleagues.example\"").count(), 1);

    // Owners of this account alone see it and take it back.
    member_of.get("/account").await.expect(200).assert_lacks(guest);
    withdraw(&member_of, guest).await.expect(403);
    withdraw(&foreign, guest).await.expect(303);
    Person::stranger(&app).get(&second).await.expect(200);
    withdraw(&owner, guest).await.expect_redirect("/account");
    assert!(owner.get("/account").await.words().contains("is withdrawn"));
    owner.get("/account").await.expect(200).assert_lacks("Withdraw");
    assert_dead(&app, &second).await;
    app.finish().await;
}

/// It takes a connection and says nothing: pages are answered all the same, and nothing secret is logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_mail_server_delays_nobody() {
    let letterbox = Letterbox::start(Manner::Silent).await;
    let secret = "mail-server-password";
    let url = format!("smtp://me:{secret}@{}", letterbox.address);
    let app = posting(Size::Embedded, &url).env("LISTMILL_SIGN_UP", "on").start().await;
    app.keep_secret(secret);
    app.keep_secret("quiet.person@customer.example");
    let login = app.person(1).await;
    let owner = login.person(&app).await;
    let person = Person::stranger(&app);
    let started = Instant::now();
    for number in 0..20 {
        ask(&person, "/login/forgot", &login.email).await.expect(303);
        ask(&person, "/signup", &format!("p{number}@customer.example")).await.expect(303);
    }
    ask(&person, "/signup", "quiet.person@customer.example").await.expect(303);
    invite(&owner, "colleague@customer.example", "viewer").await.expect(303);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    eventually("it is asked", Duration::from_secs(10), || async {
        (letterbox.connections() > 0).then_some(())
    })
    .await;
    app.finish().await;
}

/// What is put off is tried again; one address gets a few mails in an hour, whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_are_tried_again_and_bounded() {
    let letterbox = Letterbox::start(Manner::Later(1)).await;
    let app = posting(Size::Embedded, &letterbox.url()).start().await;
    let (login, other) = (app.person(1).await, app.person(1).await);
    let person = Person::stranger(&app);
    for _ in 0..9 {
        ask(&person, "/login/forgot", &login.email).await.expect(303);
    }
    letterbox.mail(&login.email, 4).await;
    ask(&person, "/login/forgot", &other.email).await.expect(303);
    letterbox.mail(&other.email, 0).await;
    let to_first = letterbox.mails().iter().filter(|mail| mail.to == [&*login.email]).count();
    assert_eq!(to_first, 5);
    // Six were sent, and one of them was tried twice.
    eventually("all are counted", Duration::from_secs(30), || async {
        app.apis[0].metric("listmill_mails_total").await.filter(|counted| *counted == 7.0)
    })
    .await;
    // An invitation that may not be sent is shown.
    let owner = other.person(&app).await;
    invite(&owner, &login.email, "viewer").await.expect(200).assert_has("/login/link/");
    app.finish().await;
}

/// Where encryption is asked for and not offered, nothing is said: neither password nor mail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_in_the_clear_unasked() {
    let letterbox = Letterbox::start(Manner::Takes).await;
    let app = posting(Size::Embedded, &format!("{}?tls=required", letterbox.url())).start().await;
    let login = app.person(1).await;
    ask(&Person::stranger(&app), "/login/forgot", &login.email).await.expect(303);
    let tried = || async { app.apis[0].metric("listmill_mails_total").await.filter(|n| *n > 0.0) };
    eventually("a try", Duration::from_secs(20), tried).await;
    assert!(letterbox.connections() > 0 && letterbox.mails().is_empty());
    app.finish().await;
}

async fn sign_up(app: &Deployment, email: &str, password: &str) -> (Person, Page) {
    let person = Person::stranger(app);
    person.get("/signup").await.expect(200);
    let page = person.post("/signup", &[("email", email), ("password", password)]).await;
    (person, page)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mail_an_account_is_there_at_once() {
    let app = Setup::new(Size::Embedded)
        .env("LISTMILL_SIGN_UP", "on")
        .env("LISTMILL_SIGN_UP_CREDITS", "7")
        .env("LISTMILL_RATE_LIMITS", "on")
        .start()
        .await;
    let login = app.person(1).await;
    let person = Person::stranger(&app);
    person.get("/login").await.expect(200).assert_lacks("/login/forgot");
    person.get("/login/forgot").await.expect(404);
    sign_up(&app, "new@customer.example", "short").await.1.expect(422);
    let (owner, page) = sign_up(&app, "New@customer.example", PASSWORD).await;
    page.expect_redirect("/tasks");
    owner.get("/credits").await.expect(200).assert_has("7");
    owner.get("/signup").await.expect_redirect("/tasks");
    let known = sign_up(&app, "new@Customer.example", NEW).await.1.expect(422);
    assert!(known.words().contains("an account with this email already"), "{}", known.words());
    Person::login(&app, "new@customer.example", PASSWORD).await;
    sign_up(&app, &login.email, NEW).await.1.expect(422);
    login.person(&app).await;
    // So many in an hour from one network.
    let mut last = 422;
    for _ in 0..7 {
        last = sign_up(&app, "new@customer.example", NEW).await.1.status;
    }
    assert_eq!(last, 429);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_off_is_not_there() {
    let app = Setup::new(Size::Embedded).start().await;
    let person = Person::stranger(&app);
    let page = person.get("/login").await.expect(200);
    page.assert_lacks("/signup");
    page.assert_lacks("/login/forgot");
    for path in ["/signup", "/login/forgot"] {
        person.get(path).await.expect(404);
        let fields = [("email", "eve@x.example"), ("password", PASSWORD)];
        person.get("/login").await.expect(200);
        person.post(path, &fields).await.expect(404);
    }
    assert_eq!(accounts_of(&app, "eve@x.example").await, 0);
    app.finish().await;
}
