//! `listmill migrate`: brings the schema up to date; safe to run twice, or from two places at once.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::app::keyring::KeyringError;
use listmill_shared::store::StoreError;
use serde_json::json;

use super::Context;
use crate::output::Output;

/// Brings a database up to date, with a progress bar where stored results are converted, and makes the pepper
/// of its keys. How many keys were wrapped with it.
pub async fn migrate(app: &App, output: Output) -> Result<u64, KeyringError> {
    let mut progress = None;
    let mut told = |done, all| {
        let unit = "results";
        progress
            .get_or_insert_with(|| output.progress("converting stored results", all, unit))
            .set(done);
    };
    app.store.migrate_telling(&mut told).await?;
    if let Some(progress) = progress {
        progress.finish();
    }
    app.open_keyring(true).await
}

pub async fn run(context: Context) -> Result<ExitCode> {
    let settings = &context.settings;
    let url = &settings.database_url;
    let work = async {
        let app = App::open(settings.clone(), context.clock.clone(), context.ids.clone())
            .await
            .with_context(|| format!("cannot open {url}"))?;
        let (changed, wrapped) = match app.store.check_schema().await {
            Ok(()) => (false, app.open_keyring(true).await?),
            Err(StoreError::SchemaTooOld) => {
                let wrapped = migrate(&app, context.output).await?;
                app.store.check_schema().await?;
                (true, wrapped)
            }
            Err(error) => return Err(error.into()),
        };
        app.store.close().await;
        Ok((app.store.engine(), changed, wrapped))
    };
    let (engine, changed, wrapped) = context.shutdown.or_interrupted(work).await?;
    context.output.say(match changed {
        true => format!("{url}: the schema was missing or older, and is up to date now"),
        false => format!("{url}: the schema is up to date already"),
    });
    if wrapped > 0 {
        context.output.say(format!("{wrapped} keys are now stored with the pepper"));
    }
    context.output.object(&json!({
        "engine": engine,
        "from": if changed { "missing or older" } else { "current" },
        "to": "current",
        "changed": changed,
        "keys_wrapped": wrapped,
    }))?;
    Ok(ExitCode::SUCCESS)
}
