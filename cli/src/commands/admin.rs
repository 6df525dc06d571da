//! `listmill admin …`: operator levers, straight on the database; on SQLite also beside a running
//! `up`. What they change holds for every request and task from the moment they return.

mod keys;

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt;
use ipnet::IpNet;
use listmill_shared::app::App;
use listmill_shared::app::keys::{By, End};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::id::{AccountId, KeyId, TaskId};
use listmill_shared::domain::key::{Key, Suspension};
use listmill_shared::domain::key_scan::mask;
use listmill_shared::domain::ledger::{Books, Kind};
use listmill_shared::store::keys::Filter;
use serde_json::{Value, json};

use super::{Context, make_key, open};
use crate::args::{AccountCommand, AdminArgs, AdminCommand, CreditsCommand, IpCommand, KeyCommand};
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
        AdminCommand::Account(AccountCommand::Create { email, password, credits, admin }) => {
            create_account(app, out, &email, password.as_deref(), credits, admin).await?;
        }
        AdminCommand::Account(AccountCommand::Weight { account, weight }) => {
            set_weight(app, out, &account, weight).await?;
        }
        AdminCommand::Key(command) => key(app, out, command).await?,
        AdminCommand::RootKey(command) => super::root_key::run(app, out, command).await?,
        AdminCommand::Credits(CreditsCommand::Grant { account, amount, kind, note }) => {
            grant(app, out, &account, amount, kind.into(), note.as_deref()).await?;
        }
        AdminCommand::Ip(command) => ip(app, out, command).await?,
        AdminCommand::Limits(command) => super::limits::run(app, out, command).await?,
        AdminCommand::Reconcile { account, deep } => {
            return reconcile(app, out, account.as_deref(), deep).await;
        }
        AdminCommand::Audit(command) => return super::audit::run(app, out, command).await,
        AdminCommand::Results { task } => results(app, &task).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create_account(
    app: &App,
    out: &Output,
    email: &str,
    password: Option<&str>,
    credits: i64,
    admin: bool,
) -> Result<()> {
    ensure!(
        email.len() <= 254
            && email.split_once('@').is_some_and(|(l, d)| !l.is_empty() && !d.is_empty()),
        "{email:?} is no e-mail address"
    );
    ensure!(password != Some(""), "the password is empty; leave --password out for none");
    let id = app
        .create_account(email, password, credits, admin, &Origin::operator())
        .await
        .with_context(|| format!("cannot make the account {email}"))?;
    out.object(&json!({ "account_id": id }))?;
    out.say(format!("account {id} ({email}) with {} credits", signed(credits)));
    out.say(format!("next: listmill admin key create --account {email} --label NAME"));
    Ok(())
}

/// Finds an account by id or e-mail.
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
             `listmill admin reconcile` lists all"
        )
    })
}

async fn set_weight(app: &App, out: &Output, owner: &str, weight: i32) -> Result<()> {
    let id = account(app, owner).await?;
    let set = app.store.set_weight(id, weight, &Origin::operator(), app.now()).await?;
    ensure!(set, "the account {owner:?} is gone");
    out.object(&json!({ "account_id": id, "weight": weight }))?;
    out.say(format!("{owner}: weight {weight}"));
    Ok(())
}

async fn key(app: &App, out: &Output, command: KeyCommand) -> Result<()> {
    let by = Origin::operator();
    match command {
        KeyCommand::Create { account: owner, label, expires_in } => {
            ensure!(!label.trim().is_empty(), "the label is empty");
            let owner = account(app, &owner).await?;
            let expires_at = expires_in.map(|time| app.now() + time.as_millis() as i64);
            let (id, secret) = make_key(app, owner, &label, expires_at, None, &by).await?;
            out.object(&json!({ "key_id": id, "key": secret }))?;
            out.say(format!("{secret}\n"));
            out.say(format!("key {id} ({label}); its secret is shown this once: keep it"));
            if let Some(end) = expires_at {
                out.say(format!("it ends at {}", rfc3339(end)));
            }
            Ok(())
        }
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
        KeyCommand::Suspend { key_id, reason } => {
            ensure!(!reason.trim().is_empty(), "the reason is empty; the key's user is told it");
            let id = key_id_of(app, &key_id)?;
            let suspension = Suspension { reason, until: None, note: None };
            let ended =
                app.end_key(id, None, &End::Suspend(suspension), false, By::nobody(&by)).await;
            let key = ended.with_context(|| no_key(id))?.key;
            show_changed(app, out, &key)
        }
        KeyCommand::Unsuspend { key_id, reason } => {
            let id = key_id_of(app, &key_id)?;
            let key = app.unsuspend_key(id, By::nobody(&by)).await.with_context(|| no_key(id))?;
            tracing::info!(key = %id, reason = reason.unwrap_or_default(), "suspension lifted");
            show_changed(app, out, &key)
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
    let head = ["KEY", "BEGINS", "STATUS", "LABEL", "ACCOUNT", "CREATED", "EXPIRES"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(keys.iter().map(|key| {
        vec![
            key.id.to_string(),
            format!("{}…", key.start),
            key.status(app.now()).to_owned(),
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
        "suspended_reason": key.suspended.as_ref().map(|suspension| &suspension.reason),
        "created_at": rfc3339(key.created_at),
        "expires_at": key.expires_at.map(rfc3339),
    })
}

async fn grant(
    app: &App,
    out: &Output,
    owner: &str,
    amount: i64,
    kind: Kind,
    note: Option<&str>,
) -> Result<()> {
    ensure!(amount != 0, "the amount is 0: nothing to do");
    let id = account(app, owner).await?;
    let before = app.store.balance(id, kind).await?;
    if before.checked_add(amount).is_none_or(|after| after < 0) {
        bail!("{} {} credits is all there is; {amount} cannot be booked", before, kind.as_str());
    }
    let balance = app.grant(id, kind, amount, note, &Origin::operator()).await?;
    out.object(&json!({
        "account_id": id, "kind": kind.as_str(), "amount": amount, "balance": balance,
    }))?;
    let (amount, balance) = (signed(amount), signed(balance));
    out.say(format!("{amount} {} credits for {owner}; the balance is {balance}", kind.as_str()));
    Ok(())
}

async fn ip(app: &App, out: &Output, command: IpCommand) -> Result<()> {
    let (cidr, blocked, reason) = match command {
        IpCommand::Block { cidr, reason } => (cidr, true, reason),
        IpCommand::Unblock { cidr, reason } => (cidr, false, reason),
        IpCommand::List => {
            let blocks = app.store.ip_blocks().await?;
            out.object(&json!({ "blocked": blocks }))?;
            out.say(if blocks.is_empty() {
                String::from("nothing is blocked")
            } else {
                blocks.join("\n")
            });
            return Ok(());
        }
    };
    let network = network(&cidr)?;
    let text = network.to_string();
    let (reason, by) = (reason.as_deref(), Origin::operator());
    let changed = app.store.change_ip_block(&text, blocked, reason, &by, app.now()).await?;
    out.object(&json!({ "cidr": text, "blocked": blocked, "changed": changed }))?;
    out.say(match (blocked, changed) {
        (true, true) => format!("{text} is blocked from the next request on"),
        (true, false) => format!("{text} was blocked already"),
        (false, true) => format!("{text} is no longer blocked"),
        (false, false) => format!("{text} was not blocked; `listmill admin ip list` shows what is"),
    });
    Ok(())
}

/// Reads an address or network and gives it the one form under which it is stored: host bits
/// cleared, IPv4 in IPv6's clothes undressed.
fn network(text: &str) -> Result<IpNet> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = text.parse().with_context(|| {
        format!("{text:?} is neither an IP address nor a network such as 203.0.113.0/24")
    })?;
    Ok(match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96)?,
            None => network,
        },
        _ => network,
    }
    .trunc())
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

/// The books as a table, faults below; are they exact?
pub fn show_books(out: &Output, books: &[Books]) -> bool {
    let head = ["ACCOUNT", "KIND", "", "GRANTED", "=  BALANCE", "+  HELD", "+  CHARGED"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut faults = Vec::new();
    for book in books {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_form() {
        for (given, stored) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1/120", "192.0.2.0/24"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(given).unwrap().to_string(), stored, "{given}");
        }
        for wrong in ["", "10.0.0.0/33", "example.com", "10.0.0"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
