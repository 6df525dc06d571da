//! `listmill admin credits`: where an account's credits are, and booking them.

use anyhow::Result;
use listmill_shared::app::App;
use listmill_shared::app::credits::Whereabouts;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::clock::rfc3339;
use listmill_shared::domain::ledger::Kind;
use listmill_shared::store::credit_page::{AccountBooks, Wanted};
use serde_json::{Value, json};

use super::account;
use crate::args::CreditsCommand;
use crate::output::{Output, signed};

pub async fn run(app: &App, out: &Output, command: CreditsCommand) -> Result<()> {
    match command {
        CreditsCommand::Show { account, limit } => show(app, out, &account, limit).await,
        CreditsCommand::Grant { account, amount, kind, note, reference } => {
            let what = (amount, kind.into());
            grant(app, out, &account, what, note.as_deref(), reference.as_deref()).await
        }
    }
}

async fn grant(
    app: &App,
    out: &Output,
    owner: &str,
    (amount, kind): (i64, Kind),
    note: Option<&str>,
    reference: Option<&str>,
) -> Result<()> {
    let (id, by) = (account(app, owner).await?, Origin::operator());
    let mut object = json!({ "account_id": id, "kind": kind.as_str(), "amount": amount });
    let (balance, before) = match reference {
        None => (app.book(id, kind, amount, note, &by).await?, None),
        Some(reference) => {
            let (booking, now) = app.book_once(id, kind, amount, (note, reference), &by).await?;
            object["reference"] = json!(reference.trim());
            object["booked_at"] = json!(rfc3339(booking.booked_at));
            object["booked_before"] = json!(!now);
            (booking.balance_after, (!now).then_some(booking.booked_at))
        }
    };
    object["balance"] = json!(balance);
    out.object(&object)?;
    let (amount, balance, kind) = (signed(amount), signed(balance), kind.as_str());
    out.say(match before {
        None => format!("{amount} {kind} credits for {owner}; the balance is {balance}"),
        Some(at) => format!(
            "booked before, at {}: {amount} {kind} credits for {owner}; the balance was {balance} then",
            rfc3339(at)
        ),
    });
    Ok(())
}

/// The books for programs.
pub fn books_objects(books: &[AccountBooks]) -> Vec<Value> {
    let object = |one: &AccountBooks| {
        json!({
            "kind": one.kind, "granted": one.given, "balance": one.balance, "held": one.held,
            "charged": one.charged,
        })
    };
    books.iter().map(object).collect()
}

/// The books as a table; kinds that were never used are left out.
pub fn show_books(out: &Output, books: &[AccountBooks]) {
    let head = ["CREDITS", "GRANTED", "=  BALANCE", "+  HELD", "+  CHARGED"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(books.iter().filter(|one| one.is_used()).map(|one| {
        let [given, balance, held, charged] =
            [one.given, one.balance, one.held, one.charged].map(signed);
        vec![one.kind.clone(), given, balance, held, charged]
    }));
    out.table("", 1, &rows);
}

async fn show(app: &App, out: &Output, owner: &str, limit: i64) -> Result<()> {
    let id = account(app, owner).await?;
    let Whereabouts { books, holders, want } = app.whereabouts(id).await?;
    let entries: Vec<_> = match limit {
        0 => Vec::new(),
        limit => app.ledger(id, Wanted::default(), None, limit).await?.rows,
    };
    let entries: Vec<_> = entries.into_iter().map(|one| one.entry).collect();
    let objects: Vec<Value> =
        entries.iter().cloned().map(listmill_api::entry_object).collect::<Result<_, _>>()?;
    let holding: Vec<Value> =
        holders.iter().map(|one| json!({ "task_id": one.id, "held": one.held })).collect();
    out.object(&json!({
        "account_id": id,
        "credits": books_objects(&books),
        "held_by": holding,
        "waiting": { "tasks": want.tasks, "credits": want.credits },
        "entries": objects,
    }))?;
    show_books(out, &books);
    for one in &holders {
        out.say(format!("{} holds {}", one.id, signed(one.held)));
    }
    if want.tasks > 0 {
        let (tasks, credits) = (signed(want.tasks), signed(want.credits));
        out.say(format!("{tasks} tasks wait for credits; they need {credits} at the most"));
    }
    if entries.is_empty() {
        return Ok(());
    }
    out.say("");
    let head = ["WHEN", "ENTRY", "KIND", "FOR", "AMOUNT", "BALANCE AFTER"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        let task = entry.task.map(|task| task.to_string());
        vec![
            rfc3339(entry.created_at),
            entry.entry.clone(),
            entry.kind.clone(),
            task.or_else(|| entry.note.clone()).unwrap_or_default(),
            signed(entry.amount),
            signed(entry.balance_after),
        ]
    }));
    out.table("", 4, &rows);
    Ok(())
}
