//! `listmill verify`: a list or single addresses, from the shell.
//!
//! It is the embedded deployment without its API: SQLite in a private temporary folder, the queue in
//! the process, one account with a credit for every address it may hold, the same worker. The list
//! goes in as the API takes it and comes back as the API gives it.
//!
//! The first signal lets what is under way end, and what is there is written; the second stops at
//! once. Either way the folder is removed.

pub(super) mod input;
pub(super) mod report;
pub(super) mod results;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use listmill_shared::app::App;
use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::app::submit::read::ReadError;
use listmill_shared::app::submit::{Accepted, BodyError, Submission, SubmitError};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{AccountId, TaskId};
use listmill_shared::domain::task::{Task, TaskStatus};
use listmill_shared::settings::{ProviderKind, Settings};
use listmill_shared::store::Store;
use listmill_worker::Home;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::input::{List, Subject};
use self::report::Counts;
use self::results::ResultsFile;
use super::{Context, sqlite_url};
use crate::args::{ResultsFormat, VerifyArgs};
use crate::output::{Output, Progress, grouped, readable};

const OWNER: &str = "verify@localhost";
const POLL: Duration = Duration::from_millis(100);
/// Whoever pipes a list in may take his time.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Without a new result for this long, the wait is explained.
const QUIET: Duration = Duration::from_secs(10);

/// The deployment.
struct Mill {
    app: App,
    account: AccountId,
    provider: Arc<dyn Provider>,
    drain: CancellationToken,
    worker: JoinHandle<Result<()>>,
    _folder: TempDir,
}

/// How it went.
struct Outcome {
    task: Task,
    counts: Counts,
    /// With what each rests on; of single addresses only.
    results: Option<Vec<Value>>,
    took: Duration,
}

pub async fn run(context: Context, args: VerifyArgs) -> Result<ExitCode> {
    if let Some(url) = args.url.clone() {
        return super::client::verify::run(context, args, &url).await;
    }
    let subject = Subject::find(&args.inputs)?;
    let name = subject.name();
    let single = matches!(subject, Subject::Addresses(_));
    let file = ResultsFile::prepare(&subject, &args)?;
    let to_stdout = file.as_ref().is_some_and(|file| file.path().is_none());
    ensure!(!(to_stdout && context.output.is_json()), "--json and --output -: stdout holds one");
    let out = if to_stdout { context.output.aside() } else { context.output };
    if let Some(path) = file.as_ref().and_then(ResultsFile::temporary) {
        context.shutdown.remove_when_stopped(path);
    }
    let list = context.shutdown.or_interrupted(subject.open(&args)).await?;
    let written = file.as_ref().map(|file| (file.path().map(Path::to_owned), file.format));
    let mut mill = Mill::start(&context, &args, single).await?;
    let verified = async {
        let outcome = mill.verify(&context, &out, list, name.clone(), single).await?;
        if let Some(file) = file {
            write(&mill.app.store, &outcome.task, file).await?;
        }
        Ok::<_, anyhow::Error>(outcome)
    };
    let verified = verified.await;
    let provider = mill.provider.name();
    mill.stop().await;
    let outcome = verified?;
    let interrupted = context.shutdown.interrupted().filter(|_| !outcome.task.status.has_ended());
    let mut object = json!({
        "input": name,
        "provider": provider,
        "interrupted": interrupted.is_some(),
        "counts": report::counts_object(&outcome.task),
        "reasons": outcome.counts.object(),
        "seconds": outcome.took.as_millis() as f64 / 1e3,
    });
    if let Some((path, format)) = &written {
        object["output"] = json!(path);
        object["format"] = json!(format.as_str());
    }
    outcome.tell(&out, provider, interrupted.is_some());
    if let Some((Some(path), _)) = &written {
        out.say(format!("Results: {}", path.display()));
    }
    if let Some(results) = outcome.results {
        object["results"] = json!(results);
    }
    out.object(&object)?;
    Ok(match interrupted {
        Some(signal) => ExitCode::from(signal.exit_code()),
        None if args.fail_on.iter().any(|status| outcome.counts.with(*status) > 0) => {
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}

async fn write(store: &Store, task: &Task, file: ResultsFile) -> Result<()> {
    match file.format {
        ResultsFormat::Csv => file.write(listmill_api::csv_file(store, task, None).await?).await,
        ResultsFormat::Ndjson => file.write(listmill_api::ndjson_file(store, task, None)).await,
    }
}

impl Outcome {
    /// For people.
    fn tell(&self, out: &Output, provider: &str, interrupted: bool) {
        if provider == "sandbox" {
            out.say("The verdicts come from the sandbox provider: they are made up.");
        }
        let (submitted, done) = (self.task.submitted, self.task.tally.processed());
        if interrupted {
            out.say(format!(
                "Interrupted: {} of {} addresses have a result.",
                grouped(done.unsigned_abs()),
                grouped(submitted.unique.unsigned_abs())
            ));
        }
        match &self.results {
            Some(results) => results.iter().for_each(|row| report::show(out, row)),
            None => {
                let rate = done as f64 / self.took.as_secs_f64().max(1e-3);
                out.say(format!(
                    "{} addresses ({} duplicates beside them) in {}, {rate:.1}/s\n",
                    grouped(done.unsigned_abs()),
                    grouped(submitted.duplicates.unsigned_abs()),
                    readable(self.took)
                ));
                self.counts.show(out);
                if self.most_cannot_connect() {
                    out.say(
                        "\nHardly any mail server could be reached: outbound port 25 is probably \
                         blocked. `listmill doctor` tells.",
                    );
                }
            }
        }
    }

    /// Is it likely that the fault is ours?
    fn most_cannot_connect(&self) -> bool {
        let unreached = self.counts.unreached();
        unreached > 10 && unreached * 10 > self.task.tally.processed() * 9
    }
}

impl Mill {
    async fn start(context: &Context, args: &VerifyArgs, single: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("listmill-verify-").tempdir();
        let folder = folder.context("cannot make a temporary folder")?;
        context.shutdown.remove_when_stopped(folder.path());
        let mut settings = settings(&context.settings, args, folder.path());
        if single {
            // Somebody waits for the answer.
            settings.retry_delays.clear();
        }
        let provider = listmill_worker::provider::build(&settings, &context.clock, &context.ids)?;
        // Every address may cost one credit, and none costs two.
        let credits = i64::try_from(settings.max_addresses)?;
        let opening = async {
            let app = App::open(settings, context.clock.clone(), context.ids.clone()).await?;
            app.store.migrate().await?;
            let account =
                app.create_account(OWNER, None, credits, false, &Origin::system()).await?;
            Ok((app, account))
        };
        let (app, account) = context.shutdown.or_interrupted(opening).await?;
        let drain = context.shutdown.drain.child_token();
        let (working, asked) = (app.clone(), provider.clone());
        let work = listmill_worker::run(working, asked, drain.clone(), Home::Shared);
        let worker = tokio::spawn(async move { work.await.context("the worker stopped") });
        Ok(Self { app, account, provider, drain, worker, _folder: folder })
    }

    async fn verify(
        &mut self,
        context: &Context,
        out: &Output,
        list: List,
        name: String,
        single: bool,
    ) -> Result<Outcome> {
        let started = Instant::now();
        let submission = Submission {
            account: self.account,
            key: None,
            by: None,
            key_limited: false,
            sandbox: false,
            format: list.format.clone(),
            gzip: list.gzip,
            name: Some(name.clone()),
            allow_partial: false,
            dry_run: false,
            idempotency: None,
            answer: |_, _| (201, String::new()),
        };
        let submitting = async {
            match self.app.submit(submission, list.bytes()).await {
                Ok(Accepted::Task { id: Some(id), .. }) => Ok(id),
                Ok(_) => bail!("{name}: the list did not become a task"),
                Err(error) => Err(refused(&name, error)),
            }
        };
        let id = context.shutdown.or_interrupted(submitting).await?;
        let task = self.follow(out, id, &name).await?;
        let counts = Counts::of(&self.app, &task).await?;
        let results = match single {
            true => Some(report::results(&self.app, &task).await?),
            false => None,
        };
        Ok(Outcome { task, counts, results, took: started.elapsed() })
    }

    /// Until the task, or by a signal the worker, has ended.
    async fn follow(&mut self, out: &Output, id: TaskId, name: &str) -> Result<Task> {
        let mut task = self.app.task(id, self.account).await?;
        let mut bar = out.progress(name, task.submitted.unique.unsigned_abs(), "addresses");
        let mut news = Instant::now();
        loop {
            let before = task.tally.processed();
            task = self.app.task(id, self.account).await?;
            if task.tally.processed() != before {
                news = Instant::now();
            }
            bar.set(task.tally.processed().unsigned_abs());
            match task.status {
                TaskStatus::Failed => bail!("{name}: the stored list is damaged"),
                status if status.has_ended() => break,
                _ => self.explain(&mut bar, &task, news).await?,
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                ended = &mut self.worker => {
                    ended??;
                    ensure!(self.drain.is_cancelled(), "the worker ended by itself");
                    task = self.app.task(id, self.account).await?;
                    break;
                }
            }
        }
        bar.set(task.tally.processed().unsigned_abs());
        bar.finish();
        Ok(task)
    }

    /// Why nothing new comes, as far as it is known.
    async fn explain(&self, bar: &mut Progress, task: &Task, news: Instant) -> Result<()> {
        let health = self.provider.health();
        if let Some(Health::Down { why }) = health.map(|health| health.borrow().clone()) {
            bar.note(&why);
        } else if news.elapsed() >= QUIET {
            let open = task.submitted.unique - task.tally.processed();
            bar.note(&match self.app.store.set_aside(task.id).await? {
                (count, Some(due_at)) if count == open => format!(
                    "{} set aside by their mail servers, asked again in {}",
                    grouped(count.unsigned_abs()),
                    readable(Duration::from_millis(
                        (due_at - self.app.now()).max(0).unsigned_abs()
                    ))
                ),
                _ => format!("{} not answered yet", grouped(open.unsigned_abs())),
            });
        } else {
            bar.note("");
        }
        Ok(())
    }

    /// Ends the worker, if it has not ended, and removes the folder.
    async fn stop(mut self) {
        self.drain.cancel();
        if !self.worker.is_finished() {
            let _ = (&mut self.worker).await;
        }
        self.app.store.close().await;
    }
}

fn settings(base: &Settings, args: &VerifyArgs, folder: &Path) -> Settings {
    let mut settings = base.clone();
    settings.database_url = sqlite_url(&folder.join("verify.db"));
    settings.redis_url = None;
    settings.worker_bind = None;
    settings.body_idle_timeout = PATIENCE;
    settings.provider = args.provider.map_or(settings.provider, ProviderKind::from);
    if let Some(concurrency) = args.concurrency {
        settings.worker_concurrency = concurrency as usize;
    }
    settings
}

/// What is wrong with the list, in the words of a shell.
fn refused(name: &str, error: SubmitError) -> anyhow::Error {
    match error {
        SubmitError::Body(BodyError::NotGzip(why)) => {
            anyhow!("{name}: begins like a file packed with gzip, but cannot be unpacked: {why}")
        }
        SubmitError::Read(
            error @ (ReadError::NoAddressColumn { .. } | ReadError::ColumnNotFound { .. }),
        ) => anyhow!("{name}: {error} The option is --column."),
        SubmitError::Read(error @ ReadError::SheetNotFound { .. }) => {
            anyhow!("{name}: {error} The option is --sheet.")
        }
        error => anyhow!("{name}: {error}"),
    }
}
