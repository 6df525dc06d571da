//! `listmill admin account`: accounts, and how their people log in.

use anyhow::{Context as _, Result, anyhow, ensure};
use listmill_shared::app::App;
use listmill_shared::domain::account::TasksThen;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::key_scan::mask;
use listmill_shared::domain::person::normal_email;
use listmill_shared::store::person_links::LinkKind;
use serde_json::json;

use super::account;
use crate::args::AccountCommand;
use crate::output::{Output, signed};

pub async fn run(app: &App, out: &Output, command: AccountCommand) -> Result<()> {
    match command {
        AccountCommand::Create { email, password, credits, admin } => {
            create_account(app, out, &email, password.as_deref(), credits, admin).await
        }
        AccountCommand::Link { email } => link(app, out, &email).await,
        AccountCommand::Password { email, password, codes_off } => {
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

async fn create_account(
    app: &App,
    out: &Output,
    email: &str,
    password: Option<&str>,
    credits: i64,
    admin: bool,
) -> Result<()> {
    normal_email(email).map_err(|want| anyhow!("{email:?} {want}"))?;
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
    app.set_password(email, password, &by).await.context("the password is not set")?;
    if codes_off && let Some(person) = app.store.person_by_email(&email.to_lowercase()).await? {
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
