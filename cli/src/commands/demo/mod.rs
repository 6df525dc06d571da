//! `listmill demo`: the whole story on a throw-away database, over real HTTP.
//!
//! Key A submits the sample list and is revoked while it runs; key B sees it to its end. Nothing is
//! taken on trust: each claim of the story is a [`Checks`] line, and one that does not hold makes
//! the exit code 1. The environment's settings are ignored, but for the log: a demo must not
//! depend on, or touch, anything that is set up here.

mod report;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt;
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{AccountId, KeyId};
use listmill_shared::settings::{ProviderKind, Settings};
use listmill_shared::store::person_links::LinkKind;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use self::report::Report;
use super::admin::books_object;
use super::embedded::{Embedded, listen, url_of};
use super::{Context, make_key, sqlite_url};
use crate::args::DemoArgs;
use crate::client::{Answer, Client, TaskView};
use crate::output::{Output, grouped, millis};

/// The shipped list, with the warts of real exports.
const LIST: &[u8] = include_bytes!("../../../sample/contacts.csv");
const NAME: &str = "contacts.csv";
const CREDITS: i64 = 2_000;
/// Long enough to watch: the list takes 7 to 9 seconds.
const LATENCY: Duration = Duration::from_millis(400);
const CONCURRENCY: usize = 64;
/// Several batches per task, so that progress is smooth.
const BATCH: u32 = 100;
const POLL: Duration = Duration::from_millis(100);
/// Key A is revoked once this much is done, in percent.
const REVOKE_AT: u64 = 15;
/// Far beyond what the list takes; then the demo says so instead of waiting.
const TOO_LONG: Duration = Duration::from_secs(60);
/// What the gate says to a key that its owner disabled.
const SUSPENDED: &str =
    r#"{"error":"API key is suspended","reason":"This API key has been suspended"}"#;

/// The claims that were checked, and whether they held.
#[derive(Debug, Default)]
pub struct Checks(Vec<(String, bool)>);

impl Checks {
    fn claim(&mut self, what: impl Into<String>, holds: bool) {
        self.0.push((what.into(), holds));
    }

    fn hold(&self) -> bool {
        self.0.iter().all(|(_, holds)| *holds)
    }
}

/// The account of the demo.
const OWNER: &str = "demo@localhost";

/// The stage: a server, an account and two keys.
struct Stage {
    app: App,
    client: Client,
    account: AccountId,
    key_a: (KeyId, String),
    key_b: (KeyId, String),
}

/// What happened on it.
struct Story {
    task: TaskView,
    refused: Answer,
    revoked_at: u64,
    took: Duration,
}

pub async fn run(context: Context, args: DemoArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let settings = settings(&context, folder.path())?;
    let provider = listmill_worker::provider::build(&settings, &context.clock, &context.ids)?;
    let drain = CancellationToken::new();
    let opening = async {
        let app = App::open(settings, context.clock.clone(), context.ids.clone()).await?;
        app.store.migrate().await?;
        app.open_keyring(true).await?;
        Ok(app)
    };
    let app = context.shutdown.or_interrupted(opening).await?;
    let listener = listen(&app.settings.bind, "bind").await?;
    let url = url_of(listener.local_addr()?);
    listmill_api::install_metrics()?;
    let mut server = Embedded::start(app.clone(), provider, listener, drain);
    let show = async {
        tokio::select! {
            told = tell(&context, &args, app.clone(), &url) => told,
            ended = server.ended() => match ended {
                Err(error) => Err(error),
                Ok(()) => bail!("the server stopped in the middle of the demo"),
            },
        }
    };
    let told = context.shutdown.or_interrupted(show).await;
    if args.keep && told.is_ok() {
        tokio::select! {
            () = context.shutdown.drain.cancelled() => {}
            ended = server.ended() => ended?,
        }
    }
    let stopped = server.stop().await;
    app.store.close().await;
    let held = told?;
    stopped?;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settings(context: &Context, folder: &Path) -> Result<Settings> {
    let mut settings = Settings::load(None, [])?;
    settings.log.clone_from(&context.settings.log);
    settings.log_format = context.settings.log_format;
    settings.database_url = sqlite_url(&folder.join("demo.db"));
    settings.bind = String::from("127.0.0.1:0");
    settings.provider = ProviderKind::Sandbox;
    settings.sandbox_latency = LATENCY;
    settings.worker_concurrency = CONCURRENCY;
    settings.batch_size = BATCH;
    settings.shutdown_grace = Duration::from_secs(1);
    Ok(settings)
}

/// The whole story; did everything hold?
async fn tell(context: &Context, args: &DemoArgs, app: App, url: &str) -> Result<bool> {
    let out = &context.output;
    out.say("Listmill demo: one process, a throw-away database, real HTTP.");
    out.say("The verdicts come from the sandbox provider: they are made up.\n");
    let stage = set_up(app, url).await?;
    out.say(format!(
        "1. Server at {url}; one account with {} credits and two keys, A and B",
        grouped(CREDITS.unsigned_abs())
    ));
    let mut checks = Checks::default();
    let story = play(out, &stage, &mut checks).await?;
    let size = download(&stage, &story.task, &args.output).await?;
    out.say(format!("6. Results: {} ({} kB)\n", args.output.display(), size / 1024));
    let report = Report::gather(&stage.client, &story.task, &stage.key_b.1).await?;
    let books = stage.app.store.books(Some(stage.account)).await?;
    report.check(&story.task, &mut checks);
    checks.claim(
        "the books are exact: granted = balance + held + charged",
        books.iter().all(|book| book.faults().is_empty()),
    );
    let login = match args.keep {
        true => Some(login_url(&stage.app, url).await?),
        false => None,
    };
    let object = json!({
        "ok": checks.hold(),
        "provider": "sandbox",
        "note": "verdicts come from the sandbox provider: they are made up",
        "url": url,
        "task_id": story.task.id,
        "status": story.task.status,
        "counts": {
            "submitted": story.task.counts.submitted,
            "unique": story.task.counts.unique,
            "duplicates": story.task.counts.duplicates,
            "invalid_syntax": story.task.counts.invalid_syntax,
            "processed": story.task.counts.processed,
        },
        "credits": {
            "charged": story.task.credits.charged, "refunded": story.task.credits.refunded,
        },
        "revoked_at_percent": story.revoked_at,
        "revoked_key": {
            "status": story.refused.status,
            "body": serde_json::from_str::<Value>(&story.refused.body).unwrap_or_default(),
        },
        "milliseconds": millis(story.took),
        "results_file": args.output,
        "verdicts": report.verdicts_object(),
        "ledger": report.ledger_object(),
        "books": books.iter().map(books_object).collect::<Result<Vec<_>>>()?,
        "checks": checks.0.iter().map(|(what, ok)| json!({"what": what, "ok": ok}))
            .collect::<Vec<_>>(),
        "key": args.keep.then_some(&stage.key_b.1),
        "login": login,
    });
    report.show(out, &books, &checks);
    out.object(&object)?;
    if let Some(login) = login {
        out.say(format!("\nThe server stays up at {url} (docs: {url}/docs) until Ctrl-C; key B:"));
        out.say(format!("  {}", stage.key_b.1));
        out.say(
            "\nLook at the task, the revoked key and the ledger in your browser (of use once):",
        );
        out.say(format!("  {login}"));
    }
    Ok(checks.hold())
}

/// Logs the owner of the demo's account in to the dashboard, once.
async fn login_url(app: &App, url: &str) -> Result<String> {
    let by = Origin::system();
    let token = app.make_person_link(OWNER, LinkKind::Login, &by).await?;
    Ok(format!("{url}/login/link/{}", token.reveal()))
}

async fn set_up(app: App, url: &str) -> Result<Stage> {
    let by = Origin::system();
    let account = app.create_account(OWNER, None, CREDITS, false, &by).await?;
    let key_a = make_key(&app, account, "A", None, None, &by).await?;
    let key_b = make_key(&app, account, "B", None, None, &by).await?;
    Ok(Stage { app, client: Client::new(url)?, account, key_a, key_b })
}

/// Submit with A, revoke A, go on with B.
async fn play(out: &Output, stage: &Stage, checks: &mut Checks) -> Result<Story> {
    let Stage { client, key_a: (id_a, key_a), key_b: (_, key_b), .. } = stage;
    let started = Instant::now();
    let task = client.submit(NAME, key_a, LIST.into()).await?;
    out.say(format!(
        "2. Key A submits {NAME}: {} addresses, {} distinct, {} duplicates, {} with bad syntax",
        grouped(task.counts.submitted),
        grouped(task.counts.unique),
        grouped(task.counts.duplicates),
        grouped(task.counts.invalid_syntax)
    ));
    let mut bar = out.progress("   verifying", task.counts.unique, "addresses");
    let mut polling = key_a;
    let mut refused = None;
    let mut revoked_at = 0;
    let task = loop {
        let task = client.task(&task.id, polling).await?;
        bar.set(task.counts.processed);
        if task.has_ended() {
            break task;
        }
        if refused.is_none() && task.percent() >= REVOKE_AT {
            revoked_at = task.percent();
            let path = format!("/v1/keys/{id_a}/disable");
            client.call(Method::POST, &path, key_b).await?.success("revoking key A")?;
            let path = format!("/v1/tasks/{}", task.id);
            // The very next request, with nothing in between.
            let answer = client.call(Method::GET, &path, key_a).await?;
            bar.say(&format!(
                "3. At {revoked_at} %, key A is revoked: POST /v1/keys/{id_a}/disable"
            ));
            bar.say(&format!("4. Key A polls: {} {}", answer.status, answer.body.trim()));
            bar.say("5. Key B polls from here on; the task belongs to the account and goes on");
            refused = Some(answer);
            polling = key_b;
            continue;
        }
        if started.elapsed() > TOO_LONG {
            bail!("the task is still {} after {} s", task.status, TOO_LONG.as_secs());
        }
        tokio::time::sleep(POLL).await;
    };
    let took = started.elapsed();
    bar.finish();
    out.say(format!("   {} after {:.1} s", task.status, took.as_secs_f64()));
    let refused = refused.context("the task ended before its key could be revoked")?;
    let same = |text: &str| serde_json::from_str::<Value>(text).ok();
    checks.claim(
        "the first request after the revocation was refused (403, with the reason)",
        refused.status == 403 && same(&refused.body) == same(SUSPENDED),
    );
    checks.claim("the task went on to its end without its key", task.status == "completed");
    Ok(Story { task, refused, revoked_at, took })
}

/// Streams the results into a file; returns its size.
async fn download(stage: &Stage, task: &TaskView, file: &Path) -> Result<u64> {
    let path = format!("/v1/tasks/{}/results?format=csv", task.id);
    let mut body = stage.client.stream(&path, &stage.key_b.1).await?.bytes_stream();
    let into = tokio::fs::File::create(file);
    let mut into = into.await.with_context(|| format!("cannot write {}", file.display()))?;
    let mut size = 0;
    while let Some(piece) = body.try_next().await.context("the results broke off")? {
        size += piece.len() as u64;
        into.write_all(&piece).await?;
    }
    into.flush().await?;
    Ok(size)
}
