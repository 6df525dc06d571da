//! The account's audit log.

use axum::extract::State;
use listmill_shared::domain::audit::{Actor, Row};
use listmill_shared::store::audit_log::AuditFilter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::Api;
use crate::cursor::{AuditCursor, cursor, cut, limit};
use crate::extract::Params;
use crate::gate::Caller;
use crate::openapi::{self, Bad, Gate};
use crate::problem::Problem;
use crate::view::{Page, stamp, to_json};

/// Rows on a page, unless asked otherwise, and at most: a row may have 32 KiB.
const PAGE: i64 = 100;
const MOST: i64 = 500;
/// Bytes of what is asked for.
const LONGEST: usize = 256;

/// A change that was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditRow)]
pub struct AuditView {
    /// Its number among the account's, from 1 without a gap.
    #[schema(example = "audit_42")]
    id: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who did it.
    #[schema(value_type = openapi::Actor)]
    actor: Value,
    /// From which address; null for what was done at the server's command line.
    #[schema(example = "203.0.113.7")]
    ip: Option<String>,
    /// The `X-Request-Id` of the request; null for what was done at the server's command line.
    request_id: Option<String>,
    /// What was done.
    #[schema(example = "key.disable")]
    action: String,
    /// To what: an id.
    #[schema(example = "key_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e")]
    target: String,
    /// How it was; null: it was not there.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// How it was afterwards; null: it was gone.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// SHA-256 over the row and `previous`, in hexadecimal digits.
    hash: String,
    /// `hash` of the row before; zeros before the first.
    previous: String,
}

impl From<&Row> for AuditView {
    fn from(row: &Row) -> Self {
        // What somebody has damaged is shown as it is, not hidden.
        let shown = |text: &String| {
            serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
        };
        Self {
            id: format!("audit_{}", row.seq),
            at: stamp(row.at),
            actor: match row.actor.parse::<Actor>() {
                Ok(actor) => json!(actor),
                Err(_) => Value::String(row.actor.clone()),
            },
            ip: row.ip.clone(),
            request_id: row.request_id.clone(),
            action: row.action.clone(),
            target: row.target.clone(),
            before: row.before.as_ref().map(shown),
            after: row.after.as_ref().map(shown),
            hash: hex(&row.hash),
            previous: hex(&row.previous),
        }
    }
}

/// A row as the export has it: as it is shown, and whose it is (null = the installation's).
pub fn audit_line(row: &Row) -> String {
    #[derive(Serialize)]
    struct Line {
        account: Option<String>,
        #[serde(flatten)]
        view: AuditView,
    }
    to_json(&Line { account: row.account().map(|id| id.to_string()), view: row.into() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// Only this action, such as `key.disable`.
    action: Option<String>,
    /// Only changes of this: a key's id, say.
    target: Option<String>,
    /// Where the page begins: a `next_cursor` of this list.
    cursor: Option<String>,
    /// Rows on the page, 1 to 500; 100 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 500)]
    limit: Option<String>,
}

/// List what was changed
///
/// Every change of the account, its keys and its grants of credits, whoever made it, newest first. Rows are
/// never changed or removed: each holds the hash of the row before it.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(AuditParams), responses(
    (status = 200, description = "A page of rows.", body = Page<AuditView>), Bad, Gate))]
pub async fn audit(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<AuditParams>,
) -> Result<axum::Json<Page<AuditView>>, Problem> {
    let AuditParams { action, target, cursor: from, limit: wanted } = params;
    for (name, given) in [("action", &action), ("target", &target)] {
        let fits = |text: &String| text.len() <= LONGEST && !text.contains('\0');
        if !given.as_ref().is_none_or(fits) {
            return Err(Problem::query(name, format!("must be up to {LONGEST} bytes of text.")));
        }
    }
    let from = cursor::<AuditCursor>(from.as_deref())?.map(|cursor| cursor.0);
    let limit = limit(wanted.as_deref(), PAGE, MOST)?;
    let filter = AuditFilter { action, target };
    let mut rows = api.app.store.audit_page(caller.account, &filter, from, limit + 1).await?;
    let next_cursor = cut(&mut rows, limit, |row| AuditCursor(row.seq));
    let data = rows.iter().map(AuditView::from).collect();
    Ok(axum::Json(Page { data, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use listmill_shared::domain::audit::{Change, Origin, START};
    use listmill_shared::domain::id::{AccountId, Ids};

    #[test]
    fn a_line_has_the_fields_of_the_contract() {
        let account = AccountId::new(&Ids::seeded(1), 1);
        let change = Change::new(&Origin::operator(), Some(account), "account.weight", account)
            .before(json!({ "weight": 1 }))
            .after(json!({ "weight": 3 }));
        let mut row = Row::new(&change, 7, START.to_vec(), 1_700_000_000_123);
        let line: Value = serde_json::from_str(&audit_line(&row)).unwrap();
        assert_eq!(
            line,
            json!({
                "account": account, "id": "audit_7", "at": "2023-11-14T22:13:20.123Z",
                "actor": { "operator": true }, "ip": null, "request_id": null,
                "action": "account.weight", "target": account, "before": { "weight": 1 },
                "after": { "weight": 3 }, "hash": hex(&row.digest()), "previous": "0".repeat(64),
            })
        );
        row.actor = String::from("nobody");
        row.after = Some(String::from("{broken"));
        let line: Value = serde_json::from_str(&audit_line(&row)).unwrap();
        assert_eq!((&line["actor"], &line["after"]), (&json!("nobody"), &json!("{broken")));
    }
}
