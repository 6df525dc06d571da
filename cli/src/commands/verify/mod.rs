//! `listmill verify`: a list or single addresses, from the shell.
//!
//! It is the embedded deployment without its API: SQLite in a private folder, the queue in the process, one
//! account with a credit for every address it may hold, the same worker. The list goes in as the API takes it
//! and comes back as the API gives it.
//!
//! The first signal lets what is under way end, and what is there is written; the second stops at
//! once. The database is the progress: beside the results it stays until the list is done ([`place`]), and the
//! next run goes on with what has no result in it. What was under way when a process was killed is asked again.

pub(super) mod input;
mod place;
mod record;
pub(super) mod report;
pub(super) mod results;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use listmill_shared::app::App;
use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::app::submit::read::ReadError;
use listmill_shared::app::submit::{Accepted, BodyError, Likely, Submission, SubmitError};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{AccountId, TaskId};
use listmill_shared::domain::task::{Task, TaskStatus};
use listmill_shared::settings::{ProviderKind, Settings};
use listmill_shared::store::Store;
use listmill_shared::store::tasks::{Start, TaskFilter};
use listmill_worker::Home;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::input::{List, Subject};
use self::place::Place;
use self::report::Counts;
use self::results::{ResultsFile, Target};

use super::glance::glance;
use super::{Context, sqlite_url};
use crate::args::{ResultsFormat, VerifyArgs};
use crate::output::{Output, Progress, complain, grouped, readable};

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
}

/// How it went.
struct Outcome {
    task: Task,
    counts: Counts,
    /// With what each rests on; of single addresses only.
    results: Option<Vec<Value>>,
    took: Duration,
    /// Addresses that had their result before.
    before: i64,
}

pub async fn run(context: Context, args: VerifyArgs) -> Result<ExitCode> {
    if let Some(url) = args.url.clone() {
        return super::client::verify::run(context, args, &url).await;
    }
    let umask = place::be_private();
    let subject = Subject::find(&args.inputs)?;
    let name = subject.name();
    let target = Target::of(&subject, &args);
    let to_stdout = target.as_ref().is_some_and(Target::is_stdout);
    ensure!(!(to_stdout && context.output.is_json()), "--json and --output -: stdout holds one");
    let out = if to_stdout { context.output.aside() } else { context.output };
    let opening = Place::open(&context, &args, &subject, target.as_ref());
    let mut place = context.shutdown.or_interrupted(opening).await?;
    if !place.can_be_kept() {
        context.shutdown.remove_when_stopped(place.path());
    }
    let file = target.map(|target| ResultsFile::prepare(target, &args, &mut place, umask));
    let file = file.transpose()?;
    if let Some(path) = file.as_ref().and_then(ResultsFile::temporary) {
        context.shutdown.remove_when_stopped(path);
    }
    let written = file.as_ref().map(|file| (file.path().map(Path::to_owned), file.format));
    let verified = verify(&context, &args, &out, subject, file, &mut place).await;
    let done = verified.as_ref().is_ok_and(|(outcome, _)| outcome.task.status.has_ended());
    let kept = (place.is_kept() && !done).then(|| place.path().to_owned());
    if done {
        place.remove();
    } else {
        drop(place);
    }
    let (outcome, provider) = match (verified, &kept) {
        (Ok(verified), _) => verified,
        (Err(error), Some(folder)) => {
            complain(&go_on(folder));
            return Err(error);
        }
        (Err(error), None) => return Err(error),
    };
    let interrupted = context.shutdown.interrupted().filter(|_| !outcome.task.status.has_ended());
    let mut object = json!({
        "input": name,
        "provider": provider,
        "interrupted": interrupted.is_some(),
        "counts": report::counts_object(&outcome.task),
        "reasons": outcome.counts.object(),
        "seconds": outcome.took.as_millis() as f64 / 1e3,
        "progress": kept,
    });
    if let Some((path, format)) = &written {
        object["output"] = json!(path);
        object["format"] = json!(format.as_str());
    }
    outcome.tell(&out, provider, interrupted.is_some());
    if let Some((Some(path), _)) = &written {
        out.say(format!("Results: {}", path.display()));
    }
    if let Some(folder) = &kept {
        out.say(go_on(folder));
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

/// Verifies, and writes the results; tells who verified.
async fn verify(
    context: &Context,
    args: &VerifyArgs,
    out: &Output,
    subject: Subject,
    file: Option<ResultsFile>,
    place: &mut Place,
) -> Result<(Outcome, &'static str)> {
    let (name, single) = (subject.name(), matches!(subject, Subject::Addresses(_)));
    let mut mill = Mill::start(context, args, single, place).await?;
    let verified = async {
        let settings = mill.app.settings.as_ref().clone();
        let looking = tokio::spawn(glance(settings, context.clock.clone(), context.ids.clone()));
        if !single {
            context.shutdown.or_interrupted(async { Ok(looking.await?) }).await?;
        }
        let id = match mill.begun().await? {
            Some(id) => id,
            None => {
                let once = matches!(subject, Subject::Stdin);
                ensure!(
                    !(once && place.is_resumed()),
                    "the list was not read to its end; --restart reads it anew"
                );
                let list = context.shutdown.or_interrupted(subject.open(args)).await?;
                mill.submit(context, list, &name).await?
            }
        };
        place.keep();
        let outcome = mill.verify(out, id, &name, single).await?;
        if let Some(file) = file {
            write(&mill.app.store, &outcome.task, file, place).await?;
        }
        Ok::<_, anyhow::Error>(outcome)
    };
    let verified = verified.await;
    let provider = mill.provider.name();
    mill.stop().await;
    Ok((verified?, provider))
}

fn go_on(folder: &Path) -> String {
    format!(
        "The same command with --resume goes on where this stopped; until then the progress is kept in {}",
        folder.display()
    )
}

async fn write(store: &Store, task: &Task, file: ResultsFile, place: &mut Place) -> Result<()> {
    match file.format {
        ResultsFormat::Csv => {
            file.write(listmill_api::csv_file(store, task, None).await?, place).await
        }
        ResultsFormat::Ndjson => {
            file.write(listmill_api::ndjson_file(store, task, None), place).await
        }
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
                let rate = (done - self.before) as f64 / self.took.as_secs_f64().max(1e-3);
                let now = match self.before {
                    0 => String::new(),
                    before => format!(" ({} of them now)", grouped((done - before).unsigned_abs())),
                };
                out.say(format!(
                    "{} unique addresses{now}, {} duplicates, in {}, {rate:.1}/s\n",
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
    async fn start(
        context: &Context,
        args: &VerifyArgs,
        single: bool,
        place: &Place,
    ) -> Result<Self> {
        let mut settings = settings(&context.settings, args, place.database());
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
            if place.is_resumed() {
                // The lock says that nobody works here: nothing need run out.
                app.store.take_over(app.now()).await?;
            }
            let account = match app.store.account_by_email(OWNER).await? {
                Some(account) => account,
                None => app.create_account(OWNER, None, credits, false, &Origin::system()).await?,
            };
            Ok((app, account))
        };
        let (app, account) = context.shutdown.or_interrupted(opening).await?;
        let drain = context.shutdown.drain.child_token();
        let (working, asked) = (app.clone(), provider.clone());
        let work = listmill_worker::run(working, asked, drain.clone(), Home::Shared);
        let worker = tokio::spawn(async move { work.await.context("the worker stopped") });
        Ok(Self { app, account, provider, drain, worker })
    }

    /// The list that an earlier run has stored.
    async fn begun(&self) -> Result<Option<TaskId>> {
        let all = TaskFilter::default();
        let newest = self.app.store.tasks(self.account, all, Start::Newest, 1).await?;
        Ok(newest.first().map(|task| task.id))
    }

    /// Stores the list.
    async fn submit(&self, context: &Context, list: List, name: &str) -> Result<TaskId> {
        let submission = Submission {
            account: self.account,
            key: None,
            by: None,
            key_limited: false,
            sandbox: false,
            format: list.format.clone(),
            said: list.said,
            gzip: false,
            allow_invalid: list.allow_invalid,
            name: Some(name.to_owned()),
            allow_partial: false,
            dry_run: false,
            idempotency: None,
            answer: |_, _, _| (201, String::new()),
        };
        let submitting = async {
            match self.app.submit(submission, list.bytes()).await {
                Ok(Accepted::Task { id: Some(id), .. }) => Ok(id),
                Ok(_) => bail!("{name}: the list did not become a task"),
                Err(error) => Err(refused(name, error)),
            }
        };
        context.shutdown.or_interrupted(submitting).await
    }

    async fn verify(
        &mut self,
        out: &Output,
        id: TaskId,
        name: &str,
        single: bool,
    ) -> Result<Outcome> {
        let started = Instant::now();
        let before = self.app.task(id, self.account).await?.tally.processed();
        let task = self.follow(out, id, name).await?;
        let counts = Counts::of(&self.app, &task).await?;
        let results = match single {
            true => Some(report::results(&self.app, &task).await?),
            false => None,
        };
        Ok(Outcome { task, counts, results, took: started.elapsed(), before })
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

    /// Ends the worker, if it has not ended.
    async fn stop(mut self) {
        self.drain.cancel();
        if !self.worker.is_finished() {
            let _ = (&mut self.worker).await;
        }
        self.app.store.close().await;
    }
}

fn settings(base: &Settings, args: &VerifyArgs, database: PathBuf) -> Settings {
    let mut settings = base.clone();
    settings.database_url = sqlite_url(&database);
    settings.redis_url = None;
    settings.worker_bind = None;
    settings.body_idle_timeout = PATIENCE;
    // Whoever goes on after a month finds what there was.
    settings.results_ttl = Duration::ZERO;
    settings.provider = args.provider.map_or(settings.provider, ProviderKind::from);
    if let Some(concurrency) = args.concurrency {
        settings.worker_concurrency = concurrency as usize;
    }
    settings
}

/// What is wrong with the list, in the words of a shell.
fn refused(name: &str, error: SubmitError) -> anyhow::Error {
    match error {
        SubmitError::Body(BodyError::NotUnpacked(packing, why)) => {
            anyhow!(
                "{name}: begins like a file packed with {packing}, but cannot be unpacked: {why}"
            )
        }
        SubmitError::Read(
            error @ (ReadError::NoAddressColumn { .. } | ReadError::ColumnNotFound { .. }),
        ) => anyhow!("{name}: {error} The option is --column."),
        SubmitError::Read(error @ ReadError::SheetNotFound { .. }) => {
            anyhow!("{name}: {error} The option is --sheet.")
        }
        SubmitError::MostlyInvalid(wrong) => {
            let likely = match &wrong.likely {
                Likely::OtherColumn { taken, better } => format!(
                    "they were taken from the column \"{taken}\"; --column \"{better}\" has more addresses"
                ),
                Likely::WrongColumn { taken } => {
                    format!(
                        "the column \"{taken}\" is probably the wrong one: --column names another"
                    )
                }
                Likely::Encoding(encoding) => {
                    format!("the list was read as {encoding}: --charset names another encoding")
                }
                Likely::WrongFile | Likely::Damaged => wrong.likely.to_string(),
            };
            anyhow!(
                "{name}: {} of {} entries are no email addresses, such as {}; {likely}. With --allow-invalid it is \
                 verified all the same",
                wrong.invalid,
                wrong.unique,
                wrong.samples()
            )
        }
        error => anyhow!("{name}: {error}"),
    }
}
