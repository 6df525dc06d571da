//! `listmill api` and `listmill worker`: the roles of a deployment, one process each.
//!
//! A database that is away when a role starts is waited for: in a deployment the order in which
//! things start is nobody's to promise. A wrong schema or a wrong setting ends the role at once.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use listmill_shared::app::{App, OpenError};
use listmill_worker::Home;
use tokio::task::JoinSet;

use super::Context;
use super::embedded::{listen, url_of};
use super::glance::glance;

const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LAST_BACK_OFF: Duration = Duration::from_secs(5);
/// Beyond the grace: for what a role does after its own deadline.
const SLACK: Duration = Duration::from_secs(5);

/// `listmill api`.
pub async fn api(context: Context) -> Result<ExitCode> {
    needs_redis(&context, "api")?;
    let provider =
        listmill_worker::provider::build(&context.settings, &context.clock, &context.ids)?;
    let Some(app) = open_patiently(&context).await? else { return Ok(ExitCode::SUCCESS) };
    app.open_keyring(false).await?;
    let listener = listen(&context.settings.bind, "bind").await?;
    listmill_api::install_metrics()?;
    let url = url_of(listener.local_addr()?);
    tracing::info!(%url, engine = app.store.engine(), "listening on {url}");
    let drain = context.shutdown.drain.clone();
    let mut parts = JoinSet::new();
    let serve = listmill_api::serve(app, provider, listener, drain);
    parts.spawn(async move { Ok(serve.await?) });
    until_drained(&context, parts).await
}

/// `listmill worker`.
pub async fn worker(context: Context) -> Result<ExitCode> {
    needs_redis(&context, "worker")?;
    let provider =
        listmill_worker::provider::build(&context.settings, &context.clock, &context.ids)?;
    let Some(app) = open_patiently(&context).await? else { return Ok(ExitCode::SUCCESS) };
    listmill_api::install_metrics()?;
    let drain = context.shutdown.drain.clone();
    let mut parts = JoinSet::new();
    if let Some(address) = &context.settings.worker_bind {
        let listener = listen(address, "worker_bind").await?;
        let url = url_of(listener.local_addr()?);
        tracing::info!(%url, "health and metrics on {url}");
        let health = listmill_api::serve_health(app.clone(), listener, drain.clone());
        parts.spawn(async move { Ok(health.await?) });
    }
    tracing::info!(
        concurrency = context.settings.worker_concurrency,
        provider = provider.name(),
        engine = app.store.engine(),
        "worker is up"
    );
    tokio::spawn(glance(context.settings.clone(), context.clock.clone(), context.ids.clone()));
    let run = listmill_worker::run(app, provider, drain, Home::Own);
    parts.spawn(async move { Ok(run.await?) });
    until_drained(&context, parts).await
}

fn needs_redis(context: &Context, role: &str) -> Result<()> {
    if context.settings.redis_url.is_none() {
        bail!(
            "`listmill {role}` needs Redis: set LISTMILL_REDIS_URL=redis://… ; \
             for one process without services use `listmill up`"
        );
    }
    Ok(())
}

/// Opens the database and checks its schema, again and again while it is merely away; `None` when
/// a signal came first.
async fn open_patiently(context: &Context) -> Result<Option<App>> {
    let mut back_off = FIRST_BACK_OFF;
    let drain = &context.shutdown.drain;
    loop {
        let opened = tokio::select! {
            opened = open_once(context) => opened,
            () = drain.cancelled() => return Ok(None),
        };
        match opened {
            Ok(app) => return Ok(Some(app)),
            Err(OpenError::Store(error)) if error.is_transient() => {
                let database = &context.settings.database_url;
                tracing::warn!(%error, %database, "the database is away; trying again");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            () = drain.cancelled() => return Ok(None),
        }
        back_off = (back_off * 2).min(LAST_BACK_OFF);
    }
}

async fn open_once(context: &Context) -> Result<App, OpenError> {
    let Context { settings, clock, ids, .. } = context;
    let app = App::open(settings.clone(), clock.clone(), ids.clone()).await?;
    match app.store.check_schema().await {
        Ok(()) => Ok(app),
        Err(error) => {
            app.store.close().await;
            Err(error.into())
        }
    }
}

/// Runs the parts until all have drained; the first fault ends the role.
async fn until_drained(context: &Context, mut parts: JoinSet<Result<()>>) -> Result<ExitCode> {
    let drain = &context.shutdown.drain;
    let deadline = async {
        drain.cancelled().await;
        tokio::time::sleep(context.settings.shutdown_grace + SLACK).await;
    };
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            ended = parts.join_next() => match ended {
                None => return Ok(ExitCode::SUCCESS),
                Some(done) => done??,
            },
            () = &mut deadline => {
                tracing::warn!("connections were still open after the grace; they are cut");
                return Ok(ExitCode::SUCCESS);
            }
        }
        if !drain.is_cancelled() {
            bail!("a part of this process ended by itself");
        }
    }
}
