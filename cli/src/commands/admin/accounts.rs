//! `listmill admin account`: accounts, and how their people log in.

use anyhow::{Context as _, Result, anyhow, ensure};
use listmill_shared::app::App;
use listmill_shared::domain::account::TasksThen;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::key_scan::mask;
use listmill_shared::domain::person::normal_email;
use listmill_shared::store::operators::{AccountRow, KeySearch};
use listmill_shared::store::person_links::LinkKind;
use serde_json::{Value, json};

use super::credits::{books_objects, show_books};
use super::{account, password, show_facts};
use crate::args::{AccountCommand, PageArgs};
use crate::output::{Output, signed};

/// Keys of an account that are counted.
const MOST_KEYS: i64 = 10_000;

pub async fn run(app: &App, out: &Output, command: AccountCommand) -> Result<()> {
    match command {
        AccountCommand::Create { email, password, credits, admin } => {
            create_account(app, out, &email, password.as_deref(), credits, admin).await
        }
        AccountCommand::List { search, page } => list(app, out, search.as_deref(), &page).await,
        AccountCommand::Show { account } => show(app, out, &account).await,
        AccountCommand::Rename { account, email, keep_login } => {
            rename(app, out, &account, &email, !keep_login).await
        }
        AccountCommand::Link { email } => link(app, out, &email).await,
        AccountCommand::Password { email, password, codes_off } => {
            let password = match password {
                Some(password) => password,
                None => password::read().await?,
            };
            set_password(app, out, &email, &password, codes_off).await
        }
        AccountCommand::Disconnect { email } => {
            app.forget_identity(&email, &Origin::operator()).await?;
            out.object(&json!({ "email": email, "connected": false }))?;
            out.say(format!("{email} is not connected to the issuer any more"));
            Ok(())
        }
        AccountCommand::Weight { account, weight } => set_weight(app, out, &account, weight).await,
        AccountCommand::Suspend { account, reason, contact, tasks } => {
            suspend(app, out, &account, (&reason, &contact), tasks).await
        }
        AccountCommand::Unsuspend { account, reason } => {
            unsuspend(app, out, &account, reason.as_deref()).await
        }
    }
}

/// An account as it is listed, and the beginning of what is shown of it.
fn object(row: &AccountRow) -> Value {
    json!({
        "account_id": row.id,
        "email": row.email,
        "status": if row.suspended.is_some() { "suspended" } else { "active" },
        "suspended_reason": row.suspended,
        "balance": row.balance,
        "open_tasks": row.open_tasks,
        "weight": row.weight,
        "created_at": rfc3339(row.created_at),
        "active_at": row.active_at.map(rfc3339),
    })
}

async fn list(app: &App, out: &Output, search: Option<&str>, page: &PageArgs) -> Result<()> {
    let (prefix, cursor) = (search.unwrap_or_default().trim(), page.cursor.as_deref());
    let mut rows = app.store.accounts(prefix, cursor, page.limit + 1).await?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(page.limit as usize);
    let next = rows.last().filter(|_| more).map(|row| &row.email);
    let data: Vec<Value> = rows.iter().map(object).collect();
    out.object(&json!({ "data": data, "next_cursor": next }))?;
    if rows.is_empty() {
        out.say("no such accounts; `listmill admin account create --email …` makes one");
        return Ok(());
    }
    let head = ["EMAIL", "STATUS", "ACCOUNT", "CREATED", "LAST ACTIVE", "BALANCE", "OPEN TASKS"];
    let mut lines = vec![head.map(String::from).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.email.clone(),
            String::from(if row.suspended.is_some() { "suspended" } else { "active" }),
            row.id.to_string(),
            rfc3339(row.created_at),
            row.active_at.map_or_else(|| String::from("never"), rfc3339),
            signed(row.balance),
            signed(row.open_tasks),
        ]
    }));
    out.table("", 5, &lines);
    if let Some(next) = next {
        out.say(format!("more: --cursor {next}"));
    }
    Ok(())
}

async fn show(app: &App, out: &Output, owner: &str) -> Result<()> {
    let id = account(app, owner).await?;
    let row = app.store.account(id).await?;
    let row = row.with_context(|| format!("the account {owner:?} is gone"))?;
    let suspended = app.store.suspension_of(id).await?;
    let books = app.whereabouts(id).await?.books;
    let keys = app.store.search_all_keys(&KeySearch::Account(id), None, MOST_KEYS).await?;
    let alive = keys.iter().filter(|key| key.alive(app.now()).is_ok()).count();
    let tasks = app.store.count_tasks(Some(id)).await?;
    let people = app.people(id).await?;
    let members: Vec<Value> = people
        .iter()
        .map(
            |one| json!({ "email": one.email, "role": one.role, "since": rfc3339(one.created_at) }),
        )
        .collect();
    let mut shown = object(&row);
    shown["suspended"] = json!(suspended.as_ref().map(|one| json!({
        "reason": one.reason, "contact": one.contact, "since": rfc3339(one.since),
    })));
    shown["credits"] = json!(books_objects(&books));
    shown["keys"] = json!({ "active": alive, "all": keys.len() });
    shown["tasks"] = json!({ "open": row.open_tasks, "all": tasks });
    shown["people"] = json!(members);
    out.object(&shown)?;
    let state = match &suspended {
        None => String::from("active"),
        Some(one) => format!(
            "suspended since {}: {} (contact: {})",
            rfc3339(one.since),
            one.reason,
            one.contact
        ),
    };
    show_facts(
        out,
        &[
            ("email", row.email.clone()),
            ("account", row.id.to_string()),
            ("status", state),
            ("weight", row.weight.to_string()),
            ("created", rfc3339(row.created_at)),
            ("last active", row.active_at.map_or_else(|| String::from("never"), rfc3339)),
            ("keys", format!("{} ({alive} active)", keys.len())),
            ("tasks", format!("{tasks} ({} open)", row.open_tasks)),
        ],
    );
    for one in &people {
        out.say(format!("{}: {}", one.role, one.email));
    }
    out.say("");
    show_books(out, &books);
    Ok(())
}

async fn rename(app: &App, out: &Output, owner: &str, email: &str, login: bool) -> Result<()> {
    let id = account(app, owner).await?;
    let renamed = app.rename_account(id, email, login, &Origin::operator()).await;
    let renamed = renamed.with_context(|| format!("cannot call the account {email:?}"))?;
    let (old, new, moved) = renamed.with_context(|| format!("the account {owner:?} is gone"))?;
    out.object(&json!({
        "account_id": id, "email": new, "email_before": old, "login_changed": moved,
    }))?;
    out.say(match old == new {
        true => format!("the account is called {new} already"),
        false => format!("the account {old} is called {new} from now on"),
    });
    if moved {
        out.say(format!("its owner logs in with {new}; the password stays"));
    }
    Ok(())
}

async fn create_account(
    app: &App,
    out: &Output,
    email: &str,
    password: Option<&str>,
    credits: i64,
    admin: bool,
) -> Result<()> {
    let email = &*normal_email(email).map_err(|want| anyhow!("{email:?} {want}"))?;
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

/// Says where a person can choose a password. Nobody is told whether the email is known but who works here.
async fn link(app: &App, out: &Output, email: &str) -> Result<()> {
    let email = normal_email(email).map_err(|want| anyhow!("{email:?} {want}"))?;
    let known = app.store.person_by_email(&email).await?;
    ensure!(known.is_some(), "nobody has the email {email}");
    let token = app.make_person_link(&email, LinkKind::Password, &Origin::operator()).await?;
    let link = app.person_link_url(&token);
    out.object(&json!({ "email": email, "link": link }))?;
    out.say(format!("{email} can choose a password here, once, within an hour:\n"));
    out.say(format!("{link}\n"));
    if app.settings.public_url.is_empty() {
        out.say(
            "It begins with the address of your server; the setting `public_url` puts it there.",
        );
    }
    Ok(())
}

async fn set_password(
    app: &App,
    out: &Output,
    email: &str,
    password: &str,
    codes_off: bool,
) -> Result<()> {
    let by = Origin::operator();
    let email = &*normal_email(email).map_err(|want| anyhow!("{email:?} {want}"))?;
    app.set_password(email, password, &by).await.context("the password is not set")?;
    if codes_off && let Some(person) = app.store.person_by_email(email).await? {
        app.store.switch_codes_off(person.id, &by, app.now()).await?;
    }
    out.object(&json!({ "email": email, "password": "set", "codes_off": codes_off }))?;
    out.say(format!("{email} has a new password; all their sessions have ended"));
    Ok(())
}

async fn set_weight(app: &App, out: &Output, owner: &str, weight: i32) -> Result<()> {
    let id = account(app, owner).await?;
    let set = app.store.set_weight(id, weight, &Origin::operator(), app.now()).await?;
    ensure!(set, "the account {owner:?} is gone");
    out.object(&json!({ "account_id": id, "weight": weight }))?;
    out.say(format!("{owner}: weight {weight}"));
    Ok(())
}

async fn suspend(
    app: &App,
    out: &Output,
    owner: &str,
    (reason, contact): (&str, &str),
    tasks: TasksThen,
) -> Result<()> {
    let id = account(app, owner).await?;
    // Somebody may have pasted a key; what stands here is told to others, and logged.
    let hidden = |text: &str| mask(&app.settings.key_prefix, text).to_string();
    let (reason, contact) = (hidden(reason), hidden(contact));
    let stopped = app.suspend_account(id, &reason, &contact, tasks, &Origin::operator()).await?;
    let stopped = stopped.with_context(|| format!("the account {owner:?} is gone"))?;
    out.object(&json!({
        "account_id": id, "status": "suspended", "tasks": tasks.as_str(), "stopped_tasks": stopped,
    }))?;
    out.say(format!("{owner} is suspended from now on; its people can look and download"));
    out.say(match tasks {
        TasksThen::Keep => String::from("its tasks go on to their end"),
        TasksThen::Pause => format!("{stopped} tasks were paused"),
        TasksThen::Cancel => format!("{stopped} tasks were cancelled"),
    });
    Ok(())
}

async fn unsuspend(app: &App, out: &Output, owner: &str, reason: Option<&str>) -> Result<()> {
    let id = account(app, owner).await?;
    let was = app.unsuspend_account(id, reason, &Origin::operator()).await?;
    out.object(&json!({
        "account_id": id,
        "status": "active",
        "was_suspended": was.as_ref().map(|one| json!({
            "reason": one.reason, "contact": one.contact, "since": rfc3339(one.since),
        })),
    }))?;
    out.say(match &was {
        None => format!("{owner} was not suspended"),
        Some(one) => format!("{owner} is not suspended any more; it was for: {}", one.reason),
    });
    Ok(())
}
