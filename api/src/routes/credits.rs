//! The balance and the ledger.

use axum::extract::State;
use listmill_shared::domain::ledger::Kind;
use listmill_shared::store::credits::EntryFilter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::cursor::{EntryCursor, cursor, cut, limit};
use crate::extract::Params;
use crate::gate::Caller;
use crate::openapi::{Bad, Gate};
use crate::problem::Problem;
use crate::view::{EntryView, Page};

/// Entries on a page, unless asked otherwise, and at most.
const PAGE: i64 = 100;
const MOST: i64 = 1000;

/// What may be spent; held credits are not in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Balances {
    /// Pays for addresses.
    #[schema(example = 1000.0)]
    email_credit: f64,
    /// Pays for phone numbers.
    #[schema(example = 500.0)]
    phone_credit: f64,
}

/// Show the balance
#[utoipa::path(get, path = "/v1/account/credits", tag = "credits",
    responses((status = 200, description = "The balance of each kind.", body = Balances), Gate))]
pub async fn credits(
    State(api): State<Api>,
    caller: Caller,
) -> Result<axum::Json<Balances>, Problem> {
    let balances = api.app.store.balances(caller.account).await?;
    let of = |kind: Kind| {
        balances.iter().find(|b| b.kind == kind.as_str()).map_or(0.0, |b| b.balance as f64)
    };
    Ok(axum::Json(Balances { email_credit: of(Kind::Email), phone_credit: of(Kind::Phone) }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LedgerParams {
    /// Only entries of this task.
    task: Option<String>,
    /// Only this kind of credit: `email` or `phone`.
    kind: Option<String>,
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Entries on the page, 1 to 1000; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// List the ledger
///
/// Every movement of credits, newest first. Per kind: grants + adjustments = balance + held +
/// charged, at every instant. A task writes one entry for many addresses; what each address cost
/// stands in its result.
#[utoipa::path(get, path = "/v1/ledger", tag = "credits", params(LedgerParams), responses(
    (status = 200, description = "A page of entries.", body = Page<EntryView>), Bad, Gate))]
pub async fn ledger(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<LedgerParams>,
) -> Result<axum::Json<Page<EntryView>>, Problem> {
    let task = params
        .task
        .map(|id| id.parse().map_err(|e| Problem::query("task", format!("{e}."))))
        .transpose()?;
    let kind = params
        .kind
        .map(|name| {
            let unknown = || Problem::query("kind", "must be email or phone.");
            Kind::from_name(&name).ok_or_else(unknown)
        })
        .transpose()?;
    let from = cursor::<EntryCursor>(params.cursor.as_deref())?.map(|cursor| cursor.0);
    let limit = limit(params.limit.as_deref(), PAGE, MOST)?;
    let filter = EntryFilter { task, kind };
    let mut entries = api.app.store.entries(caller.account, filter, from, limit + 1).await?;
    let next_cursor = cut(&mut entries, limit, |entry| EntryCursor(entry.id));
    let data = entries.into_iter().map(EntryView::from).collect();
    Ok(axum::Json(Page { data, next_cursor }))
}
