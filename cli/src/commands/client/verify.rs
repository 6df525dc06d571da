//! `listmill verify --url`: what `listmill verify` does, by a server.
//!
//! The list goes there, is watched, and its results come back into the file that would have been written here.
//! Ctrl-C ends the watching only: the task is the server's.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use listmill_shared::domain::verdict::Status;
use reqwest::Method;
use serde_json::{Value, json};

use super::server::Server;
use super::source::Source;
use super::submit::Wanted;
use super::task::Task;
use super::{download, follow, new_key, query, submit};
use crate::args::VerifyArgs;
use crate::commands::Context;
use crate::commands::verify::input::Subject;
use crate::commands::verify::report;
use crate::commands::verify::results::Target;
use crate::commands::whole_file::WholeFile;
use crate::output::{complain, readable};

/// See the module.
pub async fn run(context: Context, args: VerifyArgs, url: &str) -> Result<ExitCode> {
    let subject = Subject::find(&args.inputs)?;
    let single = matches!(subject, Subject::Addresses(_));
    let server = Server::at(url, &args.access)?;
    let target = Target::of(&subject, &args);
    let to_stdout = target.as_ref().is_some_and(Target::is_stdout);
    ensure!(!(to_stdout && context.output.is_json()), "--json and --output -: stdout holds one");
    let out = if to_stdout { context.output.aside() } else { context.output };
    let file = target.map(|target| {
        let whole = WholeFile::at(target.path().to_owned(), args.force)?;
        anyhow::Ok((whole, target.format))
    });
    let file = file.transpose()?;
    if let Some(path) = file.as_ref().and_then(|(file, _)| file.temporary()) {
        context.shutdown.remove_when_stopped(path);
    }
    let started = Instant::now();
    let source = Source::open(subject, args.input_format, &context.shutdown);
    let source = context.shutdown.or_interrupted(source).await?;
    let name = source.name.clone();
    let wanted = Wanted {
        query: query([
            ("name", Some(name.clone())),
            ("column", args.column),
            ("sheet", args.sheet),
            ("charset", args.charset),
            ("collapse", args.collapse.then(|| String::from("true"))),
            ("allow_invalid", args.allow_invalid.then(|| String::from("true"))),
        ]),
        idempotency_key: new_key(&context),
    };
    let sending = submit::send(&server, &out, &source, &wanted);
    let task = Task::read(context.shutdown.or_interrupted(sending).await?)?;
    drop(source);
    complain(&format!("submitted to {} as {}", server.shown(), task.id));
    let task = follow(&context, &server, &out, task).await?;
    let mut object = json!({
        "input": name,
        "url": server.shown(),
        "task_id": task.id,
        "status": task.status,
        "interrupted": false,
        "counts": task.raw["counts"],
        "seconds": started.elapsed().as_millis() as f64 / 1e3,
    });
    task.tell(&out);
    out.say(format!("  in {}", readable(started.elapsed())));
    if let Some((file, format)) = file {
        let path = file.path().map(Path::to_owned);
        let format_query = [("format", format.as_str().to_owned())];
        let flow = download::Flow::default();
        let shutdown = &context.shutdown;
        let pouring = download::pour(&server, &task.id, &format_query, file, &flow, shutdown);
        pouring.await.with_context(|| {
            format!(
                "the task has ended; its results are at the server: listmill results {}",
                task.id
            )
        })?;
        (object["output"], object["format"]) = (json!(path), json!(format.as_str()));
        if let Some(path) = path {
            out.say(format!("Results: {}", path.display()));
        }
    }
    if single {
        let asking = explain(&server, &task);
        let results = context.shutdown.or_interrupted(asking).await?;
        results.iter().for_each(|row| report::show(&out, row));
        object["results"] = json!(results);
    }
    out.object(&object)?;
    let failed = args.fail_on.iter().any(|status| count(&task, *status) > 0);
    Ok(if task.is_completed() && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn count(task: &Task, status: Status) -> u64 {
    match status {
        Status::Deliverable => task.counts.deliverable,
        Status::Undeliverable => task.counts.undeliverable,
        Status::Risky => task.counts.risky,
        Status::Unknown => task.counts.unknown,
    }
}

/// Every result with what it rests on.
async fn explain(server: &Server, task: &Task) -> Result<Vec<Value>> {
    let path = format!("/v1/tasks/{}/results", task.id);
    let query = [("format", String::from("json_array"))];
    let patience = download::PIECE;
    let response = server.open(patience, || server.request(Method::GET, &path, &query)).await?;
    let Value::Array(rows) = server.value(response).await? else {
        bail!("the server's answer is no list of results")
    };
    let mut results = Vec::with_capacity(rows.len());
    for row in rows {
        results.push(match row["seq"].as_u64() {
            Some(seq) => server.get(&format!("{path}/{seq}"), &[]).await?,
            None => row,
        });
    }
    Ok(results)
}
