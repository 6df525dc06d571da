//! The dialog that generates a key.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::civil::Date;
use listmill_shared::app::keys::{By, KeyError};
use listmill_shared::app::once::Form;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::fields::Fields;
use listmill_shared::domain::key::{Environment, Scope, Scopes};

use super::made::Made;
use super::{List, Said, confirmed, said};
use crate::Api;
use crate::dashboard::format::Reader;
use crate::dashboard::page::{Failure, Page, html_with};
use crate::dashboard::session::{Posted, Viewer};

/// What is proposed: what a program needs that submits lists and reads their results.
const PROPOSED: [&str; 5] = ["verify", "tasks:write", "tasks:read", "tasks:cancel", "account:read"];

/// What the form says, or proposes.
struct Draft {
    label: String,
    test: bool,
    scopes: Vec<ScopeChoice>,
    ends_on: String,
}

struct ScopeChoice {
    field: String,
    name: &'static str,
    text: String,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "key_new.html")]
struct KeyNewPage {
    page: Page,
    list: List,
    wrong: Option<String>,
    said: Draft,
    once: String,
    ask_password: bool,
}

/// Every scope, and `*`.
fn scope_names() -> impl Iterator<Item = &'static str> {
    Scope::ALL.into_iter().map(Scope::as_str).chain(["*"])
}

fn field(scope: &str) -> String {
    format!("scope-{scope}")
}

impl Draft {
    fn new(page: &Page, chosen: impl Fn(&str) -> bool) -> Self {
        let choice = |name: &'static str| ScopeChoice {
            field: field(name),
            name,
            text: match name {
                "*" => page.t("key_scope.all").to_owned(),
                other => page.t(&format!("key_scope.{}", other.replace(':', "_"))).to_owned(),
            },
            chosen: chosen(name),
        };
        let scopes = scope_names().map(choice).collect();
        Self { label: String::new(), test: false, scopes, ends_on: String::new() }
    }

    fn of(page: &Page, form: &Said) -> Self {
        Self {
            label: said(form, "label").to_owned(),
            test: said(form, "environment") == "test",
            ends_on: said(form, "ends_on").to_owned(),
            ..Self::new(page, |scope| form.contains_key(&field(scope)))
        }
    }
}

/// The end of a day in the reader's zone: when the next one begins.
fn end_of(day: &str, reader: &Reader) -> Option<Millis> {
    let day: Date = day.parse().ok()?;
    let next = day.tomorrow().ok()?.in_tz(reader.zone()).ok()?;
    Some(next.timestamp().as_millisecond())
}

/// Reads the form; `Err`: what is wrong with it.
fn fields(page: &Page, viewer: &Viewer, form: &Said) -> Result<Fields, String> {
    let ends_on = said(form, "ends_on").trim();
    let end = match ends_on {
        "" => None,
        day => {
            let end = end_of(day, &viewer.reader);
            Some(end.ok_or_else(|| page.t("keys.bad_date").to_owned())?)
        }
    };
    let names = scope_names().filter(|scope| form.contains_key(&field(scope)));
    let scopes = Scopes::parse(names).unwrap_or(Scopes::NONE);
    if scopes == Scopes::NONE {
        return Err(page.t("keys.no_scopes").to_owned());
    }
    let test = said(form, "environment") == "test";
    Ok(Fields {
        label: Some(said(form, "label").to_owned()),
        environment: Some(if test { Environment::Test } else { Environment::Live }),
        scopes: Some(scopes),
        expires_at: Some(end),
        ..Fields::default()
    })
}

/// What a field is called on these pages.
pub fn bad_field(page: &Page, field: &str, want: &str) -> String {
    let name = match field {
        "label" => page.t("keys.label"),
        "expires_at" => page.t("key_new.ends_on"),
        "rate_limit" => page.t("key_limit.rate"),
        "credit_limit" => page.t("key_limit.credits"),
        "allow" => page.t("key_limit.allow"),
        other => other,
    };
    page.tf("keys.bad_field", &[("field", name), ("want", want)])
}

/// A number for a form, so that it is done once.
pub fn number(api: &Api) -> String {
    api.app.ids.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The number of a form that was sent; one without is like no other.
pub fn number_of(api: &Api, form: &Said) -> String {
    match said(form, "once") {
        "" => number(api),
        given => given.to_owned(),
    }
}

async fn dialog(
    api: &Api,
    viewer: &Viewer,
    form: Option<&Said>,
    wrong: Option<String>,
) -> Result<Response, Failure> {
    let page = Page::new(viewer, "keys");
    let list = List::first(api, viewer, &page).await?;
    let said = match form {
        Some(form) => Draft::of(&page, form),
        None => Draft::new(&page, |scope| PROPOSED.contains(&scope)),
    };
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let (once, ask_password) = (number(api), !viewer.elevated);
    Ok(html_with(status, &KeyNewPage { page, list, wrong, said, once, ask_password }))
}

/// `GET /keys/new`
pub async fn ask(State(api): State<Api>, viewer: Viewer) -> Result<Response, Failure> {
    viewer.require_owner()?;
    viewer.require_active()?;
    dialog(&api, &viewer, None, None).await
}

/// `POST /keys/new`
pub async fn generate(
    State(api): State<Api>,
    mut viewer: Viewer,
    Posted(form): Posted<Said>,
) -> Result<Response, Failure> {
    viewer.require_owner()?;
    viewer.require_active()?;
    let page = Page::new(&viewer, "keys");
    if let Err(wrong) = confirmed(&api, &mut viewer, &form).await? {
        return dialog(&api, &viewer, Some(&form), Some(wrong)).await;
    }
    let fields = match fields(&page, &viewer, &form) {
        Ok(fields) => fields,
        Err(wrong) => return dialog(&api, &viewer, Some(&form), Some(wrong)).await,
    };
    let scopes = fields.scopes.map(|scopes| scopes.names().join(" ")).unwrap_or_default();
    let content =
        [said(&form, "label"), said(&form, "environment"), &scopes, said(&form, "ends_on")];
    let what = format!("POST /keys/new {}", viewer.person);
    let once = Form::new(viewer.account, what, &number_of(&api, &form), &content);
    let (app, account, origin) = (api.app.clone(), viewer.account, viewer.origin.clone());
    let make = move |salt: [u8; 32]| async move {
        let (key, _) = app.create_key(account, fields, By::nobody(&origin), &salt).await?;
        Ok::<_, KeyError>(key.id.to_string())
    };
    let sent = match api.app.send_once(once, make).await {
        Ok(sent) => sent,
        Err(KeyError::Field(bad)) => {
            let wrong = bad_field(&page, bad.field, &bad.want);
            return dialog(&api, &viewer, Some(&form), Some(wrong)).await;
        }
        Err(other) => return Err(other.into()),
    };
    let (made, id) = match Made::of(sent, api.app.now()) {
        Ok(made) => made,
        Err(text) => {
            let wrong = page.t(text).to_owned();
            return dialog(&api, &viewer, Some(&form), Some(wrong)).await;
        }
    };
    let id = id.parse::<KeyId>().map_err(|_| KeyError::NotFound)?;
    let key = api.app.any_key(viewer.account, id).await?.ok_or(KeyError::NotFound)?;
    let title = page.tf("key_made.title", &[("label", &key.label)]);
    made.show(&api, &viewer, &key, (title, Vec::new())).await
}
