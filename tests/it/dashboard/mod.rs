//! The dashboard: asked without a browser, also with what no browser would send; and in a real browser.
//!
//! What measures in a browser runs alone ([`alone`]); other tests in a browser beside a few more ([`browsed`]).

mod access;
mod credits;
mod drain;
mod keys;
mod keys_browser;
mod login;
mod oidc;
mod operator;
mod people_mail;
mod pictures;
mod reference;
mod scale;
mod suspension;
mod switch;
mod tasks;
mod workbooks;

use std::time::Duration;

use listmill_tests::dashboard::Person;
use listmill_tests::{Deployment, Login, Setup, Size, Weight, eventually};
use serde_json::Value;

/// How long a list of some thousand addresses may take.
const WORK: Duration = Duration::from_secs(120);

/// Text that would do something if it were not written as text.
const HOSTILE: [&str; 3] = [
    "<script>window.hacked=1</script>",
    "\"><img src=x onerror=\"window.hacked=1\">",
    "'-alert(1)-'{{7*7}}",
];

/// What a browser's tests begin with: a browser keeps a core busy for a while.
fn browsed(size: Size) -> Setup {
    Setup::new(size).weight(Weight::Middle)
}

/// What measures begins with: it has the machine to itself.
fn alone(size: Size) -> Setup {
    Setup::new(size).weight(Weight::Heavy)
}

/// The one task of an account, as the API shows it, when it is as wanted.
async fn task_when(
    app: &Deployment,
    login: &Login,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let client = login.client(app).await;
    let (client, wanted) = (&client, &wanted);
    eventually(&format!("a task: {what}"), WORK, || async move {
        client.tasks().await.into_iter().find(|task| wanted(task))
    })
    .await
}

/// Pages that everybody has; those of tasks and keys come on top.
const PAGES: [&str; 5] = ["/tasks", "/keys", "/requests", "/credits", "/account"];
const OPERATORS: [&str; 11] = [
    "/operator",
    "/operator/accounts",
    "/operator/accounts/new",
    "/operator/keys",
    "/operator/networks",
    "/operator/workers",
    "/operator/hosts",
    "/operator/failures",
    "/operator/audit",
    "/operator/settings",
    "/operator/doctor",
];

/// Is this how our pages answer somebody who is not logged in?
async fn sends_to_login(person: &Person, path: &str) -> bool {
    let page = person.get(path).await;
    page.status == 303 && page.location.is_some_and(|to| to.starts_with("/login?next="))
}
