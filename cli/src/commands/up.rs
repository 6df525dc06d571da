//! `listmill up`: API and worker in one process; makes its own schema, account and key.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::{AccountId, Ids};
use listmill_shared::store::person_links::LinkKind;
use serde_json::json;

use super::embedded::{Embedded, listen, url_of};
use super::glance::glance;
use super::{Context, make_key};
use crate::output::signed;

/// The account of the first start.
const OWNER: &str = "owner@localhost";
/// Its credits: enough to try a real list.
const CREDITS: i64 = 10_000;

/// What the first start makes; shown once.
struct Owner {
    account: AccountId,
    password: String,
    key: String,
    /// Logs the owner in once; below the server's address.
    link: String,
}

pub async fn run(context: Context) -> Result<ExitCode> {
    let settings = &context.settings;
    let provider = listmill_worker::provider::build(settings, &context.clock, &context.ids)?;
    // Before the database: a second `up` must not touch the file of the first.
    let listener = listen(&settings.bind, "bind").await?;
    let url = url_of(listener.local_addr()?);
    let opening = async {
        let app = App::open(settings.clone(), context.clock.clone(), context.ids.clone())
            .await
            .with_context(|| format!("cannot open {}", settings.database_url))?;
        super::migrate::migrate(&app, context.output).await?;
        let owner = first_start(&app).await?;
        Ok((app, owner))
    };
    let (app, owner) = context.shutdown.or_interrupted(opening).await?;
    listmill_api::install_metrics()?;
    let drain = context.shutdown.drain.clone();
    let mut halves = Embedded::start(app.clone(), provider.clone(), listener, drain.clone());
    greet(&context, &url, provider.name(), owner.as_ref())?;
    tokio::spawn(glance(settings.clone(), context.clock.clone(), context.ids.clone()));
    let ended = tokio::select! {
        ended = halves.ended() => ended,
        () = drain.cancelled() => Ok(()),
    };
    let stopped = halves.stop().await;
    app.store.close().await;
    ended.and(stopped)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes an account with credits and a key, if there is no account at all.
async fn first_start(app: &App) -> Result<Option<Owner>> {
    if app.store.has_accounts().await? {
        return Ok(None);
    }
    let password = password(&app.ids);
    let by = Origin::system();
    let account = app.create_account(OWNER, Some(&password), CREDITS, true, &by).await?;
    let (_, key) = make_key(app, account, "first", None, None, &by).await?;
    let link = app.make_person_link(OWNER, LinkKind::Login, &by).await?.reveal();
    Ok(Some(Owner { account, password, key, link }))
}

fn greet(context: &Context, url: &str, provider: &str, owner: Option<&Owner>) -> Result<()> {
    let out = &context.output;
    out.object(&json!({
        "url": url,
        "docs": format!("{url}/docs"),
        "provider": provider,
        "database": context.settings.database_url.to_string(),
        "account": owner.map(|owner| json!({
            "account_id": owner.account, "email": OWNER, "password": owner.password,
            "credits": CREDITS, "login": login_url(url, &owner.link),
        })),
        "key": owner.map(|owner| &owner.key),
    }))?;
    out.say("Listmill is up; Ctrl-C stops it.\n");
    let mut rows = vec![
        vec![String::from("Dashboard"), url.to_owned()],
        vec![String::from("Docs"), format!("{url}/docs")],
        vec![String::from("Database"), context.settings.database_url.to_string()],
        vec![String::from("Provider"), provider.to_owned()],
    ];
    let Some(owner) = owner else {
        out.table("  ", 9, &rows);
        out.say("\nA new key: listmill admin key create --account EMAIL --label NAME");
        return Ok(());
    };
    rows.push(vec![String::from("Account"), format!("{OWNER}, {} credits", signed(CREDITS))]);
    rows.push(vec![String::from("Password"), owner.password.clone()]);
    rows.push(vec![String::from("API key"), owner.key.clone()]);
    out.table("  ", 9, &rows);
    out.say("\nPassword and key are shown this once: keep them.");
    out.say("\nOpen this in your browser: it logs you in, once, within an hour.\n");
    out.say(format!("  {}", login_url(url, &owner.link)));
    out.say("\nSubmit a list (one address a line), then look at the task:\n");
    out.say(format!("  export KEY={}", owner.key));
    out.say(format!(
        "  curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: text/plain' \\\n       \
         --data-binary $'ada@example.com\\nundeliverable@example.com\\n' {url}/v1/tasks"
    ));
    out.say(format!("  curl -H \"Authorization: Bearer $KEY\" {url}/v1/tasks"));
    out.say(format!(
        "\nMore credits: listmill admin credits grant --account {OWNER} --amount 1000"
    ));
    Ok(())
}

fn login_url(url: &str, token: &str) -> String {
    format!("{url}/login/link/{token}")
}

/// 20 characters without look-alikes: 100 bits.
fn password(ids: &Ids) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
    ids.bytes::<20>().iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_differ() {
        let ids = Ids::seeded(3);
        let (one, other) = (password(&ids), password(&ids));
        assert_eq!(one.len(), 20);
        assert_ne!(one, other);
    }
}
