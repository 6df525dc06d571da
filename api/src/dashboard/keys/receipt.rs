//! The receipt of a key's end: since when it opens nothing, what goes on, and what it had made. To be printed.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use listmill_shared::app::keys::{By, Receipt};
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::Key;

use super::sight::{self, State as Sight, called};
use crate::Api;
use crate::dashboard::page::{Failure, Page, html};
use crate::dashboard::query::escaped;
use crate::dashboard::session::Viewer;

struct Fact {
    name: String,
    /// HTML.
    value: String,
}

struct LiveTask {
    id: String,
    state: String,
}

struct MadeKey {
    label: String,
    start: String,
    state: String,
}

#[derive(Template)]
#[template(path = "key_receipt.html")]
struct ReceiptPage {
    page: Page,
    title: String,
    state: String,
    facts: Vec<Fact>,
    tasks: Vec<LiveTask>,
    made: Vec<MadeKey>,
}

/// `GET /keys/{id}/receipt`
pub async fn show(
    State(api): State<Api>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id: KeyId = id.parse().map_err(|_| Failure::NotFound)?;
    let page = Page::new(&viewer, "keys");
    let receipt = api.app.receipt(id, viewer.account, By::nobody(&viewer.origin)).await?;
    let mut named = vec![id];
    named.extend(receipt.key.replaced_by);
    let names = api.app.key_names(viewer.account, &named).await?;
    let now = api.app.now();
    let word = |key: &Key| Sight::new(&api, &page, key, &names, now).word;
    let made = receipt.made.iter().map(|key| MadeKey {
        label: key.label.clone(),
        start: key.start.clone(),
        state: word(key),
    });
    let tasks = receipt.tasks.iter().map(|(id, status)| LiveTask {
        id: id.to_string(),
        state: page.t(&format!("key_receipt.task_{}", status.as_str())).to_owned(),
    });
    let (state, made, tasks) = (word(&receipt.key), made.collect(), tasks.collect());
    let facts = facts(&api, &page, &receipt, &names).await?;
    let title = page.tf("key_receipt.heading", &[("label", &receipt.key.label)]);
    Ok(html(&ReceiptPage { page, title, state, facts, tasks, made }))
}

async fn facts(
    api: &Api,
    page: &Page,
    receipt: &Receipt,
    names: &sight::Names,
) -> Result<Vec<Fact>, Failure> {
    let (key, now) = (&receipt.key, api.app.now());
    let fact = |name: &'static str, value: String| Fact { name: page.t(name).to_owned(), value };
    let time = |at| page.time(at).to_string();
    let told = |name: &'static str| escaped(page.t(name));
    let code = |text: &str| format!("<code>{}</code>", escaped(text));
    let mut facts = vec![
        fact("key_receipt.key", code(&format!("{}…", key.start))),
        fact("key_receipt.key_id", code(&key.id.to_string())),
        fact(
            "key_receipt.effective",
            receipt.effective_at.map(time).unwrap_or_else(|| told("key_receipt.still_open")),
        ),
    ];
    if receipt.effective_at.is_none()
        && let Some(end) = key.expires_at
    {
        facts.push(fact("key_receipt.ends", time(end)));
    }
    if let Some(suspension) = key.suspension(now) {
        facts.push(fact("key_receipt.reason", escaped(&suspension.reason)));
        let whom = api.app.settings.support_contact.as_deref();
        facts.extend(whom.map(|whom| fact("key_receipt.contact", sight::contact(whom))));
    }
    let last = api.app.last_used(key.id).await?;
    let last = last.map(|last| {
        let ip = last.ip.as_deref().map(|ip| format!(" · {}", code(ip))).unwrap_or_default();
        format!("{} · {}{ip}", time(last.at), code(&last.route))
    });
    facts.push(fact("key_receipt.last", last.unwrap_or_else(|| told("keys.never"))));
    let in_flight = match receipt.in_flight {
        None => told("key_receipt.in_flight_unknown"),
        Some(0) => page.n(0),
        Some(some) => format!("{}: {}", page.n(some), told("key_receipt.in_flight_why")),
    };
    facts.push(fact("key_receipt.in_flight", in_flight));
    if let Some(since) = receipt.effective_at {
        let refused = api.app.refused_since(key.account, key.id, since).await?;
        facts.push(fact("key_receipt.refused", page.n(refused)));
    }
    if let Some(new) = key.replaced_by {
        let name = names.get(&new).map(called).unwrap_or_else(|| new.to_string());
        facts.push(fact("key_receipt.replaced", escaped(&name)));
    }
    facts.push(fact("key_receipt.made_at", time(now)));
    Ok(facts)
}
