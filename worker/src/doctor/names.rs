//! Names: does the resolver tell the truth, and do the names that we go by lead back to us?

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use listmill_shared::domain::address::domain_to_ascii;

use super::{Doctor, Finding, in_time};
use crate::provider::dns::{Failed, Route};

/// A resolver that takes longer for a well-known name holds up everything.
const SLOW: Duration = Duration::from_secs(1);
/// Names of our address that are followed.
const NAMES: usize = 5;
/// Mail hosts of the sender's domain that are looked at.
const HOSTS: usize = 3;

const RESOLVER: &str = "Run a resolver on this machine (unbound, knot-resolver) and name it in \
                        LISTMILL_DNS (127.0.0.1:53).";

impl Doctor<'_> {
    /// Asks for names that are there and for one that is not.
    pub(super) async fn resolver(&self, nowhere: &str) {
        let started = Instant::now();
        let told = self.dns.tells_truth(&self.targets.providers, nowhere).await;
        let took = started.elapsed();
        self.tell(match told {
            Err(doubt) => Finding::problem(
                "resolver",
                format!("{doubt}. Nothing is concluded while that is so: tasks pause"),
                RESOLVER,
            ),
            Ok(()) if took > SLOW => Finding::warning(
                "resolver",
                format!("it tells the truth, but took {:.1} s", took.as_secs_f64()),
                RESOLVER,
            ),
            Ok(()) => Finding::ok(
                "resolver",
                format!("it tells the truth, in {} ms", took.as_millis().max(1)),
            ),
        });
    }

    /// The names of our address must lead back to it (forward-confirmed reverse DNS).
    pub(super) async fn reverse(&self, seen: Option<IpAddr>) {
        let Some(ip) = seen else { return };
        let advice = format!(
            "Ask who gave you the address (mostly a field in the provider's console) to set its reverse \
             DNS to the name in LISTMILL_SMTP_EHLO, and let that name resolve to {ip}."
        );
        let named = in_time("our address", self.dns.names(ip)).await;
        let names = match named {
            Ok(names) => names,
            Err(failed) => {
                let found = format!("{ip}: could not be looked up: {failed}");
                self.tell(Finding::warning("reverse_dns", found, "Run this again."));
                return;
            }
        };
        let back = join_all(names.iter().take(NAMES).map(|name| self.leads_to(name, ip))).await;
        let confirmed = names.iter().zip(&back).find(|(_, back)| **back == Some(true));
        self.tell(match (names.first(), confirmed) {
            (None, _) => Finding::problem(
                "reverse_dns",
                format!("{ip} has no name: many mail servers turn such callers away"),
                advice,
            ),
            (Some(name), None) => Finding::problem(
                "reverse_dns",
                format!(
                    "{ip} is called {name}, which does not lead back to it: many mail servers turn such \
                     callers away"
                ),
                advice,
            ),
            (_, Some((name, _))) if looks_dynamic(name, ip) => Finding::warning(
                "reverse_dns",
                format!("{ip} is called {name}, which looks like a home or rented address"),
                advice,
            ),
            (_, Some((name, _))) => {
                Finding::ok("reverse_dns", format!("{ip} is called {name}, which leads back to it"))
            }
        });
    }

    /// Our name in EHLO must be a full one that leads to us (RFC 5321, 4.1.4).
    pub(super) async fn ehlo(&self, seen: Option<IpAddr>) {
        let name = self.config.ehlo.as_str();
        let advice = "Set LISTMILL_SMTP_EHLO to a name such as verify.example.com that resolves to this \
                      machine's address.";
        if !is_full(name) {
            let found = format!("we call ourselves {name:?}, which is no full domain name");
            self.tell(Finding::problem("ehlo", found, advice));
            return;
        }
        let addresses = in_time(name, self.dns.addresses(name)).await;
        self.tell(match (addresses, seen) {
            (Err(failed), _) => {
                Finding::warning("ehlo", format!("{name} could not be looked up: {failed}"), advice)
            }
            (Ok(addresses), _) if addresses.is_empty() => Finding::problem(
                "ehlo",
                format!("we call ourselves {name}, which does not resolve"),
                advice,
            ),
            (Ok(addresses), Some(ip)) if !addresses.contains(&ip) => Finding::warning(
                "ehlo",
                format!(
                    "we call ourselves {name}, which is {}, but we come from {ip}",
                    addresses[0]
                ),
                advice,
            ),
            (Ok(_), Some(_)) => Finding::ok("ehlo", format!("{name} leads to our address")),
            (Ok(_), None) => Finding::ok("ehlo", format!("{name} resolves")),
        });
    }

    /// The domain of MAIL FROM must take mail, and may say who speaks for it (SPF, RFC 7208).
    pub(super) async fn sender(&self) {
        let from = self.config.from.as_str();
        let Some((_, domain)) = from.rsplit_once('@') else {
            self.tell(Finding::ok("sender", "we send the null sender, which needs no domain"));
            return;
        };
        let domain = domain_to_ascii(domain).unwrap_or_default();
        let (mail, texts) =
            tokio::join!(self.takes_mail(&domain), in_time(&domain, self.dns.texts(&domain)));
        let advice = "Set LISTMILL_SMTP_FROM to a mailbox of yours that exists: many mail servers look \
                      whether its domain takes mail.";
        let spf = texts.as_ref().map(|texts| texts.iter().any(|text| is_spf(text)));
        self.tell(match (mail, spf) {
            (Err(failed), _) => Finding::warning(
                "sender",
                format!("the domain of {from} could not be looked up: {failed}"),
                advice,
            ),
            (Ok(false), _) => Finding::problem(
                "sender",
                format!("we send from {from}, whose domain takes no mail"),
                advice,
            ),
            (Ok(true), Ok(false)) => Finding::warning(
                "sender",
                format!("{from}: its domain takes mail, but has no SPF record"),
                format!(
                    "Add a TXT record to {domain} that names this machine: v=spf1 a mx ip4:… -all"
                ),
            ),
            (Ok(true), _) => Finding::ok(
                "sender",
                format!("{from}: its domain takes mail and has an SPF record"),
            ),
        });
    }

    async fn route(&self, domain: &str) -> Result<Route, Failed> {
        let route = in_time(domain, async { Ok(self.dns.route(domain).await) }).await?;
        match route {
            Route::Failed(failed) => Err(failed),
            route => Ok(route),
        }
    }

    async fn takes_mail(&self, domain: &str) -> Result<bool, Failed> {
        let Route::Hosts(hosts) = self.route(domain).await? else { return Ok(false) };
        let looked = hosts
            .iter()
            .take(HOSTS)
            .map(|host| in_time(&host.name, self.dns.addresses(&host.name)));
        let found = join_all(looked).await;
        if found.iter().flatten().any(|addresses| !addresses.is_empty()) {
            return Ok(true);
        }
        found.into_iter().find_map(Result::err).map_or(Ok(false), Err)
    }

    /// `None`: could not be looked up.
    async fn leads_to(&self, name: &str, ip: IpAddr) -> Option<bool> {
        let addresses = in_time(name, self.dns.addresses(name)).await.ok()?;
        Some(addresses.contains(&ip))
    }
}

/// A name that others could look up.
fn is_full(name: &str) -> bool {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let local = ["localhost", "localdomain", "local", "lan", "internal", "home.arpa"];
    lower.contains('.')
        && lower.parse::<IpAddr>().is_err()
        && !lower.starts_with('[')
        && !local.iter().any(|last| lower.ends_with(&format!(".{last}")))
}

/// Providers name addresses that are nobody's in particular after their numbers.
fn looks_dynamic(name: &str, ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip else { return false };
    let numbers: Vec<&str> = name.split(|c: char| !c.is_ascii_digit()).collect();
    ip.octets().iter().all(|octet| {
        let octet = octet.to_string();
        numbers.iter().any(|number| number.trim_start_matches('0') == octet.trim_start_matches('0'))
    })
}

fn is_spf(text: &str) -> bool {
    text.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("v=spf1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_full_or_not() {
        for name in ["verify.example.com", "a.b"] {
            assert!(is_full(name), "{name}");
        }
        for name in ["localhost", "box", "box.local", "192.0.2.1", "[192.0.2.1]", "pc.lan."] {
            assert!(!is_full(name), "{name}");
        }
    }

    #[test]
    fn names_made_of_numbers_are_seen() {
        let ip = "203.0.113.7".parse().unwrap();
        assert!(looks_dynamic("ip-203-0-113-7.cloud.example", ip));
        assert!(looks_dynamic("007.113.0.203.dsl.example", ip));
        assert!(!looks_dynamic("mail7.example.com", ip));
    }
}
