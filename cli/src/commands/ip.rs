//! `listmill admin ip …`: blocked networks.

use anyhow::Result;
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::store::ip_blocks::IpBlock;
use serde_json::{Value, json};

use crate::args::IpCommand;
use crate::output::Output;

pub async fn run(app: &App, out: &Output, command: IpCommand) -> Result<()> {
    let (by, now) = (Origin::operator(), app.now());
    match command {
        IpCommand::Block { cidr, reason, end } => {
            let ends_at = end.ends_at(now);
            let (cidr, changed) = app.block_network(&cidr, reason.as_deref(), ends_at, &by).await?;
            let end = ends_at.map(rfc3339);
            out.object(&json!({
                "cidr": cidr, "blocked": true, "changed": changed, "ends_at": end,
            }))?;
            let until = end.map(|end| format!(", until {end}")).unwrap_or_default();
            out.say(match changed {
                true => format!("{cidr} is blocked from the next request on{until}"),
                false => format!("{cidr} was blocked already{until}"),
            });
        }
        IpCommand::Unblock { cidr, reason } => {
            let (cidr, changed) = app.unblock_network(&cidr, reason.as_deref(), &by).await?;
            out.object(&json!({ "cidr": cidr, "blocked": false, "changed": changed }))?;
            out.say(match changed {
                true => format!("{cidr} is no longer blocked"),
                false => {
                    format!("{cidr} was not blocked; `listmill admin ip list` shows what is")
                }
            });
        }
        IpCommand::List => list(app, out).await?,
    }
    Ok(())
}

async fn list(app: &App, out: &Output) -> Result<()> {
    let now = app.now();
    let mut blocks = app.store.ip_blocks().await?;
    blocks.retain(|block| block.holds(now));
    let cidrs: Vec<&str> = blocks.iter().map(|block| block.cidr.as_str()).collect();
    let objects: Vec<Value> = blocks.iter().map(object).collect();
    out.object(&json!({ "blocked": cidrs, "blocks": objects }))?;
    if blocks.is_empty() {
        out.say("nothing is blocked");
        return Ok(());
    }
    let head = ["NETWORK", "SINCE", "UNTIL", "BY", "WHY"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(blocks.iter().map(|block| {
        vec![
            block.cidr.clone(),
            rfc3339(block.created_at),
            block.ends_at.map_or_else(|| String::from("lifted"), rfc3339),
            block.made_by.clone(),
            block.reason.clone().unwrap_or_default(),
        ]
    }));
    out.table("", head.len(), &rows);
    Ok(())
}

fn object(block: &IpBlock) -> Value {
    json!({
        "cidr": block.cidr,
        "reason": block.reason,
        "made_by": block.made_by,
        "created_at": rfc3339(block.created_at),
        "ends_at": block.ends_at.map(rfc3339),
    })
}
