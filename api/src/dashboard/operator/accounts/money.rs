//! An account's credits and its weight, and its books, held against all that is stored.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use listmill_shared::domain::ledger::Kind;
use listmill_shared::store::operators::AccountRow;
use serde::Deserialize;

use crate::Api;
use crate::dashboard::operator::Operator;
use crate::dashboard::operator::sheet::{Cell, Dialog, Field, Part, Table, shown};
use crate::dashboard::operator::subject::{Subject, ask};
use crate::dashboard::page::{Failure, see_other_saying};
use crate::dashboard::session::{Nothing, Posted};
use crate::dashboard::text::{filled, text};

/// How long the books of one account may take; more is the shell's.
const PATIENCE: Duration = Duration::from_secs(20);

/// `GET /operator/accounts/{id}/credits`
pub async fn credits(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let mut amount = Field::typed("amount", text("operator.amount"));
    (amount.kind, amount.required, amount.hint) = ("number", true, text("operator.amount_hint"));
    let mut kind = Field::typed("kind", text("operator.kind"));
    kind.choices =
        vec![("email", text("operator.email_credits")), ("phone", text("operator.phone_credits"))];
    let mut note = Field::typed("note", text("operator.note"));
    note.hint = text("operator.note_in_ledger");
    let dialog = Dialog {
        title: text("operator.book").to_owned(),
        fields: vec![amount, kind, note],
        button: text("operator.book"),
        ..Dialog::default()
    };
    ask(&api, &viewer, &account, "credits", dialog).await
}

/// Credits to be booked.
#[derive(Deserialize)]
pub struct Booked {
    #[serde(default)]
    amount: String,
    #[serde(default)]
    kind: String,
    note: Option<String>,
}

/// `POST /operator/accounts/{id}/credits`
pub async fn book(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(form): Posted<Booked>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let wrong = || Failure::Wrong(text("operator.bad_amount").to_owned());
    let amount: i64 = form.amount.trim().parse().map_err(|_| wrong())?;
    let kind = match form.kind.as_str() {
        "" | "email" => Kind::Email,
        "phone" => Kind::Phone,
        _ => return Err(wrong()),
    };
    let note = form.note.as_deref();
    let balance = api.app.book(account.id, kind, amount, note, &viewer.origin).await?;
    let n = |number| viewer.reader.number(number);
    let said = filled("operator.booked", &[("amount", &n(amount)), ("balance", &n(balance))]);
    Ok(see_other_saying(&account.path(), &said))
}

/// `GET /operator/accounts/{id}/weight`
pub async fn weight(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let mut weight = Field::typed("weight", text("operator.weight"));
    weight.value = account.weight.to_string();
    (weight.kind, weight.required, weight.hint) = ("number", true, text("operator.weight_hint"));
    let dialog = Dialog {
        title: text("operator.weight").to_owned(),
        fields: vec![weight],
        button: text("operator.save"),
        ..Dialog::default()
    };
    ask(&api, &viewer, &account, "weight", dialog).await
}

/// A new weight.
#[derive(Deserialize)]
pub struct Weight {
    #[serde(default)]
    weight: String,
}

/// `POST /operator/accounts/{id}/weight`
pub async fn set_weight(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(form): Posted<Weight>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let weight = form.weight.trim().parse::<i32>().ok().filter(|one| (1..=1_000).contains(one));
    let weight = weight.ok_or_else(|| Failure::Wrong(text("operator.bad_weight").to_owned()))?;
    let store = &api.app.store;
    if !store.set_weight(account.id, weight, &viewer.origin, api.app.now()).await? {
        return Err(Failure::NotFound);
    }
    let said = filled("operator.weight_set", &[("n", &weight.to_string())]);
    Ok(see_other_saying(&account.path(), &said))
}

/// `POST /operator/accounts/{id}/reconcile`: changes nothing, but may take a while.
pub async fn reconcile(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Path(id): Path<String>,
    Posted(Nothing {}): Posted<Nothing>,
) -> Result<Response, Failure> {
    let account = AccountRow::find(&api, &id).await?;
    let mut sheet = account.about(&api, &viewer).await?;
    let command = format!("listmill admin reconcile --account {} --deep", account.email);
    sheet.commands.push((text("operator.reconcile_deep"), command));
    let Ok(books) = tokio::time::timeout(PATIENCE, api.app.store.books(Some(account.id))).await
    else {
        sheet.outcome = Some((false, vec![text("operator.too_long").to_owned()]));
        return Ok(shown(&viewer, "accounts", sheet));
    };
    let books = books?;
    let faults: Vec<String> = books
        .iter()
        .flat_map(|book| book.faults().into_iter().map(|fault| format!("{}: {fault}", book.kind)))
        .collect();
    let rows = books.iter().map(|book| {
        let ok = book.faults().is_empty();
        let word = if ok { text("operator.exact") } else { text("operator.fault") };
        vec![
            book.kind.as_str().into(),
            Part::state(ok, word).into(),
            Cell::num(&viewer, book.granted),
            Cell::num(&viewer, book.balance),
            Cell::num(&viewer, book.held),
            Cell::num(&viewer, book.charged),
        ]
    });
    let table = Table {
        title: text("operator.books").to_owned(),
        head: vec![
            text("operator.kind"),
            text("operator.state"),
            text("operator.granted"),
            text("operator.balance"),
            text("operator.held"),
            text("operator.charged"),
        ],
        rows: rows.collect(),
        empty: "",
    };
    sheet.tables.insert(0, table);
    sheet.outcome = Some(match faults.is_empty() {
        true => (true, vec![text("operator.accounted").to_owned()]),
        false => (false, faults),
    });
    Ok(shown(&viewer, "accounts", sheet))
}
