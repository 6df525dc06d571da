//! The dashboard without a browser: a person's session, and pages as text. For what a browser would not do.
//!
//! A [`Person`] keeps cookies as a browser would, follows no redirect by itself, and fills in the hidden
//! token of the page that they saw last.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::browser::Browser;
use crate::client::{Client, send};
use crate::deployment::Deployment;
use crate::html::{self, Form};
use crate::reply::Reply;

/// The cookie that a session is.
pub const SESSION: &str = "listmill_session";
/// The password of everybody here.
pub const PASSWORD: &str = "correct horse battery";

/// What a request was answered.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
    pub text: String,
    pub reply: Reply,
}

impl Page {
    fn of(reply: Reply) -> Self {
        Self {
            status: reply.status,
            location: reply.header("location").map(str::to_owned),
            text: reply.text(),
            reply,
        }
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.reply);
        self
    }

    pub fn expect_redirect(self, to: &str) -> Self {
        assert_eq!(self.status, 303, "{}", self.reply);
        assert_eq!(self.location.as_deref(), Some(to), "{}", self.reply);
        self
    }

    /// What a reader would see; each tag is a space.
    pub fn words(&self) -> String {
        let mut words = String::new();
        let mut outside = true;
        for character in self.text.chars() {
            match character {
                '<' => outside = false,
                '>' => {
                    outside = true;
                    words.push(' ');
                }
                _ if outside => words.push(character),
                _ => {}
            }
        }
        let words = html::unescape(&words);
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub fn assert_has(&self, text: &str) {
        assert!(self.text.contains(text), "there is no {text:?} in {}", self.text);
    }

    pub fn assert_lacks(&self, text: &str) {
        assert!(!self.text.contains(text), "there is {text:?} in {}", self.text);
    }

    /// The value of the first field with this name in any form.
    pub fn field(&self, name: &str) -> Option<String> {
        self.forms().iter().find_map(|form| form.field(name)).map(str::to_owned)
    }

    pub fn forms(&self) -> Vec<Form> {
        html::forms(&self.text)
    }

    /// The token in the page's forms.
    pub fn csrf(&self) -> Option<String> {
        self.field("csrf")
    }

    /// Own pages that this one leads to.
    pub fn links(&self) -> Vec<String> {
        let tags = html::tags(&self.text);
        let links = tags.iter().filter(|tag| tag.name == "a").filter_map(|tag| tag.get("href"));
        links.filter(|link| link.starts_with('/')).map(str::to_owned).collect()
    }
}

/// Who logs in, and to what.
#[derive(Debug, Clone)]
pub struct Login {
    pub email: String,
    pub password: String,
    pub account: String,
    pub granted: u64,
}

/// Somebody with cookies.
#[derive(Debug)]
pub struct Person {
    http: reqwest::Client,
    bases: Vec<String>,
    cookies: Mutex<BTreeMap<String, String>>,
    csrf: Mutex<String>,
    turn: AtomicUsize,
}

impl Person {
    /// Somebody who is not logged in.
    pub fn stranger(app: &Deployment) -> Self {
        let http = crate::client::http().timeout(Duration::from_secs(60));
        let http = http.redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        Self {
            http,
            bases: app.bases(),
            cookies: Mutex::default(),
            csrf: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    pub async fn login(app: &Deployment, email: &str, password: &str) -> Self {
        let person = Self::stranger(app);
        let page = person.try_login(email, password).await;
        assert_eq!(page.status, 303, "{}", page.reply);
        assert!(person.cookie(SESSION).is_some(), "{}", page.reply);
        person
    }

    /// Fills in the form and says what came of it.
    pub async fn try_login(&self, email: &str, password: &str) -> Page {
        self.get("/login").await;
        self.post("/login", &[("email", email), ("password", password)]).await
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().expect("not poisoned").get(name).cloned()
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().expect("not poisoned").insert(name.to_owned(), value.to_owned());
    }

    pub fn forget_cookies(&self) {
        self.cookies.lock().expect("not poisoned").clear();
    }

    /// A request with the cookies; API processes take turns.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len();
        let request = self.http.request(method, format!("{}{path}", self.bases[turn]));
        let cookies = self.cookies.lock().expect("not poisoned");
        let line: Vec<String> =
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if line.is_empty() { request } else { request.header("cookie", line.join("; ")) }
    }

    /// Sends it, and keeps what cookies and token came back.
    pub async fn send(&self, request: RequestBuilder) -> Page {
        let page = Page::of(send(request).await);
        let mut cookies = self.cookies.lock().expect("not poisoned");
        for line in page.reply.headers.get_all("set-cookie") {
            let line = line.to_str().expect("a cookie is text");
            let pair = line.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("name=value");
            if value.is_empty() || line.to_ascii_lowercase().contains("max-age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        drop(cookies);
        if let Some(csrf) = page.csrf() {
            *self.csrf.lock().expect("not poisoned") = csrf;
        }
        page
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(self.request(Method::GET, path)).await
    }

    /// The token of the last page, as a form would send it.
    pub fn csrf(&self) -> String {
        self.csrf.lock().expect("not poisoned").clone()
    }

    /// A form of the last page, with its token.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.post_with(&self.csrf(), path, fields).await
    }

    /// Likewise, with this token.
    pub async fn post_with(&self, csrf: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        self.post_raw(path, &[&[("csrf", csrf)], fields].concat()).await
    }

    /// Exactly these fields.
    pub async fn post_raw(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let pairs = fields.iter().map(|(name, value)| format!("{}={}", coded(name), coded(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let request = self.request(Method::POST, path);
        let kind = "application/x-www-form-urlencoded";
        self.send(request.header("content-type", kind).body(body)).await
    }

    /// Reads a page, its first form that leads to such a path, and sends that with other values.
    pub async fn submit(&self, page: &str, action: &str, fields: &[(&str, &str)]) -> Page {
        let seen = self.get(page).await.expect(200);
        let forms = seen.forms();
        let form = forms.iter().find(|form| form.post && form.action.contains(action));
        let form = form.unwrap_or_else(|| panic!("no form to {action} in {page}: {forms:#?}"));
        let other = |name: &String| fields.iter().all(|(own, _)| own != name);
        let kept = form.fields.iter().filter(|(name, _)| other(name));
        let mut all: Vec<(&str, &str)> =
            kept.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        all.extend(fields);
        let to = if form.action.is_empty() { page } else { &form.action };
        self.post_raw(to, &all).await
    }
}

/// As forms write it.
fn coded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Login {
    /// Logs in without a browser.
    pub async fn person(&self, app: &Deployment) -> Person {
        Person::login(app, &self.email, &self.password).await
    }

    /// A client with a key of this account.
    pub async fn client(&self, app: &Deployment) -> Client {
        app.client(&app.create_key(&self.account).await.secret)
    }

    /// Logs in with a browser, which then shows the tasks.
    pub async fn browse(&self, app: &Deployment) -> Browser {
        let browser = Browser::start(app).await;
        browser.open("/login").await;
        self.fill_in(&browser).await;
        browser.heading("Tasks").wait().await;
        browser
    }

    /// Fills in the login form and sends it.
    pub async fn fill_in(&self, browser: &Browser) {
        browser.field("Email").fill(&self.email).await;
        browser.field("Password").fill(&self.password).await;
        browser.button("Log in").click().await;
    }
}

impl Deployment {
    /// An account with so many credits, whose owner has a password.
    pub async fn person(&self, credits: u64) -> Login {
        self.login(credits, false).await
    }

    /// Likewise; the owner is an operator too.
    pub async fn operator(&self, credits: u64) -> Login {
        self.login(credits, true).await
    }

    async fn login(&self, granted: u64, operator: bool) -> Login {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let email = format!("person{}@customer.example", NEXT.fetch_add(1, Ordering::Relaxed));
        let account = self.sign_up(&email, granted, operator).await;
        Login { email, password: PASSWORD.to_owned(), account, granted }
    }

    /// Makes an account with an owner who has [`PASSWORD`]; its id.
    pub async fn sign_up(&self, email: &str, credits: u64, operator: bool) -> String {
        let credits = credits.to_string();
        let mut args = vec!["admin", "account", "create", "--email", email, "--json"];
        args.extend(["--password", PASSWORD, "--credits", &credits]);
        args.extend(operator.then_some("--admin"));
        let answer: Value = self.cli(&args).await.expect_success().json();
        self.keep_secret(PASSWORD);
        answer["account_id"].as_str().expect("account_id").to_owned()
    }

    /// Somebody else of the same account, with this role.
    pub async fn colleague(&self, of: &Login, role: &str) -> Login {
        let owner = of.person(self).await;
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let email = format!("{role}{number}@colleagues.example");
        owner.get("/account/invite").await.expect(200);
        let fields = [("email", email.as_str()), ("role", role), ("password", PASSWORD)];
        let made = owner.post("/account/invite", &fields).await.expect(200);
        let (_, rest) = made.text.split_once("/login/link/").expect("a link");
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let path = format!("/login/link/{}", &rest[..end]);
        let invited = Person::stranger(self);
        invited.get(&path).await.expect(200);
        invited.post(&path, &[("password", PASSWORD)]).await.expect(303);
        Login { email, ..of.clone() }
    }
}
