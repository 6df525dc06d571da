//! Blocked networks: listed, blocked with a reason and an end, let in again.

use axum::extract::{Query, State};
use axum::response::Response;
use listmill_shared::store::ip_blocks::IpBlock;
use serde::Deserialize;

use super::sheet::{Act, Cell, Dialog, Field, Part, Sheet, Table, shown, titled};
use super::{Operator, encoded, ends_at};
use crate::Api;
use crate::dashboard::page::{Failure, see_other_saying};
use crate::dashboard::session::Posted;
use crate::dashboard::text::{filled, text};

/// Blocks that are shown: the rules' own and as many again.
const SHOWN: usize = 2_000;

async fn listed(api: &Api) -> Result<Sheet, Failure> {
    let now = api.app.now();
    let mut blocks = api.app.store.ip_blocks().await?;
    blocks.retain(|block| block.holds(now));
    let more = blocks.len().saturating_sub(SHOWN);
    blocks.truncate(SHOWN);
    let row = |block: &IpBlock| -> Vec<Cell> {
        let to = format!("/operator/networks/unblock?network={}", encoded(&block.cidr));
        vec![
            Part::Code(block.cidr.clone()).into(),
            Part::Time(block.created_at).into(),
            Part::time_or(block.ends_at, text("operator.until_lifted")).into(),
            block.made_by.clone().into(),
            block.reason.clone().unwrap_or_default().into(),
            Part::Button(to, text("operator.unblock"), block.cidr.clone()).into(),
        ]
    };
    let mut lines = vec![text("operator.networks_why").to_owned()];
    if more > 0 {
        lines.push(filled("operator.networks_more", &[("n", &more.to_string())]));
    }
    Ok(Sheet {
        lines,
        acts: vec![Act::open("/operator/networks/new", text("operator.block_network"))],
        tables: vec![Table {
            title: text("operator.networks").to_owned(),
            head: vec![
                text("operator.network"),
                text("operator.since"),
                text("operator.until"),
                text("operator.by"),
                text("operator.reason"),
                "",
            ],
            rows: blocks.iter().map(row).collect(),
            empty: text("operator.no_networks"),
        }],
        ..titled("networks")
    })
}

/// `GET /operator/networks`
pub async fn list(State(api): State<Api>, Operator(viewer): Operator) -> Result<Response, Failure> {
    Ok(shown(&viewer, "networks", listed(&api).await?))
}

/// `GET /operator/networks/new`
pub async fn new(State(api): State<Api>, Operator(viewer): Operator) -> Result<Response, Failure> {
    let mut network = Field::typed("network", text("operator.network"));
    (network.required, network.hint) = (true, text("operator.network_hint"));
    let mut reason = Field::typed("reason", text("operator.reason"));
    reason.hint = text("operator.note_for_operators");
    let mut lasts = Field::typed("lasts", text("operator.lasts"));
    lasts.hint = text("operator.lasts_hint");
    let dialog = Dialog {
        title: text("operator.block_network").to_owned(),
        lines: vec![filled(
            "operator.block_why",
            &[("ip", &viewer.origin.ip.map(|ip| ip.to_string()).unwrap_or_default())],
        )],
        fields: vec![network, reason, lasts],
        to: String::from("/operator/networks"),
        close: String::from("/operator/networks"),
        button: text("operator.block"),
        danger: true,
    };
    let sheet = listed(&api).await?;
    Ok(shown(&viewer, "networks", Sheet { dialog: Some(dialog), ..sheet }))
}

/// A network to be blocked.
#[derive(Deserialize)]
pub struct Block {
    #[serde(default)]
    network: String,
    reason: Option<String>,
    #[serde(default)]
    lasts: String,
}

/// `POST /operator/networks`
pub async fn block(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Posted(form): Posted<Block>,
) -> Result<Response, Failure> {
    let ends_at = ends_at(&form.lasts, api.app.now())?;
    let (reason, by) = (form.reason.as_deref(), &viewer.origin);
    let (network, changed) = api.app.block_network(&form.network, reason, ends_at, by).await?;
    let said = match changed {
        true => filled("operator.blocked", &[("network", &network)]),
        false => filled("operator.blocked_already", &[("network", &network)]),
    };
    Ok(see_other_saying("/operator/networks", &said))
}

/// Which network.
#[derive(Deserialize)]
pub struct Which {
    #[serde(default)]
    network: String,
}

/// `GET /operator/networks/unblock`
pub async fn ask(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Query(Which { network }): Query<Which>,
) -> Result<Response, Failure> {
    let mut field = Field::typed("network", text("operator.network"));
    (field.value, field.required) = (network, true);
    let mut reason = Field::typed("reason", text("operator.reason"));
    reason.hint = text("operator.reason_for_log");
    let dialog = Dialog {
        title: text("operator.unblock_network").to_owned(),
        fields: vec![field, reason],
        to: String::from("/operator/networks/unblock"),
        close: String::from("/operator/networks"),
        button: text("operator.unblock"),
        ..Dialog::default()
    };
    let sheet = listed(&api).await?;
    Ok(shown(&viewer, "networks", Sheet { dialog: Some(dialog), ..sheet }))
}

/// A network to be let in again.
#[derive(Deserialize)]
pub struct Unblock {
    #[serde(default)]
    network: String,
    reason: Option<String>,
}

/// `POST /operator/networks/unblock`
pub async fn unblock(
    State(api): State<Api>,
    Operator(viewer): Operator,
    Posted(form): Posted<Unblock>,
) -> Result<Response, Failure> {
    let reason = form.reason.as_deref();
    let (network, changed) = api.app.unblock_network(&form.network, reason, &viewer.origin).await?;
    let said = match changed {
        true => filled("operator.unblocked", &[("network", &network)]),
        false => filled("operator.was_not_blocked", &[("network", &network)]),
    };
    Ok(see_other_saying("/operator/networks", &said))
}
