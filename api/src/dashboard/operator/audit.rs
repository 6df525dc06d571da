//! The audit log of the installation or of an account, and whether its chain is as it was written.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use listmill_shared::domain::audit::{INSTALLATION, Row};
use listmill_shared::domain::id::AccountId;
use listmill_shared::store::audit_log::AuditFilter;
use serde::Deserialize;

use super::sheet::{Act, Cell, Field, Part, Search, Sheet, Table, shown, titled};
use super::{Operator, PAGE, encoded, find_account};
use crate::Api;
use crate::dashboard::page::Failure;
use crate::dashboard::session::Viewer;
use crate::dashboard::text::{filled, text};

/// How long a chain may take to be read; more is the shell's.
const PATIENCE: Duration = Duration::from_secs(10);
/// Broken places that are named.
const NAMED: usize = 20;

/// Which rows.
#[derive(Deserialize, Default)]
pub struct Find {
    #[serde(default)]
    account: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: String,
    after: Option<i64>,
    check: Option<String>,
}

impl Find {
    fn path(&self) -> String {
        format!(
            "/operator/audit?account={}&action={}&target={}",
            encoded(self.account.trim()),
            encoded(self.action.trim()),
            encoded(self.target.trim())
        )
    }
}

fn row(viewer: &Viewer, row: &Row) -> Vec<Cell> {
    let code = |text: &Option<String>| Part::Code(text.clone().unwrap_or_default());
    vec![
        viewer.reader.number(row.seq).into(),
        Part::Time(row.at).into(),
        Cell::of(vec![
            Part::text(row.actor.clone()),
            Part::Muted(row.ip.clone().unwrap_or_default()),
        ]),
        row.action.clone().into(),
        Part::Code(row.target.clone()).into(),
        code(&row.before).into(),
        code(&row.after).into(),
    ]
}

/// `GET /operator/audit`
pub async fn show(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Query(find): Query<Find>,
) -> Result<Response, Failure> {
    let chain = match find.account.trim() {
        "" => Some(INSTALLATION),
        name => find_account(&api, name).await?,
    };
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = AuditFilter { action: given(&find.action), target: given(&find.target) };
    let mut rows = match chain {
        Some(chain) => api.app.store.audit_page(chain, &filter, find.after, PAGE + 1).await?,
        None => Vec::new(),
    };
    let more = rows.len() as i64 > PAGE;
    rows.truncate(PAGE as usize);
    let next =
        rows.last().filter(|_| more).map(|last| format!("{}&after={}", find.path(), last.seq));
    let outcome = match (&find.check, chain) {
        (Some(_), Some(chain)) => Some(checked(&api, &viewer, chain).await?),
        (_, None) => Some((false, vec![text("operator.no_such_account").to_owned()])),
        _ => None,
    };
    let field = |name, label, value: &str| {
        let mut field = Field::typed(name, label);
        field.value = value.trim().to_owned();
        field
    };
    let mut account = field("account", text("operator.account"), &find.account);
    account.hint = text("operator.account_hint");
    let sheet = Sheet {
        acts: vec![Act::open(format!("{}&check=1", find.path()), text("operator.check_chain"))],
        commands: vec![(
            text("operator.audit_command"),
            String::from("listmill admin audit verify"),
        )],
        outcome,
        search: Some(Search {
            to: "/operator/audit",
            fields: vec![
                account,
                field("action", text("operator.action"), &find.action),
                field("target", text("operator.target"), &find.target),
            ],
        }),
        tables: vec![Table {
            title: text("operator.audit").to_owned(),
            head: vec![
                text("operator.row"),
                text("operator.when"),
                text("operator.by"),
                text("operator.action"),
                text("operator.target"),
                text("operator.before"),
                text("operator.after"),
            ],
            rows: rows.iter().map(|one| row(&viewer, one)).collect(),
            empty: text("operator.no_rows"),
        }],
        next,
        ..titled("audit")
    };
    Ok(shown(&viewer, "audit", sheet))
}

/// Is the chain as it was written?
async fn checked(
    api: &Api,
    viewer: &Viewer,
    chain: AccountId,
) -> Result<(bool, Vec<String>), Failure> {
    let mut told = |_, _| {};
    let verifying = api.app.verify_audit(Some(chain), &mut told);
    let Ok(found) = tokio::time::timeout(PATIENCE, verifying).await else {
        return Ok((false, vec![text("operator.too_long").to_owned()]));
    };
    let found = found?;
    let rows = viewer.reader.number(i64::try_from(found.rows).unwrap_or(i64::MAX));
    if found.broken == 0 {
        return Ok((true, vec![filled("operator.chain_whole", &[("n", &rows)])]));
    }
    let count = viewer.reader.number(i64::try_from(found.broken).unwrap_or(i64::MAX));
    let mut lines = vec![filled("operator.chain_broken", &[("n", &count)])];
    lines.extend(found.breaks.iter().take(NAMED).map(ToString::to_string));
    Ok((false, lines))
}
