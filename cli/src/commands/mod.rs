//! The commands, one module each, and what they share.

mod abuse;
pub mod admin;
mod audit;
pub mod bench;
pub mod client;
pub mod demo;
pub mod doctor;
pub mod embedded;
mod glance;
mod ip;
pub mod limits;
pub mod migrate;
pub mod roles;
pub mod root_key;
pub mod scan;
pub mod shell;
pub mod up;
pub mod verify;
mod whole_file;

use std::path::Path;

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::app::keys::By;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::{Clock, Millis};
use listmill_shared::domain::id::{AccountId, Ids, KeyId};
use listmill_shared::domain::key::fields::Fields;
use listmill_shared::settings::{ServerUrl, Settings};
use listmill_shared::store::{Store, StoreError};

use crate::lifecycle::Shutdown;
use crate::output::Output;

/// What every command gets.
pub struct Context {
    pub settings: Settings,
    pub output: Output,
    pub shutdown: Shutdown,
    pub clock: Clock,
    pub ids: Ids,
}

/// Opens the database and queue for a one-shot command. A SQLite file without a schema gets one; a
/// PostgreSQL database must have been migrated on purpose.
pub async fn open(context: &Context) -> Result<App> {
    let settings = &context.settings;
    let app = App::open(settings.clone(), context.clock.clone(), context.ids.clone())
        .await
        .with_context(|| format!("cannot open {}", settings.database_url))?;
    match (app.store.check_schema().await, &app.store) {
        (Err(StoreError::SchemaTooOld), Store::Lite { .. }) => {
            migrate::migrate(&app, context.output).await?;
            crate::output::complain(&format!(
                "note: brought the schema of {} up to date",
                settings.database_url
            ));
        }
        (checked, _) => checked?,
    }
    Ok(app)
}

/// The address of a SQLite file.
pub fn sqlite_url(path: &Path) -> ServerUrl {
    let path = path.display().to_string().replace('%', "%25").replace('?', "%3F");
    ServerUrl::from(format!("sqlite://{path}"))
}

/// Learns the pepper that keys are stored with. Beside a SQLite file it is made, should there be none.
pub async fn open_keyring(app: &App) -> Result<()> {
    app.open_keyring(matches!(app.store, Store::Lite { .. })).await?;
    Ok(())
}

/// Makes a key; the secret is the caller's to show.
pub async fn make_key(
    app: &App,
    account: AccountId,
    label: &str,
    expires_at: Option<Millis>,
    rate_limit: Option<i64>,
    by: &Origin,
) -> Result<(KeyId, String)> {
    let fields = Fields {
        label: Some(label.to_owned()),
        expires_at: Some(expires_at),
        rate_limit: Some(rate_limit),
        ..Fields::default()
    };
    make_key_with(app, account, fields, by).await
}

/// Likewise, with these fields.
pub async fn make_key_with(
    app: &App,
    account: AccountId,
    fields: Fields,
    by: &Origin,
) -> Result<(KeyId, String)> {
    open_keyring(app).await?;
    let salt: [u8; 32] = app.ids.bytes();
    let (key, secret) = app.create_key(account, fields, By::nobody(by), &salt).await?;
    Ok((key.id, secret.reveal().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_url_characters_survive() {
        assert_eq!(sqlite_url(Path::new("/t/a?b%c.db")).reveal(), "sqlite:///t/a%3Fb%25c.db");
    }
}
