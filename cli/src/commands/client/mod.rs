//! The commands that speak to a server over its API, with a key, from anywhere.
//!
//! | room | holds |
//! | --- | --- |
//! | `server` | requests, tries, patience, trust; `fault`: what can go wrong, in words |
//! | `source`, `submit` | a list on its way to the server, once however often it is sent |
//! | `task`, `watch`, `sse` | a task, and its way to its end |
//! | `download` | results on their way into a file |
//! | `verify` | all of it in one, for `listmill verify --url` |
//!
//! A task belongs to the server: nothing that happens here, Ctrl-C included, ends it but `cancel`.

mod download;
mod fault;
mod server;
mod source;
mod sse;
mod submit;
mod task;
pub mod verify;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use self::download::Place;
use self::server::Server;
use self::source::Source;
use self::submit::Wanted;
use self::task::Task;
use super::Context;
use super::verify::input::Subject;
use crate::args::{CancelArgs, DownloadFormat, ResultsArgs, StatusArgs, SubmitArgs, WatchArgs};
use crate::output::{Output, complain, grouped};

/// `listmill submit`.
pub async fn submit(context: Context, args: SubmitArgs) -> Result<ExitCode> {
    let subject = subject(&args.file)?;
    let server = Server::find(&args.server)?;
    let place = match &args.output {
        Some(path) => Some(place(&context, path, args.format, args.force)?),
        None => None,
    };
    let to_stdout = place.as_ref().is_some_and(Place::is_stdout);
    let out = if to_stdout { context.output.aside() } else { context.output };
    let source = Source::open(subject, args.input_format, &context.shutdown);
    let source = context.shutdown.or_interrupted(source).await?;
    let wanted = Wanted {
        query: query([
            ("name", args.name.or(Some(source.name.clone()))),
            ("column", args.column),
            ("sheet", args.sheet),
            ("delimiter", args.delimiter),
            ("charset", args.charset),
            ("collapse", args.collapse.then(|| String::from("true"))),
            ("allow_invalid", args.allow_invalid.then(|| String::from("true"))),
            ("allow_partial", args.allow_partial.then(|| String::from("true"))),
            ("dry_run", args.dry_run.then(|| String::from("true"))),
        ]),
        idempotency_key: args.idempotency_key.unwrap_or_else(|| new_key(&context)),
    };
    let sending = submit::send(&server, &out, &source, &wanted);
    let answer = context.shutdown.or_interrupted(sending).await?;
    drop(source);
    if args.dry_run {
        tell_dry_run(&out, &answer);
        out.object(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let task = Task::read(answer)?;
    if !args.wait {
        task.tell(&out);
        out.say(format!("\n  listmill watch {0}\n  listmill results {0}", task.id));
        out.object(&task.raw)?;
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("submitted as {}", task.id));
    let mut task = follow(&context, &server, &out, task).await?;
    if let Some(place) = place {
        let path = place.path().to_owned();
        place.fill(&server, &task.id, &[], &context.shutdown).await?;
        if !to_stdout {
            out.say(format!("Results: {}", path.display()));
            task.raw["output"] = json!(path);
        }
    }
    ended(&out, &task)
}

/// `listmill status`.
pub async fn status(context: Context, args: StatusArgs) -> Result<ExitCode> {
    let server = Server::find(&args.server)?;
    if let Some(id) = &args.task {
        let task = context.shutdown.or_interrupted(find(&server, id)).await?;
        task.tell(&context.output);
        context.output.object(&task.raw)?;
        return Ok(ExitCode::SUCCESS);
    }
    let query = query([("limit", Some(args.limit.to_string())), ("status", args.status)]);
    let asking = async { Ok(server.get("/v1/tasks", &query).await?) };
    let page = context.shutdown.or_interrupted(asking).await?;
    let rows = page["data"].as_array().context("the server's answer is no list of tasks")?;
    let tasks = rows.iter().cloned().map(Task::read).collect::<Result<Vec<_>>>()?;
    match tasks.is_empty() {
        true => context.output.say("There is no task."),
        false => task::table(&context.output, &tasks),
    }
    context.output.object(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// `listmill watch`.
pub async fn watch(context: Context, args: WatchArgs) -> Result<ExitCode> {
    let server = Server::find(&args.server)?;
    let task = context.shutdown.or_interrupted(find(&server, &args.task)).await?;
    let task = follow(&context, &server, &context.output, task).await?;
    ended(&context.output, &task)
}

/// `listmill results`.
pub async fn results(context: Context, args: ResultsArgs) -> Result<ExitCode> {
    task::check_id(&args.task)?;
    let server = Server::find(&args.server)?;
    let place = place(&context, &args.output, args.format, args.force)?;
    let (format, to_stdout) = (place.format, place.is_stdout());
    let query = query([
        ("status", args.status.map(|status| status.to_string())),
        ("reason", args.reason.map(|reason| reason.to_string())),
        ("flag", args.flag),
        ("escape", args.escape_formulas.then(|| String::from("formulas"))),
    ]);
    let bytes = place.fill(&server, &args.task, &query, &context.shutdown).await?;
    if !to_stdout {
        context.output.say(format!("Results: {}", args.output.display()));
        context.output.object(&json!({
            "task_id": args.task,
            "output": args.output,
            "format": format.as_str(),
            "bytes": bytes,
        }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `listmill cancel`.
pub async fn cancel(context: Context, args: CancelArgs) -> Result<ExitCode> {
    task::check_id(&args.task)?;
    let server = Server::find(&args.server)?;
    let path = format!("/v1/tasks/{}/cancel", args.task);
    let asking = async { Ok(server.post(&path).await?) };
    let answer = context.shutdown.or_interrupted(asking).await?;
    let count = |field: &str| {
        let count = answer["settlement"][field].as_u64();
        count.map(grouped).context("the server's answer is no settlement")
    };
    let out = &context.output;
    out.say(format!("{} is cancelled. It came to this, and nothing more is charged:", args.task));
    let rows = [
        ("charged", "credits used for verdicts"),
        ("refunded", "credits given back for unknown ones"),
        ("released", "credits given back that were held"),
        ("not_processed", "addresses without a result"),
    ];
    let rows = rows.map(|(field, words)| Ok(vec![words.to_owned(), count(field)?]));
    out.table("  ", 1, &rows.into_iter().collect::<Result<Vec<_>>>()?);
    out.object(&answer)?;
    Ok(ExitCode::SUCCESS)
}

/// Stdin, or a file that is there.
fn subject(file: &str) -> Result<Subject> {
    if file == "-" {
        return Ok(Subject::Stdin);
    }
    let (path, shown) = (Path::new(file), fault::printable(file));
    ensure!(path.exists(), "{shown}: there is no such file");
    ensure!(!path.is_dir(), "{shown} is a folder; name a list in it");
    Ok(Subject::File(path.to_owned()))
}

/// The task as it is now.
async fn find(server: &Server, id: &str) -> Result<Task> {
    task::check_id(id)?;
    Task::read(server.get(&format!("/v1/tasks/{id}"), &[]).await?)
}

/// Watches until the end. When we are stopped before: says that the task goes on, and how to go on with it.
async fn follow(context: &Context, server: &Server, out: &Output, task: Task) -> Result<Task> {
    let (id, known) = (task.id.clone(), task.raw.clone());
    let followed = context.shutdown.or_interrupted(watch::follow(server, out, task)).await;
    if followed.is_err() {
        goes_on(server, &id);
        if context.shutdown.interrupted().is_some() {
            out.object(&known)?;
        }
    }
    followed
}

fn goes_on(server: &Server, id: &str) {
    let url = server.shown();
    complain(&format!(
        "The task goes on at the server. To watch it again, fetch what it has, or end it:\n  \
         listmill watch {id} --url {url}\n  \
         listmill results {id} --url {url} --output results.csv\n  \
         listmill cancel {id} --url {url}"
    ));
}

/// Says how it ended; only one end is a success.
fn ended(out: &Output, task: &Task) -> Result<ExitCode> {
    task.tell(out);
    out.object(&task.raw)?;
    Ok(if task.is_completed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn place(
    context: &Context,
    path: &Path,
    format: Option<DownloadFormat>,
    force: bool,
) -> Result<Place> {
    let place = Place::prepare(path, format, force, &context.shutdown)?;
    if place.is_stdout() && context.output.is_json() {
        bail!("--json and results on stdout: it holds one; name a file with --output");
    }
    Ok(place)
}

/// What was given of it.
fn query<const N: usize>(all: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn new_key(context: &Context) -> String {
    format!("listmill-{}", context.ids.uuid(context.clock.now()))
}

/// What a list would come to.
fn tell_dry_run(out: &Output, answer: &Value) {
    out.say("Nothing was submitted. The list would come to:");
    let rows = [
        ("/counts/submitted", "addresses"),
        ("/counts/unique", "distinct ones"),
        ("/counts/duplicates", "duplicates, free"),
        ("/counts/invalid_syntax", "with broken syntax, free"),
        ("/cost/credits", "credits at most"),
        ("/balance", "credits are there"),
    ];
    let rows = rows.into_iter().filter_map(|(place, words)| {
        let count = answer.pointer(place)?.as_u64()?;
        Some(vec![words.to_owned(), grouped(count)])
    });
    out.table("  ", 1, &rows.collect::<Vec<_>>());
    let book = &answer["workbook"];
    if let (Some(sheet), Some(column)) = (book["sheet"].as_str(), book["column"].as_u64()) {
        out.say(format!("  from column {column} of the sheet {}", fault::printable(sheet)));
    }
}
