//! `bench engine`: the whole pipeline against a mail world in this process.
//!
//! The deployment under load must ask that world and no other: it runs with `LISTMILL_PROVIDER=smtp`
//! and with the `LISTMILL_DNS` and `LISTMILL_SMTP_PORT` that the bench has too, and at which the
//! world then listens. Every verdict is known beforehand, so the bench fails when one is missing.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::world::{Asked, Manner, World};
use super::{Bench, Outcome, load};
use crate::args::EngineArgs;
use crate::output::{Output, grouped};

/// The world's port is never the one of the real world.
const SMTP_PORT: u16 = 25;

pub async fn run(bench: &Bench<'_>, args: &EngineArgs) -> Result<Outcome> {
    let settings = &bench.context.settings;
    ensure!(
        !bench.embedded,
        "`bench engine` loads a running deployment, with the smtp provider: leave out --embedded"
    );
    let dns: SocketAddr = settings.dns.parse().context(
        "set LISTMILL_DNS to a free loopback address such as 127.0.0.1:5300, for the bench and \
         for the deployment: the bench's own nameserver listens there",
    )?;
    ensure!(
        settings.smtp_port != SMTP_PORT && dns.ip().is_loopback(),
        "set LISTMILL_SMTP_PORT to a free port such as 2500, for the bench and for the \
         deployment, and LISTMILL_DNS to a loopback address: the bench's own servers listen there"
    );
    let manner =
        Manner { domains: args.domains, delay: args.reply_delay, refuse_every: args.refuse_every };
    let world = World::start(dns, settings.smtp_port, manner).await?;
    let mut outcome = load::pipeline(bench).await?;
    let asked = world.counts.read();
    let verdicts = bench.verdicts().await?;
    let total = bench.load.addresses;
    let known = (0..total).filter(|number| manner.knows(*number)).count() as u64;
    let as_known = verdicts == (known, total - known);
    show(&bench.context.output, &asked, total);
    if !as_known {
        bench.context.output.say(format!(
            "FAIL  {} deliverable and {} undeliverable, where {known} and {} were to come",
            verdicts.0,
            verdicts.1,
            total - known
        ));
    }
    outcome.object["mode"] = json!("engine");
    outcome.object["domains"] = json!(args.domains);
    outcome.object["rows_of_each_address"] = json!(args.repeat);
    outcome.object["reply_delay_ms"] = json!(args.reply_delay.as_millis() as u64);
    outcome.object["asked"] = json!(asked);
    outcome.object["deliverable"] = json!(verdicts.0);
    outcome.object["undeliverable"] = json!(verdicts.1);
    outcome.ok &= as_known;
    Ok(outcome)
}

fn show(out: &Output, asked: &Asked, total: u64) {
    out.say("\nWhat the mail world saw");
    out.say(format!(
        "  {} questions about {} addresses, {} about random mailboxes",
        grouped(asked.target_rcpts),
        grouped(total),
        grouped(asked.random_rcpts)
    ));
    out.say(format!(
        "  {} connections, {} at once; {} MX queries, {} others",
        grouped(asked.connections),
        grouped(asked.most_connections_at_once),
        grouped(asked.mx_queries),
        grouped(asked.other_queries)
    ));
}
