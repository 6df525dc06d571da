//! The settings of our own mail: `smtp_url`, `mail_from`, and what they need.
//!
//! Data: [`MailServer`], who takes our mails. Its password shows itself nowhere.

use std::fmt;
use std::net::IpAddr;

use lettre::message::Mailbox;
use percent_encoding::percent_decode_str;

use super::{Secret, Settings, SettingsError};

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    None,
    /// By STARTTLS; without it nothing is sent.
    Required,
    /// From its first byte.
    Always,
}

/// Who takes our mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// Whom we log in as.
    pub user: Option<(String, Secret)>,
}

impl fmt::Display for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl MailServer {
    /// Reads `smtp://[user:password@]host[:port][?tls=none|required]` or `smtps://…`; user and password are
    /// percent-encoded.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, option) = match rest.split_once('?') {
            Some((rest, option)) => (rest, Some(option)),
            None => (rest, None),
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user.split_once(':')?), place),
            None => (None, rest),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => v6.split_once(']')?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return None;
        }
        let (tls, usual) = match (scheme, option) {
            ("smtps", None) => (Tls::Always, 465),
            ("smtp", Some("tls=required")) => (Tls::Required, 587),
            ("smtp", Some("tls=none")) => (Tls::None, 25),
            ("smtp", None) if is_loopback(host) => (Tls::None, 25),
            ("smtp", None) => (Tls::Required, 587),
            _ => return None,
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None if port.is_empty() => usual,
            None => return None,
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
        let user = match user {
            Some((name, password)) => {
                Some((decoded(name)?, Secret::from(decoded(password)?.as_str())))
            }
            None => None,
        };
        Some(Self { host: host.to_owned(), port, tls, user })
    }
}

impl Settings {
    /// Who takes our mails, and whom they are from; `None`: no mail is sent.
    pub fn mail(&self) -> Option<(MailServer, Mailbox)> {
        let server = MailServer::parse(self.smtp_url.as_ref()?.reveal())?;
        Some((server, self.mail_from.as_deref()?.parse().ok()?))
    }

    pub(super) fn check_mail(&self) -> Result<(), SettingsError> {
        let wrong = |name, want, got: &str| {
            Err(SettingsError::Range { name, want, got: format!("{got:?}") })
        };
        if !(0..=1_000_000_000_000).contains(&self.sign_up_credits) {
            let got = self.sign_up_credits.to_string();
            return wrong("sign_up_credits", "0 to 1000000000000", &got);
        }
        let from = self.mail_from.as_deref().unwrap_or_default();
        if !from.is_empty() && from.parse::<Mailbox>().is_err() {
            let want = "an address such as Listmill <listmill@example.com>";
            return wrong("mail_from", want, from);
        }
        let Some(url) = &self.smtp_url else { return Ok(()) };
        if MailServer::parse(url.reveal()).is_none() {
            let want =
                "smtp://user:password@host:port, with ?tls=none or ?tls=required, or smtps://…";
            return wrong("smtp_url", want, &url.to_string());
        }
        if from.is_empty() {
            return wrong("mail_from", "given where smtp_url is: whom mails are from", from);
        }
        // What a request says of its host may be anybody's word: no link in a mail begins with it.
        if self.public_url.is_empty() {
            return wrong(
                "public_url",
                "given where smtp_url is: links in mails begin with it",
                "",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_protected_unless_they_are_here() {
        for (url, host, port, tls) in [
            ("smtp://mail.example.com", "mail.example.com", 587, Tls::Required),
            ("smtp://mail.example.com:25/", "mail.example.com", 25, Tls::Required),
            ("smtp://10.0.0.5:2525?tls=none", "10.0.0.5", 2525, Tls::None),
            ("smtp://localhost", "localhost", 25, Tls::None),
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, Tls::None),
            ("smtp://[::1]:2525", "::1", 2525, Tls::None),
            ("smtp://127.0.0.1?tls=required", "127.0.0.1", 587, Tls::Required),
            ("smtps://mail.example.com", "mail.example.com", 465, Tls::Always),
        ] {
            let server = MailServer::parse(url).unwrap();
            assert_eq!((server.host.as_str(), server.port, server.tls), (host, port, tls), "{url}");
        }
        for wrong in [
            "",
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://host:0",
            "smtp://host:x",
            "smtp://user@host",
            "smtp://host?tls=maybe",
            "smtps://host?tls=none",
            "smtp://ho st",
        ] {
            assert!(MailServer::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_password_is_read_and_not_shown() {
        let server = MailServer::parse("smtps://me%40x:p%3Ass@host").unwrap();
        assert!(!format!("{server:?} {server}").contains("p:ss"));
        let (name, password) = server.user.unwrap();
        assert_eq!((name.as_str(), password.reveal()), ("me@x", "p:ss"));
    }
}
