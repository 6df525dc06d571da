//! A new key, with its secret: the answer to the form that made it, and to nothing else.

use askama::Template;
use axum::response::Response;
use listmill_shared::app::once::Sent;
use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::key::Key;

use super::List;
use super::samples::{Sample, samples};
use crate::Api;
use crate::dashboard::page::{Failure, Page, html};
use crate::dashboard::session::Viewer;

/// Within so long a form that is sent again was sent by one press too many, or its answer was lost: it is answered
/// as the first time. Later its secret is not shown any more.
const AGAIN_MS: Millis = 10_000;

#[derive(Template)]
#[template(path = "key_made.html")]
struct KeyMadePage {
    page: Page,
    list: List,
    title: String,
    secret: Option<String>,
    lines: Vec<String>,
    samples: Vec<Sample>,
}

/// What came of a form that makes a key.
pub struct Made {
    salt: Vec<u8>,
    shows: bool,
}

impl Made {
    /// Reads what came of it, with the key's id; `Err`: what is to be said instead.
    pub fn of(sent: Sent, now: Millis) -> Result<(Self, String), &'static str> {
        match sent {
            Sent::Done { note, salt, at, again } => {
                Ok((Self { salt, shows: !again || now - at <= AGAIN_MS }, note))
            }
            Sent::AtWork => Err("keys.at_work"),
            Sent::Other => Err("keys.sent_other"),
        }
    }

    /// The page with the secret of `key`; `lines` are HTML.
    pub async fn show(
        self,
        api: &Api,
        viewer: &Viewer,
        key: &Key,
        (title, lines): (String, Vec<String>),
    ) -> Result<Response, Failure> {
        let secret = match self.shows {
            true => api.app.secret_again(&self.salt, &key.start)?,
            false => None,
        };
        let page = Page::new(viewer, "keys");
        let list = List::first(api, viewer, &page).await?;
        Ok(html(&KeyMadePage {
            page,
            list,
            title,
            secret: secret.map(|secret| secret.reveal().to_owned()),
            lines,
            samples: samples(viewer.own_url()),
        }))
    }
}
