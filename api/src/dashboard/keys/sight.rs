//! A key in words: a row of the list, and its state.

use std::collections::HashMap;

use listmill_shared::app::key_pages::{KeyName, KeySight};
use listmill_shared::domain::audit::Actor;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::id::KeyId;
use listmill_shared::domain::key::{Key, Refusal};
use listmill_shared::domain::request::LastUse;

use crate::Api;
use crate::dashboard::charts;
use crate::dashboard::format::Time;
use crate::dashboard::page::Page;
use crate::dashboard::query::{Part, escaped, markup};

/// What keys are called.
pub type Names = HashMap<KeyId, KeyName>;

/// A row of the list.
pub struct Row {
    pub id: String,
    pub label: String,
    pub start: String,
    pub environment: String,
    pub external_id: Option<String>,
    pub state: State,
    pub maker: String,
    pub created_at: Time,
    pub last: Option<LastSight>,
    pub credits: String,
    pub credit_limit: Option<String>,
    pub days_text: String,
    pub spark: String,
    pub deleted: bool,
    pub can_disable: bool,
    pub can_enable: bool,
    pub can_rotate: bool,
    pub has_receipt: bool,
}

/// The last accepted request.
pub struct LastSight {
    pub time: Time,
    pub route: String,
    pub ip: Option<String>,
}

impl LastSight {
    fn new(page: &Page, last: &LastUse) -> Self {
        Self { time: page.time(last.at), route: last.route.clone(), ip: last.ip.clone() }
    }
}

/// The state of a key: a word, and what there is to say about it, as HTML.
pub struct State {
    pub word: String,
    pub badge: &'static str,
    pub lines: Vec<String>,
}

impl Row {
    pub fn new(api: &Api, page: &Page, sight: &KeySight, names: &Names, now: Millis) -> Self {
        let key = &sight.key;
        let suspended = key.suspension(now).is_some();
        let requests = page.n(sight.days.iter().sum::<i64>());
        let limit = key.credit_limit.map(|limit| {
            let limit = limit.at(now);
            let (used, most) = (page.n(limit.used), page.n(limit.limit));
            page.tf("keys.credits_of", &[("used", &used), ("limit", &most)])
        });
        Self {
            id: key.id.to_string(),
            label: key.label.clone(),
            start: key.start.clone(),
            environment: page.t(if key.is_test() { "keys.test" } else { "keys.live" }).to_owned(),
            external_id: key.external_id.clone(),
            state: State::new(api, page, key, names, now),
            maker: maker(page, &key.maker, names),
            created_at: page.time(key.created_at),
            last: sight.last.as_ref().map(|last| LastSight::new(page, last)),
            credits: page.n(sight.credits),
            credit_limit: limit,
            days_text: page.tf("keys.days_text", &[("n", &requests)]),
            spark: charts::sparkline(
                &sight.days,
                &page.tf("keys.sparkline", &[("label", &key.label)]),
                &page.reader,
            ),
            deleted: key.deleted_at.is_some(),
            can_disable: !key.disabled,
            can_enable: key.disabled && !suspended,
            can_rotate: can_rotate(key, now) && page.suspended.is_none(),
            has_receipt: key.status(now) != "active" || key.replaced_by.is_some(),
        }
    }
}

/// Can another be put in the place of it?
pub fn can_rotate(key: &Key, now: Millis) -> bool {
    key.status(now) == "active" && key.replaced_by.is_none()
}

/// Who made a key.
fn maker(page: &Page, maker: &Actor, names: &Names) -> String {
    match maker {
        Actor::Person(email) => email.clone(),
        Actor::Key(id) => {
            let name = names.get(id).map(called).unwrap_or_else(|| id.to_string());
            page.tf("keys.made_by_key", &[("name", &name)])
        }
        Actor::Root(_) | Actor::Operator | Actor::System => {
            page.t("keys.made_by_operator").to_owned()
        }
    }
}

/// What a key is called where another is spoken of.
pub fn called(name: &KeyName) -> String {
    format!("{} ({}…)", name.label, name.start)
}

/// Whom to ask, as HTML: a link where it can be one.
pub fn contact(contact: &str) -> String {
    let shown = escaped(contact);
    if contact.starts_with("https://") || contact.starts_with("http://") {
        format!("<a href=\"{shown}\">{shown}</a>")
    } else if contact.contains('@') {
        format!("<a href=\"mailto:{shown}\">{shown}</a>")
    } else {
        shown
    }
}

impl State {
    /// The state of a key at `now`; `names` hold the time at which it was switched off.
    pub fn new(api: &Api, page: &Page, key: &Key, names: &Names, now: Millis) -> Self {
        let at = |name: &str, at: Millis| {
            markup(name, &[("time", Part::Html(page.time(at).to_string()))])
        };
        let ended = names.get(&key.id).and_then(|name| name.ended_at);
        let since = |lines: &mut Vec<String>| {
            lines.extend(ended.map(|ended| at("key_state.since", ended)));
        };
        let mut lines = Vec::new();
        let (word, badge) = match key.alive(now) {
            Err(Refusal::Disabled) => {
                since(&mut lines);
                ("disabled", "badge-idle")
            }
            Err(Refusal::Suspended(reason)) => {
                lines.push(escaped(&reason));
                since(&mut lines);
                let until = key.suspension(now).and_then(|one| one.until);
                lines.extend(until.map(|end| at("key_state.until", end)));
                let whom = api.app.settings.support_contact.as_deref().map(contact);
                let ask = |whom| markup("key_state.contact", &[("contact", Part::Html(whom))]);
                lines.extend(whom.map(ask));
                ("suspended", "badge-bad")
            }
            Err(Refusal::Expired) => {
                lines.extend(key.expires_at.map(|end| at("key_state.ended", end)));
                ("expired", "badge-idle")
            }
            Err(Refusal::NotYet) => {
                lines.extend(key.not_before.map(|begin| at("key_state.from", begin)));
                ("not_yet", "badge-warn")
            }
            Err(_) => {
                lines.extend(key.deleted_at.map(|end| at("key_state.since", end)));
                ("deleted", "badge-idle")
            }
            Ok(()) => {
                lines.extend(key.expires_at.map(|end| at("key_state.ends", end)));
                ("active", "badge-ok")
            }
        };
        if let Some(new) = key.replaced_by {
            let name = names.get(&new).map(called).unwrap_or_else(|| new.to_string());
            lines.push(markup("key_state.replaced", &[("name", Part::Text(&name))]));
        }
        if api.app.rotation_due_at(key).is_some_and(|due| due <= now) && word == "active" {
            lines.push(escaped(page.t("key_state.rotation_due")));
        }
        Self { word: page.t(&format!("key_state.{word}")).to_owned(), badge, lines }
    }
}

#[cfg(test)]
mod tests {
    use super::contact;

    #[test]
    fn whom_to_ask_is_a_link_and_never_a_script() {
        assert_eq!(contact("a@b.c"), "<a href=\"mailto:a@b.c\">a@b.c</a>");
        assert!(
            contact("https://a.example/?x=\"y").contains("href=\"https://a.example/?x=&quot;y\"")
        );
        assert_eq!(contact("javascript:alert(1)"), "javascript:alert(1)");
    }
}
