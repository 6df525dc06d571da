//! `listmill admin …`: operator levers, straight on the database; on SQLite also beside a running
//! `up`. What they change holds for every request and task from the moment they return.

mod accounts;
mod credits;
mod fleet;
mod import;
mod keys;
mod password;
mod rotate;
mod suspend;
mod tasks;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt;
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::id::{AccountId, KeyId, TaskId};
use listmill_shared::domain::key::fields::Fields;
use listmill_shared::domain::key::{Environment, Key};
use listmill_shared::domain::key_scan::mask;
use listmill_shared::domain::ledger::Books;
use listmill_shared::store::keys::Filter;
use serde_json::{Value, json};

use super::{Context, make_key_with, open};
use crate::args::{AdminArgs, AdminCommand, KeyCommand};
use crate::output::{Output, grouped, signed};

/// Keys read in one go.
const PAGE: i64 = 1_000;

pub async fn run(context: Context, args: AdminArgs) -> Result<ExitCode> {
    let work = async {
        let app = open(&context).await?;
        let code = dispatch(&app, &context.output, args.command).await?;
        app.store.close().await;
        Ok(code)
    };
    context.shutdown.or_interrupted(work).await
}

async fn dispatch(app: &App, out: &Output, command: AdminCommand) -> Result<ExitCode> {
    match command {
        AdminCommand::Account(command) => accounts::run(app, out, command).await?,
        AdminCommand::Key(KeyCommand::Import(args)) => return import::run(app, out, args).await,
        AdminCommand::Key(command) => key(app, out, command).await?,
        AdminCommand::RootKey(command) => super::root_key::run(app, out, command).await?,
        AdminCommand::Credits(command) => credits::run(app, out, command).await?,
        AdminCommand::Task(command) => tasks::run(app, out, command).await?,
        AdminCommand::Worker(command) => fleet::worker(app, out, command).await?,
        AdminCommand::Queue => fleet::queue(app, out).await?,
        AdminCommand::Ip(command) => super::ip::run(app, out, command).await?,
        AdminCommand::Abuse(command) => super::abuse::run(app, out, command).await?,
        AdminCommand::Limits(command) => super::limits::run(app, out, command).await?,
        AdminCommand::Reconcile { account, deep } => {
            return reconcile(app, out, account.as_deref(), deep).await;
        }
        AdminCommand::Audit(command) => return super::audit::run(app, out, command).await,
        AdminCommand::Results { task } => results(app, &task).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds an account by id or email, in any case.
pub async fn account(app: &App, name: &str) -> Result<AccountId> {
    let found = match name.starts_with(AccountId::PREFIX) && !name.contains('@') {
        true => {
            let id: AccountId = name.parse()?;
            app.store.account_exists(id).await?.then_some(id)
        }
        false => app.store.account_by_email(name).await?,
    };
    found.with_context(|| {
        format!(
            "no account {name:?}; `listmill admin account create --email …` makes one, \
             `listmill admin account list` shows all"
        )
    })
}

async fn key(app: &App, out: &Output, command: KeyCommand) -> Result<()> {
    let by = Origin::operator();
    match command {
        KeyCommand::Create { account: owner, label, expires_in, environment, link } => {
            ensure!(!label.trim().is_empty(), "the label is empty");
            let owner = account(app, &owner).await?;
            let expires_at = expires_in.map(|time| app.now() + time.as_millis() as i64);
            let fields = Fields {
                label: Some(label.clone()),
                expires_at: Some(expires_at),
                environment: Some(environment),
                ..Fields::default()
            };
            if link {
                let id = rotate::create_with_link(app, out, owner, fields).await?;
                out.say(format!("key {id} ({label})"));
            } else {
                let (id, secret) = make_key_with(app, owner, fields, &by).await?;
                out.object(&json!({ "key_id": id, "key": secret }))?;
                out.say(format!("{secret}\n"));
                out.say(format!("key {id} ({label}); its secret is shown this once: keep it"));
            }
            if environment == Environment::Test {
                out.say(
                    "it is a test key: the sandbox makes its verdicts up, and nothing is charged",
                );
            }
            if let Some(end) = expires_at {
                out.say(format!("it ends at {}", rfc3339(end)));
            }
            Ok(())
        }
        KeyCommand::Rotate(args) => rotate::rotate(app, out, args).await,
        KeyCommand::Cut { key_id } => rotate::cut(app, out, &key_id).await,
        // Its exit code matters: dispatched before.
        KeyCommand::Import(args) => import::run(app, out, args).await.map(|_| ()),
        KeyCommand::List { account: owner } => {
            let owner = match owner {
                Some(owner) => Some(account(app, &owner).await?),
                None => None,
            };
            list_keys(app, out, owner).await
        }
        KeyCommand::Find { what } => keys::find(app, out, &what).await,
        KeyCommand::Hygiene { account: owner } => {
            let owner = match owner {
                Some(owner) => Some(account(app, &owner).await?),
                None => None,
            };
            keys::hygiene(app, out, owner).await
        }
        KeyCommand::Suspend { key_id, reason, note, end } => {
            suspend::suspend(app, out, &key_id, reason, note, &end).await
        }
        KeyCommand::Unsuspend { key_id, reason } => {
            suspend::unsuspend(app, out, &key_id, reason.as_deref()).await
        }
    }
}

fn key_id_of(app: &App, text: &str) -> Result<KeyId> {
    text.parse().with_context(|| {
        // Somebody may have given the key itself.
        let text = mask(&app.settings.key_prefix, text);
        format!("{text:?}: wanted is a key's id (key_…), as `listmill admin key list` shows it")
    })
}

fn no_key(id: KeyId) -> String {
    format!("no key {id}, or it is deleted")
}

fn show_changed(app: &App, out: &Output, key: &Key) -> Result<()> {
    let status = key.status(app.now());
    out.object(&key_object(app, key))?;
    out.say(format!("key {} ({}) is {status} from now on; running tasks go on", key.id, key.label));
    Ok(())
}

async fn list_keys(app: &App, out: &Output, owner: Option<AccountId>) -> Result<()> {
    let filter = Filter { account: owner, ..Filter::default() };
    let mut keys: Vec<Key> = Vec::new();
    loop {
        let page = app.store.keys(&filter, keys.last().map(|key| key.id), PAGE).await?;
        let full = page.len() as i64 == PAGE;
        keys.extend(page);
        if !full {
            break;
        }
    }
    let objects: Vec<Value> = keys.iter().map(|key| key_object(app, key)).collect();
    out.object(&json!({ "keys": objects }))?;
    if keys.is_empty() {
        out.say("no keys; `listmill admin key create --account … --label …` makes one");
        return Ok(());
    }
    let head = ["KEY", "BEGINS", "STATUS", "FOR", "LABEL", "ACCOUNT", "CREATED", "EXPIRES"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(keys.iter().map(|key| {
        vec![
            key.id.to_string(),
            format!("{}…", key.start),
            key.status(app.now()).to_owned(),
            key.environment.as_str().to_owned(),
            key.label.clone(),
            key.account.to_string(),
            rfc3339(key.created_at),
            key.expires_at.map_or_else(|| String::from("never"), rfc3339),
        ]
    }));
    out.table("", head.len(), &rows);
    Ok(())
}

fn key_object(app: &App, key: &Key) -> Value {
    json!({
        "key_id": key.id,
        "account_id": key.account,
        "label": key.label,
        "start": key.start,
        "status": key.status(app.now()),
        "environment": key.environment.as_str(),
        "suspended_reason": key.suspended.as_ref().map(|suspension| &suspension.reason),
        "suspended_until": key.suspended.as_ref().and_then(|one| one.until).map(rfc3339),
        "suspended_note": key.suspended.as_ref().and_then(|one| one.note.as_ref()),
        "created_at": rfc3339(key.created_at),
        "expires_at": key.expires_at.map(rfc3339),
    })
}

/// What is known of something, a line for each.
fn show_facts(out: &Output, facts: &[(&str, String)]) {
    let rows: Vec<Vec<String>> =
        facts.iter().map(|(name, fact)| vec![(*name).to_owned(), fact.clone()]).collect();
    out.table("", 2, &rows);
}

async fn reconcile(app: &App, out: &Output, owner: Option<&str>, deep: bool) -> Result<ExitCode> {
    let owner = match owner {
        Some(owner) => Some(account(app, owner).await?),
        None => None,
    };
    let books = app.store.books(owner).await?;
    let mut ok = show_books(out, &books);
    let accounts: Vec<Value> = books.iter().map(books_object).collect::<Result<_>>()?;
    let mut object = json!({ "accounts": accounts });
    if deep {
        let (tasks, faults) = audit(app, out, owner).await?;
        ok &= faults.is_empty();
        faults.iter().for_each(|fault| out.say(format!("  FAULT  {fault}")));
        let tasks_text = grouped(tasks);
        out.say(match faults.len() {
            0 => format!("  every verdict of {tasks_text} tasks is there, once"),
            n => format!("  {} faults in the verdicts of {tasks_text} tasks", grouped(n as u64)),
        });
        object["verdicts"] = json!({ "tasks": tasks, "faults": faults });
    }
    object["ok"] = json!(ok);
    out.object(&object)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens every stored verdict; how many tasks that were, and what is wrong.
async fn audit(app: &App, out: &Output, owner: Option<AccountId>) -> Result<(u64, Vec<String>)> {
    let all = app.store.count_tasks(owner).await?;
    let mut progress = out.progress("opening verdicts", all, "tasks");
    let (mut done, mut faults) = (0, Vec::new());
    let mut tasks = app.store.all_tasks(owner, TaskId::FIRST).await?;
    while let Some(&last) = tasks.last() {
        for task in tasks {
            faults.extend(app.store.audit_task(task).await?);
            done += 1;
            progress.set(done);
        }
        tasks = app.store.all_tasks(owner, last).await?;
    }
    progress.finish();
    Ok((done, faults))
}

/// A task's results, one a line; to stdout, whatever the output is.
async fn results(app: &App, name: &str) -> Result<()> {
    let id: TaskId = name.parse()?;
    let task = app.store.any_task(id).await?;
    let task = task.with_context(|| format!("no task {name}, or it was erased"))?;
    let mut file = std::pin::pin!(listmill_api::ndjson_file(&app.store, &task, None));
    while let Some(piece) = file.try_next().await.context("cannot read the results")? {
        match std::io::stdout().write_all(&piece) {
            // A reader that went away (`| head`) has what it wanted.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write to stdout")?,
        }
    }
    Ok(())
}

/// The books with their faults, for programs.
pub fn books_object(books: &Books) -> Result<Value> {
    let mut object = serde_json::to_value(books)?;
    object["faults"] = json!(books.faults());
    Ok(object)
}

/// The books as a table, without kinds that were never used, faults below; are they exact?
pub fn show_books(out: &Output, books: &[Books]) -> bool {
    let head = ["ACCOUNT", "KIND", "", "GRANTED", "=  BALANCE", "+  HELD", "+  CHARGED"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut faults = Vec::new();
    for book in books.iter().filter(|book| book.is_used()) {
        let wrong = book.faults();
        rows.push(vec![
            book.email.clone(),
            book.kind.clone(),
            String::from(if wrong.is_empty() { "OK" } else { "FAULT" }),
            signed(book.granted),
            signed(book.balance),
            signed(book.held),
            signed(book.charged),
        ]);
        faults.extend(wrong.iter().map(|fault| format!("{} {}: {fault}", book.email, book.kind)));
    }
    if books.is_empty() {
        out.say("no accounts, so nothing to reconcile");
        return true;
    }
    out.table("  ", 3, &rows);
    for fault in &faults {
        out.say(format!("  FAULT  {fault}"));
    }
    out.say(match faults.len() {
        0 => String::from("  every credit is accounted for"),
        n => format!("  {} faults", grouped(n as u64)),
    });
    faults.is_empty()
}
