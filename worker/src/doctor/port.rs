//! Can mail servers be reached, and from where do they see us come?

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use listmill_shared::app::doctor::clocks;
use listmill_shared::domain::clock::parse_rfc2822;

use super::{Doctor, Finding, in_time};
use crate::provider::dns::Route;
use crate::provider::smtp::connection::{Greeting, Setup, greet};
use crate::provider::smtp::{Fault, FaultKind, Stage};

/// How long a provider may take in all; connecting and each reply.
const WHOLE: Duration = Duration::from_secs(14);
const CONNECT: Duration = Duration::from_secs(5);
const REPLY: Duration = Duration::from_secs(5);
/// A server's date says the second in which it began to speak.
const DATE_OFF: Duration = Duration::from_secs(30);
/// From which on TLS and the order of events suffer.
const DATE_WRONG: Duration = Duration::from_secs(300);

/// How it went with one provider.
enum Reached {
    Greeted(Box<Greeting>),
    /// A server, but it does not want us.
    TurnedAway(String),
    Refused,
    Silent,
    /// The fault lies elsewhere: the name, the proxy, our own address.
    Other(String),
}

impl Doctor<'_> {
    /// Tells `port`, `clock` and `address`; returns the address that mail servers see.
    pub(super) async fn port(&self) -> Option<IpAddr> {
        let asked = self.targets.providers.iter().map(|provider| self.reach(provider));
        let reached: Vec<Reached> = join_all(asked).await;
        self.tell(self.verdict(&reached));
        let greetings: Vec<&Greeting> = reached
            .iter()
            .filter_map(|reached| match reached {
                Reached::Greeted(greeting) => Some(&**greeting),
                _ => None,
            })
            .collect();
        if let Some(date) = greetings.iter().find_map(|g| date_in(&g.banner.text)) {
            self.tell(clocks("a mail server", self.clock.now(), date, DATE_OFF, DATE_WRONG));
        }
        let seen = greetings.iter().find_map(|g| address_in(&g.ehlo.text));
        self.tell(match seen {
            Some(ip) => Finding::ok("address", format!("mail servers see us come from {ip}")),
            None => Finding::warning(
                "address",
                "no mail server said from which address we come, so reverse DNS and blocklists were \
                 not looked at",
                "Once mail servers can be reached, run this again.",
            ),
        });
        seen
    }

    async fn reach(&self, provider: &str) -> Reached {
        match tokio::time::timeout(WHOLE, self.try_reach(provider)).await {
            Ok(Ok(greeting)) => Reached::Greeted(Box::new(greeting)),
            Ok(Err(reached)) => reached,
            Err(_) => Reached::Silent,
        }
    }

    async fn try_reach(&self, provider: &str) -> Result<Greeting, Reached> {
        let route = in_time(provider, async { Ok(self.dns.route(provider).await) }).await;
        let other = |text: &dyn ToString| Reached::Other(text.to_string());
        let hosts = match route.map_err(|e| other(&e))? {
            Route::Hosts(hosts) => hosts,
            Route::Failed(failed) => return Err(other(&failed)),
            Route::NoDomain | Route::NullMx => {
                return Err(Reached::Other(format!("DNS knows no mail host of {provider}")));
            }
        };
        let host = hosts.first().map_or(provider, |host| &*host.name);
        let addresses = in_time(host, self.dns.addresses(host)).await.map_err(|e| other(&e))?;
        let Some(ip) = addresses.first() else {
            return Err(Reached::Other(format!("DNS knows no address of {host}")));
        };
        let setup = Setup {
            ehlo: self.config.ehlo.clone(),
            connect_timeout: CONNECT,
            reply_timeout: REPLY,
            source_ip: self.config.source_ip,
            socks5: self.config.socks5.clone(),
            tls: None,
        };
        greet(&setup, SocketAddr::new(*ip, self.config.port)).await.map_err(blame)
    }

    fn verdict(&self, reached: &[Reached]) -> Finding {
        let port = self.config.port;
        let all = reached.len();
        let count = |wanted: fn(&Reached) -> bool| reached.iter().filter(|r| wanted(r)).count();
        let greeted = count(|r| matches!(r, Reached::Greeted(_)));
        let words = reached.iter().find_map(|r| match r {
            Reached::TurnedAway(words) | Reached::Other(words) => Some(words.as_str()),
            _ => None,
        });
        let away = reached.iter().any(|r| matches!(r, Reached::TurnedAway(_)));
        let of = format!("{greeted} of {all} big providers let us in at port {port}");
        let open = "Ask your provider to open outbound port 25, run this on a machine where it is open, \
                    or name a proxy on such a machine (LISTMILL_SMTP_SOCKS5). Without it every verdict \
                    is no_connect.";
        match (greeted, away, words) {
            (n, ..) if n == all => Finding::ok("port", of),
            (n, _, words) if n > 0 => Finding::warning(
                "port",
                words
                    .map_or(of.clone(), |words| format!("{of}; the last word of another: {words}")),
                "Addresses of that provider will be unknown. If it stays so, look at reverse DNS and \
                 blocklists below.",
            ),
            (_, true, words) => Finding::problem(
                "port",
                format!("port {port} is open, but we are turned away: {}", words.unwrap_or("")),
                "Their words mostly name the reason: reverse DNS, a blocklist, or a home address.",
            ),
            _ if count(|r| matches!(r, Reached::Silent)) == all => Finding::problem(
                "port",
                format!(
                    "nobody answers at port {port}: it is blocked on the way out (most clouds and home \
                     lines do that)"
                ),
                open,
            ),
            _ if count(|r| matches!(r, Reached::Refused)) > 0 => Finding::problem(
                "port",
                format!(
                    "connections to port {port} are refused: a firewall near here turns them away"
                ),
                open,
            ),
            (_, _, words) => Finding::problem(
                "port",
                format!(
                    "no mail server could be reached: {}",
                    words.unwrap_or("no answer in time")
                ),
                "Look at the resolver, at LISTMILL_SMTP_SOURCE_IP and at LISTMILL_SMTP_SOCKS5 first.",
            ),
        }
    }
}

fn blame(fault: Fault) -> Reached {
    match (fault.stage, fault.kind) {
        (_, FaultKind::Refused(reply)) => Reached::TurnedAway(reply.excerpt(200)),
        (_, FaultKind::Timeout) => Reached::Silent,
        (Stage::Connect, FaultKind::Io(e)) => match e.kind() {
            ErrorKind::ConnectionRefused => Reached::Refused,
            ErrorKind::TimedOut => Reached::Silent,
            _ => Reached::Other(e.to_string()),
        },
        (_, kind) => Reached::TurnedAway(kind.to_string()),
    }
}

/// The first address in brackets in a server's answer to EHLO, where big providers say who came
/// (`at your service, [192.0.2.1]`). Only the first line speaks of us.
fn address_in(ehlo: &str) -> Option<IpAddr> {
    let first = ehlo.lines().next()?;
    let inside = |piece: &str| {
        let ip = piece.split([']', ')']).next()?;
        ip.strip_prefix("IPv6:").unwrap_or(ip).parse().ok()
    };
    first.split(['[', '(']).skip(1).find_map(inside)
}

/// The date that some servers put behind the last `;` or ` at ` of their banner (RFC 5322).
fn date_in(banner: &str) -> Option<i64> {
    let behind = [";", " at "].into_iter().filter_map(|mark| banner.rsplit_once(mark));
    behind.map(|(_, date)| date.trim()).find_map(parse_rfc2822)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_from_where_we_come() {
        for (ehlo, ip) in [
            ("mx.google.com at your service, [192.0.2.7]\nSIZE 1", Some("192.0.2.7")),
            ("BN1.mail.protection.outlook.com Hello [2001:db8::7]", Some("2001:db8::7")),
            ("mx.example.com Hello probe.test (192.0.2.9), pleased", Some("192.0.2.9")),
            ("mx.example.com [not an address] [192.0.2.1]", Some("192.0.2.1")),
            ("mx.example.com\nSIZE [192.0.2.1]", None),
        ] {
            assert_eq!(address_in(ehlo), ip.map(|ip| ip.parse().unwrap()), "{ehlo}");
        }
    }

    #[test]
    fn some_banners_tell_the_time() {
        let outlook = "x.outlook.com Microsoft ESMTP MAIL Service ready at \
                       Tue, 14 Nov 2023 22:13:20 +0000";
        assert_eq!(date_in(outlook), Some(1_700_000_000_000));
        let exim = "mx ESMTP Exim 4.96; Tue, 14 Nov 2023 23:13:20 +0100";
        assert_eq!(date_in(exim), Some(1_700_000_000_000));
        assert_eq!(date_in("mx.google.com ESMTP; x"), None);
    }
}
