//! Accounts: found by email, made; what one is. Its credits and weight: [`money`]; its suspension: [`suspension`].

pub mod money;
pub mod suspension;

use axum::extract::{Query, State};
use axum::response::Response;
use listmill_shared::app::credits::AccountError;
use listmill_shared::domain::id::AccountId;
use listmill_shared::domain::person::{LONGEST_EMAIL, LONGEST_PASSWORD, SHORTEST_PASSWORD};
use listmill_shared::store::credits::EntryFilter;
use listmill_shared::store::operators::AccountRow;
use serde::Deserialize;

use super::sheet::{Act, Cell, Dialog, Field, Part, Search, Sheet, Table, shown, titled};
use super::subject::Subject;
use super::{Operator, PAGE, encoded};
use crate::Api;
use crate::dashboard::page::{Failure, see_other_saying};
use crate::dashboard::session::{Posted, Viewer};
use crate::dashboard::text::{filled, text};

/// Entries of the ledger that are shown.
const ENTRIES: i64 = 20;

/// Which accounts.
#[derive(Deserialize, Default)]
pub struct Find {
    #[serde(default)]
    email: String,
    after: Option<String>,
}

async fn listed(api: &Api, viewer: &Viewer, find: &Find) -> Result<Sheet, Failure> {
    let prefix = find.email.trim();
    let mut rows = api.app.store.accounts(prefix, find.after.as_deref(), PAGE + 1).await?;
    let more = rows.len() as i64 > PAGE;
    rows.truncate(PAGE as usize);
    let last = rows.last().filter(|_| more);
    let next = last.map(|last| {
        format!("/operator/accounts?email={}&after={}", encoded(prefix), encoded(&last.email))
    });
    let mut field = Field::typed("email", text("operator.email_begins"));
    field.kind = "search";
    field.value = prefix.to_owned();
    let row = |account: &AccountRow| {
        vec![
            Part::Link(format!("/operator/accounts/{}", account.id), account.email.clone()).into(),
            Cell::of(state(account)),
            Cell::num(viewer, account.balance),
            Cell::num(viewer, account.open_tasks),
            Cell::num(viewer, account.weight.into()),
            Part::time_or(account.active_at, text("operator.never")).into(),
            Part::Time(account.created_at).into(),
        ]
    };
    Ok(Sheet {
        acts: vec![Act::open("/operator/accounts/new", text("operator.new_account"))],
        search: Some(Search { to: "/operator/accounts", fields: vec![field] }),
        tables: vec![Table {
            title: text("operator.accounts").to_owned(),
            head: vec![
                text("operator.email"),
                text("operator.state"),
                text("operator.balance"),
                text("operator.open_tasks"),
                text("operator.weight"),
                text("operator.last_activity"),
                text("operator.created"),
            ],
            rows: rows.iter().map(row).collect(),
            empty: text("operator.no_accounts"),
        }],
        next,
        ..titled("accounts")
    })
}

/// `GET /operator/accounts`
pub async fn list(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Query(find): Query<Find>,
) -> Result<Response, Failure> {
    Ok(shown(&viewer, "accounts", listed(&api, &viewer, &find).await?))
}

/// `GET /operator/accounts/new`
pub async fn new(State(api): State<Api>, Operator(viewer): Operator) -> Result<Response, Failure> {
    let mut email = Field::typed("email", text("operator.email"));
    (email.kind, email.required) = ("email", true);
    let mut password = Field::typed("password", text("operator.new_password"));
    (password.kind, password.hint) = ("password", text("operator.password_hint"));
    let mut credits = Field::typed("credits", text("operator.credits"));
    (credits.kind, credits.value) = ("number", String::from("0"));
    let dialog = Dialog {
        title: text("operator.new_account").to_owned(),
        fields: vec![email, password, credits],
        to: String::from("/operator/accounts"),
        close: String::from("/operator/accounts"),
        button: text("operator.make_account"),
        ..Dialog::default()
    };
    let sheet = listed(&api, &viewer, &Find::default()).await?;
    Ok(shown(&viewer, "accounts", Sheet { dialog: Some(dialog), ..sheet }))
}

/// A new account.
#[derive(Deserialize)]
pub struct NewAccount {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    credits: String,
}

/// `POST /operator/accounts`
pub async fn create(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Posted(form): Posted<NewAccount>,
) -> Result<Response, Failure> {
    let wrong = |name: &'static str| Failure::Wrong(text(name).to_owned());
    let email = form.email.trim();
    let parts = email.split_once('@');
    let plain = !email.chars().any(|sign| sign.is_control() || sign.is_whitespace());
    if email.len() > LONGEST_EMAIL
        || !plain
        || !parts.is_some_and(|(l, d)| !l.is_empty() && !d.is_empty())
    {
        return Err(wrong("operator.bad_email"));
    }
    let password = Some(form.password.as_str()).filter(|given| !given.is_empty());
    let fits =
        |given: &str| given.chars().count() >= SHORTEST_PASSWORD && given.len() <= LONGEST_PASSWORD;
    if !password.is_none_or(fits) {
        return Err(wrong("operator.bad_password"));
    }
    let credits = match form.credits.trim() {
        "" => Some(0),
        given => given.parse().ok().filter(|credits: &i64| *credits >= 0),
    };
    let credits = credits.ok_or_else(|| wrong("operator.bad_amount"))?;
    let made = api.app.create_account(email, password, credits, false, &viewer.origin).await;
    let id = made.map_err(|error| match error {
        AccountError::Store(error) => error.into(),
        error => Failure::Wrong(error.to_string()),
    })?;
    let said = filled("operator.account_made", &[("email", email)]);
    Ok(see_other_saying(&format!("/operator/accounts/{id}"), &said))
}

fn badge(account: &AccountRow) -> Part {
    match account.suspended {
        None => Part::Badge("badge-ok", text("operator.active").to_owned()),
        Some(_) => Part::Badge("badge-bad", text("operator.suspended").to_owned()),
    }
}

/// The badge, and why.
fn state(account: &AccountRow) -> Vec<Part> {
    std::iter::once(badge(account)).chain(account.suspended.clone().map(Part::Muted)).collect()
}

impl Subject for AccountRow {
    const TAB: &'static str = "accounts";

    async fn find(api: &Api, id: &str) -> Result<Self, Failure> {
        let id: AccountId = id.parse().map_err(|_| Failure::NotFound)?;
        api.app.store.account(id).await?.ok_or(Failure::NotFound)
    }

    fn path(&self) -> String {
        format!("/operator/accounts/{}", self.id)
    }

    async fn about(&self, api: &Api, viewer: &Viewer) -> Result<Sheet, Failure> {
        let store = &api.app.store;
        let entries = store.entries(self.id, EntryFilter::default(), None, ENTRIES).await?;
        let mut facts: Vec<(&'static str, Cell)> = vec![
            (text("operator.id"), Part::Code(self.id.to_string()).into()),
            (text("operator.state"), badge(self).into()),
            (text("operator.created"), Part::Time(self.created_at).into()),
            (
                text("operator.last_activity"),
                Part::time_or(self.active_at, text("operator.never")).into(),
            ),
            (text("operator.open_tasks"), viewer.reader.number(self.open_tasks).into()),
            (text("operator.weight"), viewer.reader.number(self.weight.into()).into()),
        ];
        if let Some(suspended) = store.suspension_of(self.id).await? {
            facts.push((text("operator.reason"), suspended.reason.into()));
            facts.push((text("operator.contact"), suspended.contact.into()));
            facts.push((text("operator.since"), Part::Time(suspended.since).into()));
        }
        for balance in store.balances(self.id).await? {
            let name = match balance.kind.as_str() {
                "email" => text("operator.email_credits"),
                // Nobody looks for what is not used.
                _ if balance.balance == 0 => continue,
                _ => text("operator.phone_credits"),
            };
            facts.push((name, viewer.reader.number(balance.balance).into()));
        }
        let rows = entries.iter().map(|entry| {
            vec![
                Part::Time(entry.created_at).into(),
                entry.entry.as_str().into(),
                Cell::num(viewer, entry.amount),
                Cell::num(viewer, entry.balance_after),
                entry.note.clone().unwrap_or_default().into(),
            ]
        });
        let path = self.path();
        let suspension = match self.suspended {
            None => Act::open(format!("{path}/suspend"), text("operator.suspend_account")),
            Some(_) => Act::open(format!("{path}/unsuspend"), text("operator.unsuspend_account")),
        };
        Ok(Sheet {
            title: self.email.clone(),
            acts: vec![
                Act::open(format!("{path}/credits"), text("operator.book")),
                Act::open(format!("{path}/weight"), text("operator.weight")),
                suspension,
                Act {
                    to: format!("{path}/reconcile"),
                    word: text("operator.reconcile"),
                    post: true,
                },
                Act::open(
                    format!("/operator/keys?by=account&q={}", self.id),
                    text("operator.keys"),
                ),
                Act::open(format!("/operator/audit?account={}", self.id), text("operator.audit")),
            ],
            facts,
            tables: vec![Table {
                title: text("operator.ledger").to_owned(),
                head: vec![
                    text("operator.when"),
                    text("operator.entry"),
                    text("operator.amount"),
                    text("operator.balance_after"),
                    text("operator.note"),
                ],
                rows: rows.collect(),
                empty: text("operator.no_entries"),
            }],
            ..Sheet::default()
        })
    }
}
