//! `listmill`: one binary, every role. Parse, read the settings, start logging, dispatch.
//!
//! Exit codes: 0 success; 1 failure, or something that must hold did not; 2 wrong arguments;
//! 128 + signal when a one-shot command was interrupted, or a second signal stopped a role at once.

mod args;
mod client;
mod commands;
mod lifecycle;
mod output;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::settings::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, KEY_VARIABLE, URL_VARIABLE};
use crate::commands::{
    Context, admin, bench, client as remote, demo, doctor, migrate, roles, scan, shell, up, verify,
};
use crate::lifecycle::Shutdown;
use crate::output::Output;

/// Read when there, unless `--config` names another file.
const SETTINGS_FILE: &str = "listmill.toml";

fn main() -> ExitCode {
    let cli = Cli::parse();
    // redis and sqlx speak TLS through rustls; named here once so that neither has to guess.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let code = runtime.block_on(run(cli));
    // A reader thread that still waits for its client must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    code
}

async fn run(cli: Cli) -> ExitCode {
    let (context, command) = match prepare(cli) {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error),
    };
    let shutdown = context.shutdown.clone();
    let role = command.is_role();
    let done = dispatch(context, command).await;
    match (done, shutdown.interrupted()) {
        (Ok(code), _) => code,
        // A one-shot command that did not get to its end; the signal has been announced.
        (Err(_), Some(signal)) if !role => ExitCode::from(signal.exit_code()),
        (Err(error), _) => fail(&error),
    }
}

/// The role table.
async fn dispatch(context: Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(context, args).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Submit(args) => remote::submit(context, args).await,
        Command::Status(args) => remote::status(context, args).await,
        Command::Watch(args) => remote::watch(context, args).await,
        Command::Results(args) => remote::results(context, args).await,
        Command::Cancel(args) => remote::cancel(context, args).await,
        Command::Up => up::run(context).await,
        Command::Api => roles::api(context).await,
        Command::Worker => roles::worker(context).await,
        Command::Migrate => migrate::run(context).await,
        Command::Doctor => doctor::run(context).await,
        Command::Bench(args) => bench::run(context, args).await,
        Command::Scan(args) => scan::run(context, args).await,
        Command::Admin(args) => admin::run(context, args).await,
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(context.output, &args),
    }
}

fn prepare(cli: Cli) -> Result<(Context, Command)> {
    let mut settings = match cli.command.reads_settings() {
        true => Settings::load(settings_file(cli.config).as_deref(), environment())?,
        // How a server is set up is no matter of who speaks to one.
        false => {
            let log = environment().filter(|(name, _)| name.starts_with("LISTMILL_LOG"));
            Settings::load(cli.config.as_deref(), log)?
        }
    };
    settings.role = cli.command.name();
    start_log(&settings, cli.command.is_role())?;
    for variable in &settings.unknown {
        tracing::warn!(%variable, "this environment variable names no setting: is it misspelt?");
    }
    // A connection to a mail server is an open file, and the usual soft limit is 1,024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // A dump of this process would hold the keys of the requests of that moment.
    if let Err(error) = rlimit::getrlimit(rlimit::Resource::CORE)
        .and_then(|(_, hard)| rlimit::setrlimit(rlimit::Resource::CORE, 0, hard))
    {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    let grace = cli.command.drains().then_some(settings.shutdown_grace);
    let shutdown = Shutdown::watch(grace).context("cannot listen for signals")?;
    let output = Output::new(cli.json);
    let (clock, ids) = (Clock::system(), Ids::system());
    Ok((Context { settings, output, shutdown, clock, ids }, cli.command))
}

fn settings_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Path::new(SETTINGS_FILE).exists().then(|| PathBuf::from(SETTINGS_FILE)))
}

/// What names no setting, but a server to the commands that speak to one.
const CLIENT: [&str; 3] = [URL_VARIABLE, KEY_VARIABLE, "LISTMILL_CA_FILE"];

/// The environment's settings, without what is not text (`std::env::vars` would panic on it).
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !CLIENT.contains(&name.as_str()))
}

/// Logs go to stderr. One-shot commands log warnings only, so that their output stays readable,
/// unless the filter was set on purpose.
fn start_log(settings: &Settings, role: bool) -> Result<()> {
    let chosen = std::env::var_os("LISTMILL_LOG").is_some() || settings.log != "info";
    let filter = if role || chosen { settings.log.as_str() } else { "warn,sqlx=error" };
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("settings: log: {filter:?} is no tracing filter"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(colours).init();
        }
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

fn fail(error: &anyhow::Error) -> ExitCode {
    output::complain(&format!("listmill: {error:#}"));
    ExitCode::FAILURE
}
