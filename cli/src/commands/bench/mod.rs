//! `listmill bench`: loads a running deployment, or one in this process, and measures it.
//!
//! Accounts, keys and credits are made directly in the store; everything measured goes over HTTP.
//! The keys have a rate limit of their own that nothing reaches, so the whole gate is measured, and
//! `LISTMILL_RATE_LIMITS` need not be off. What was made is removed at the end, also after Ctrl-C:
//! tasks are erased and keys deleted through the API; the accounts stay, with their books.

mod classify;
mod crowd;
mod engine;
mod full;
mod gate;
mod generate;
mod latency;
mod load;
mod process;
mod report;
mod scale;
mod world;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt, stream};
use listmill_shared::app::App;
use listmill_shared::app::keys::{By, End};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::settings::ProviderKind;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::process::Wanted;
use super::embedded::{Embedded, listen, url_of};
use super::{Context, make_key, open, sqlite_url};
use crate::args::{BenchArgs, BenchMode, LoadArgs};
use crate::client::Client;
use crate::output::complain;

/// Requests a minute of a bench key: more than any server answers.
const UNLIMITED: i64 = 1_000_000_000;
/// What `bench gate` polls.
const GATE_TASK: Part = Part { first: 0, count: 10 };
/// Tasks erased at once: a crowd is a thousand of them.
const ERASERS: usize = 8;
/// Erasing a task of millions of results takes its time.
const CLEANING: Duration = Duration::from_secs(300);

/// A slice of the numbered addresses: one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    first: u64,
    count: u64,
}

/// An account made for the bench, and its key.
struct Funded {
    id: AccountId,
    key: KeyId,
    secret: String,
}

/// What a mode came to.
pub struct Outcome {
    ok: bool,
    object: Value,
}

/// Everything a mode works with.
pub struct Bench<'a> {
    context: &'a Context,
    app: App,
    client: Client,
    load: LoadArgs,
    embedded: bool,
    /// Domains of the addresses, and how often each address stands in its list.
    domains: u64,
    repeat: u64,
    accounts: Vec<Funded>,
    /// Tasks to be erased at the end, with the number of their account.
    made: Mutex<Vec<(String, usize)>>,
}

/// Where the load goes.
struct Target {
    app: App,
    url: String,
    /// The server in this process, and the folder of its database.
    server: Option<(Embedded, tempfile::TempDir)>,
}

pub async fn run(context: Context, args: BenchArgs) -> Result<ExitCode> {
    if matches!(args.mode, Some(BenchMode::Classify)) {
        return report(&context, classify::run(&context.output));
    }
    let load = args.load;
    ensure!(load.tasks <= load.addresses, "--tasks: more tasks than addresses");
    ensure!(load.accounts <= load.tasks, "--accounts: more accounts than tasks");
    let each = load.addresses.div_ceil(load.tasks);
    ensure!(
        each <= context.settings.max_addresses,
        "a task may hold {} addresses, not {each}: use more --tasks",
        context.settings.max_addresses
    );
    let (domains, repeat) = match &args.mode {
        Some(BenchMode::Engine(engine)) => (engine.domains, engine.repeat),
        _ => (generate::DOMAINS, 1),
    };
    let mut target = context.shutdown.or_interrupted(Target::open(&context, &load)).await?;
    let mut bench = Bench {
        context: &context,
        app: target.app.clone(),
        client: Client::new(&target.url)?,
        embedded: load.embedded,
        load,
        domains,
        repeat,
        accounts: Vec::new(),
        made: Mutex::default(),
    };
    let measured = tokio::select! {
        measured = context.shutdown.or_interrupted(bench.measure(args.mode.as_ref())) => measured,
        ended = target.ended() => Err(ended),
    };
    if !bench.load.keep_data && !bench.embedded {
        bench.clean().await;
    }
    target.close().await?;
    report(&context, measured?)
}

fn report(context: &Context, outcome: Outcome) -> Result<ExitCode> {
    let Outcome { ok, mut object } = outcome;
    object["ok"] = json!(ok);
    context.output.object(&object)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Target {
    async fn open(context: &Context, load: &LoadArgs) -> Result<Self> {
        if !load.embedded {
            let app = open(context).await?;
            let url = load.url.clone().unwrap_or_else(|| bound(&context.settings.bind));
            return Ok(Self { app, url, server: None });
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut settings = context.settings.clone();
        settings.database_url = sqlite_url(&folder.path().join("bench.db"));
        settings.redis_url = None;
        settings.bind = String::from("127.0.0.1:0");
        settings.provider = ProviderKind::Sandbox;
        settings.shutdown_grace = Duration::from_secs(1);
        let provider = listmill_worker::provider::build(&settings, &context.clock, &context.ids)?;
        let app = App::open(settings, context.clock.clone(), context.ids.clone()).await?;
        app.store.migrate().await?;
        app.open_keyring(true).await?;
        let listener = listen(&app.settings.bind, "bind").await?;
        let url = url_of(listener.local_addr()?);
        listmill_api::install_metrics()?;
        let server = Embedded::start(app.clone(), provider, listener, CancellationToken::new());
        context.output.say(format!("embedded: SQLite in {}", folder.path().display()));
        Ok(Self { app, url, server: Some((server, folder)) })
    }

    /// Comes back only when the server in this process has broken down.
    async fn ended(&mut self) -> anyhow::Error {
        match &mut self.server {
            None => std::future::pending().await,
            Some((server, _)) => match server.ended().await {
                Err(error) => error,
                Ok(()) => anyhow::anyhow!("the embedded server stopped"),
            },
        }
    }

    async fn close(self) -> Result<()> {
        if let Some((server, _folder)) = self.server {
            server.stop().await?;
        }
        self.app.store.close().await;
        Ok(())
    }
}

/// Where a server with this `bind` is reached.
pub fn bound(bind: &str) -> String {
    bind.parse::<SocketAddr>().map_or_else(|_| format!("http://{bind}"), url_of)
}

impl Bench<'_> {
    async fn measure(&mut self, mode: Option<&BenchMode>) -> Result<Outcome> {
        let purses = match mode {
            Some(BenchMode::Gate(_)) => purses(&[GATE_TASK], 1),
            Some(BenchMode::Crowd(args)) => crowd::purses(args),
            Some(BenchMode::Scale(args)) => scale::purses(args, self.load.addresses),
            Some(BenchMode::Full(args)) => {
                full::purses(args, purses(&self.parts(), self.load.accounts))
            }
            _ => purses(&self.parts(), self.load.accounts),
        };
        // Before anything is made: is there a server at all?
        self.client.call(Method::GET, "/healthz", "").await.with_context(|| {
            format!(
                "nothing to load at {}: start `listmill up`, or name the API with --url, \
                 or use --embedded",
                self.client.base()
            )
        })?;
        self.fund(&purses).await?;
        self.preflight().await?;
        match mode {
            None => load::pipeline(self).await,
            Some(BenchMode::Submit) => load::submit(self).await,
            Some(BenchMode::Download) => load::download(self).await,
            Some(BenchMode::Gate(args)) => gate::run(self, args).await,
            Some(BenchMode::Crowd(args)) => crowd::run(self, args).await,
            Some(BenchMode::Scale(args)) => scale::run(self, args).await,
            Some(BenchMode::Full(args)) => full::run(self, args).await,
            Some(BenchMode::Engine(args)) => engine::run(self, args).await,
            Some(BenchMode::Classify) => Ok(classify::run(&self.context.output)),
        }
    }

    /// Whose CPU time and memory are of interest.
    fn wanted(&self) -> Wanted {
        Wanted {
            embedded: self.embedded,
            postgres: self.app.store.engine() == "postgres",
            redis: self.app.settings.redis_url.is_some(),
            named: self.load.pids.clone(),
        }
    }

    /// The addresses, spread evenly over the tasks.
    fn parts(&self) -> Vec<Part> {
        parts(self.load.addresses, self.load.tasks)
    }

    /// Makes an account with so many credits for each purse, and its key.
    async fn fund(&mut self, purses: &[u64]) -> Result<()> {
        let run = self.app.ids.number(self.app.now());
        for (number, credits) in purses.iter().enumerate() {
            let email = format!("bench-{run:x}-{number}@localhost");
            let (credits, by) = (*credits as i64, Origin::operator());
            let id = self.app.create_account(&email, None, credits, false, &by).await?;
            let (key, secret) =
                make_key(&self.app, id, "bench", None, Some(UNLIMITED), &by).await?;
            self.accounts.push(Funded { id, key, secret });
        }
        Ok(())
    }

    /// Does the server run on the same database?
    async fn preflight(&self) -> Result<()> {
        let Some(first) = self.accounts.first() else { bail!("no account was made") };
        let answer = self.client.call(Method::GET, "/v1/account/credits", &first.secret).await?;
        if answer.status == 401 {
            bail!(
                "the API at {} does not know a key just made in {}: run the bench with the \
                 settings of the deployment (LISTMILL_DATABASE_URL)",
                self.client.base(),
                self.app.settings.database_url
            );
        }
        answer.success("preflight")?;
        Ok(())
    }

    fn remember(&self, task: &str, account: usize) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push((task.to_owned(), account));
    }

    /// Removes what the bench made, as far as it can; what stays is said.
    async fn clean(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let mut left = 0;
        let mut erasing = stream::iter(&made)
            .map(|(task, account)| async move {
                (task, self.erase(task, &self.accounts[*account].secret).await)
            })
            .buffer_unordered(ERASERS);
        while let Some((task, erased)) = erasing.next().await {
            if let Err(error) = erased {
                tracing::warn!(error = %format!("{error:#}"), %task, "a task was not erased");
                left += 1;
            }
        }
        let by = Origin::operator();
        for account in &self.accounts {
            let deleting =
                self.app.end_key(account.key, None, &End::Delete, false, By::nobody(&by));
            if let Err(error) = deleting.await {
                tracing::warn!(%error, key = %account.key, "a key was not deleted");
            }
        }
        if left > 0 {
            complain(&format!("note: {left} of the bench's tasks are still in the database"));
        }
    }

    /// Erases a task, after cancelling it if it still runs.
    async fn erase(&self, task: &str, key: &str) -> Result<()> {
        let path = format!("/v1/tasks/{task}");
        let erase = || self.client.call_within(CLEANING, Method::DELETE, &path, key);
        let first = erase().await?;
        if first.status != 409 {
            first.success("erasing")?;
            return Ok(());
        }
        let cancel = format!("{path}/cancel");
        self.client.call(Method::POST, &cancel, key).await?.success("cancelling")?;
        erase().await?.success("erasing")?;
        Ok(())
    }
}

fn parts(addresses: u64, tasks: u64) -> Vec<Part> {
    let (each, rest) = (addresses / tasks, addresses % tasks);
    let mut first = 0;
    (0..tasks)
        .map(|number| {
            let part = Part { first, count: each + u64::from(number < rest) };
            first += part.count;
            part
        })
        .collect()
}

/// Exactly the credits that the tasks of each account cost, the accounts taking turns.
fn purses(parts: &[Part], accounts: u64) -> Vec<u64> {
    let accounts = (accounts as usize).min(parts.len());
    let cost = |number| parts.iter().skip(number).step_by(accounts).map(|part| part.count).sum();
    (0..accounts).map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purses_hold_what_the_tasks_cost() {
        assert_eq!(purses(&parts(10, 3), 2), [7, 3]);
        assert_eq!(purses(&[GATE_TASK], 5), [10]);
    }

    #[test]
    fn parts_cover_every_address_once() {
        for (addresses, tasks) in [(10, 3), (3, 3), (1_000_000, 7)] {
            let parts = parts(addresses, tasks);
            assert_eq!(parts.len() as u64, tasks);
            let mut next = 0;
            for part in parts {
                assert_eq!(part.first, next);
                assert!(part.count > 0);
                next += part.count;
            }
            assert_eq!(next, addresses);
        }
    }

    #[test]
    fn the_bound_address_becomes_one_that_can_be_called() {
        assert_eq!(bound("0.0.0.0:8080"), "http://localhost:8080");
        assert_eq!(bound("127.0.0.1:8080"), "http://127.0.0.1:8080");
        assert_eq!(bound("api.internal:80"), "http://api.internal:80");
    }
}
