//! `listmill migrate`: brings the schema up to date; safe to run twice, or from two places at once.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use listmill_shared::store::{Store, StoreError};
use serde_json::json;

use super::Context;
use crate::output::Output;

/// Brings a database up to date, with a progress bar where stored results are converted.
pub async fn migrate(store: &Store, output: Output) -> Result<(), StoreError> {
    let mut progress = None;
    let mut told = |done, all| {
        let unit = "results";
        progress
            .get_or_insert_with(|| output.progress("converting stored results", all, unit))
            .set(done);
    };
    store.migrate_telling(&mut told).await?;
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(())
}

pub async fn run(context: Context) -> Result<ExitCode> {
    let settings = &context.settings;
    let url = &settings.database_url;
    let work = async {
        let store =
            Store::connect(url.reveal(), settings.database_connections, &settings.session())
                .await
                .with_context(|| format!("cannot open {url}"))?;
        let changed = match store.check_schema().await {
            Ok(()) => false,
            Err(StoreError::SchemaTooOld) => {
                migrate(&store, context.output).await?;
                store.check_schema().await?;
                true
            }
            Err(error) => return Err(error.into()),
        };
        store.close().await;
        Ok((store.engine(), changed))
    };
    let (engine, changed) = context.shutdown.or_interrupted(work).await?;
    context.output.say(match changed {
        true => format!("{url}: the schema was missing or older, and is up to date now"),
        false => format!("{url}: the schema is up to date already"),
    });
    context.output.object(&json!({
        "engine": engine,
        "from": if changed { "missing or older" } else { "current" },
        "to": "current",
        "changed": changed,
    }))?;
    Ok(ExitCode::SUCCESS)
}
