//! The mails that the dashboard sends, in the words of the catalogue.
//!
//! What depends on whether somebody is known is done aside ([`aside`]), after the answer: neither its words nor its
//! time tell. Links begin with the setting `public_url`, never with what a request says of its host. What somebody
//! else has written (an email, an account's name) stands in the text alone, as one line.

use std::sync::Arc;

use listmill_shared::app::people::PersonError;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::key::Token;
use listmill_shared::mail::{COUNTED, Letter};
use tokio::sync::Semaphore;

use super::session::Viewer;
use super::text::{filled, text};
use super::tries;
use crate::Api;

/// Letters that are written aside at once.
pub const AT_ONCE: usize = 32;

/// Does it after the answer; where too many are at it already, it is lost, as where the queue is full.
fn aside(
    letters: Arc<Semaphore>,
    work: impl Future<Output = Result<(), PersonError>> + Send + 'static,
) {
    let Ok(turn) = letters.try_acquire_owned() else {
        metrics::counter!(COUNTED, "outcome" => "lost").increment(1);
        return;
    };
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::warn!(%error, "a mail that was asked for is not written");
        }
        drop(turn);
    });
}

/// As one line of text, without what turns its direction.
fn line(text: &str) -> String {
    let odd =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().take(254).map(|c| if odd(c) { ' ' } else { c }).collect()
}

fn own(api: &Api, path: &str) -> String {
    format!("{}{path}", api.app.settings.public_url.trim_end_matches('/'))
}

/// Puts a letter into the queue; `false`: it is not sent.
fn post(api: &Api, to: &str, subject: &str, text: String) -> bool {
    api.app.mail.post(Letter { to: to.to_owned(), subject: subject.to_owned(), text })
}

/// Sends a link to choose another password, if there is such a person.
pub fn reset(api: Api, email: String, from: Origin) {
    aside(Arc::clone(&api.letters), async move {
        let email = email.trim().to_lowercase();
        if !tries::mail(&api, &email).await {
            return Ok(());
        }
        if let Some(token) = api.app.reset_link(&email, &from).await? {
            let with = [("email", &*line(&email)), ("link", &*api.app.person_link_url(&token))];
            post(&api, &email, text("mail.reset_subject"), filled("mail.reset_text", &with));
        }
        Ok(())
    });
}

/// Sends a link that makes an account, or, to who has one, a word that they do.
pub fn sign_up(api: Api, email: String, from: Origin) {
    aside(Arc::clone(&api.letters), async move {
        let email = email.trim().to_lowercase();
        if !tries::mail(&api, &email).await {
            return Ok(());
        }
        let (subject, words) = match api.app.sign_up_link(&email, &from).await? {
            Some(token) => {
                let with = [("email", &*line(&email)), ("link", &*api.app.person_link_url(&token))];
                (text("mail.sign_up_subject"), filled("mail.sign_up_text", &with))
            }
            None => {
                let (login, forgot) = (own(&api, "/login"), own(&api, "/login/forgot"));
                let with = [("email", &*line(&email)), ("login", &*login), ("forgot", &*forgot)];
                (text("mail.known_subject"), filled("mail.known_text", &with))
            }
        };
        post(&api, &email, subject, words);
        Ok(())
    });
}

/// Sends an invitation; `false`: its link has to go another way.
pub async fn invite(api: &Api, viewer: &Viewer, to: &str, token: &Token) -> bool {
    let to = to.trim().to_lowercase();
    if !api.app.mail.is_on()
        || !tries::invite(api, viewer.account).await
        || !tries::mail(api, &to).await
    {
        return false;
    }
    let with = [
        ("by", &*line(&viewer.email)),
        ("account", &*line(&viewer.account_email)),
        ("link", &*api.app.person_link_url(token)),
    ];
    post(api, &to, text("mail.invite_subject"), filled("mail.invite_text", &with))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn what_others_write_is_one_line() {
        assert_eq!(line("Acme\r\nBcc: x@y\u{202e}z"), "Acme  Bcc: x@y z");
        assert_eq!(line(&"é".repeat(300)).chars().count(), 254);
    }
}
