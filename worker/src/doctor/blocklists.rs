//! Is our address on a DNS blocklist (RFC 5782)?
//!
//! A list is asked about 127.0.0.2 as well, which every list must hold (RFC 5782, 5): one that does
//! not say so does not answer this resolver, and its "not listed" is worth nothing. Spamhaus says it
//! with 127.255.255.x (its page "Return codes"): .252 a wrong name, .254 a public resolver, .255 too
//! many questions.

use std::net::{IpAddr, Ipv4Addr};

use futures::future::join_all;

use super::{Doctor, Finding, in_time};
use crate::provider::dns::Failed;

/// Listed by every list, for testing.
const TEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What a list says of us.
enum Said {
    NotListed,
    Listed(Ipv4Addr),
    /// It does not answer this resolver.
    Mute(String),
}

impl Doctor<'_> {
    pub(super) async fn blocklists(&self, seen: Option<IpAddr>) {
        let Some(ip) = seen else { return };
        let lists = &self.targets.blocklists;
        let said = join_all(lists.iter().map(|list| self.ask_list(list, ip))).await;
        let (mut listed, mut mute, mut clear) = (Vec::new(), Vec::new(), Vec::new());
        for (list, said) in lists.iter().zip(said) {
            match said {
                Said::NotListed => clear.push(list.as_str()),
                Said::Listed(code) => listed.push(format!("{list} ({code}{})", policy(list, code))),
                Said::Mute(why) => mute.push(format!("{list}: {why}")),
            }
        }
        if !listed.is_empty() {
            let found = format!("{ip} is on {}: who asks it turns us away", listed.join(", "));
            let advice = "Look the address up at the list's own site, which says why and how to be taken \
                          off; or use another address (LISTMILL_SMTP_SOURCE_IP, LISTMILL_SMTP_SOCKS5).";
            self.tell(Finding::problem("blocklists", found, advice));
        }
        if !mute.is_empty() {
            let found = format!("could not be asked: {}", mute.join("; "));
            let advice = "Lists do not answer public resolvers: run one on this machine and name it in \
                          LISTMILL_DNS, or look the address up at their sites.";
            self.tell(Finding::warning("blocklists", found, advice));
        }
        if !clear.is_empty() && listed.is_empty() {
            self.tell(Finding::ok("blocklists", format!("{ip} is not on {}", clear.join(", "))));
        }
    }

    async fn ask_list(&self, list: &str, ip: IpAddr) -> Said {
        let (ours, test) = tokio::join!(self.listing(list, ip), self.listing(list, TEST));
        match (ours, test) {
            (Err(failed), _) | (_, Err(failed)) => Said::Mute(failed.to_string()),
            (Ok(Some(code)), _) if is_error(code) => {
                Said::Mute(format!("it answers {code}, which is an error"))
            }
            (Ok(Some(code)), _) if code.octets()[0] == 127 => Said::Listed(code),
            (Ok(Some(code)), _) => Said::Mute(format!("{code} is no answer of a list")),
            (Ok(None), Ok(Some(code))) if is_error(code) => {
                Said::Mute(format!("it answers {code}, which is an error"))
            }
            (Ok(None), Ok(Some(_))) => Said::NotListed,
            (Ok(None), Ok(None)) => Said::Mute("it does not answer this resolver".into()),
        }
    }

    async fn listing(&self, list: &str, ip: IpAddr) -> Result<Option<Ipv4Addr>, Failed> {
        let name = format!("{}.{list}", reversed(ip));
        let addresses = in_time(&name, self.dns.addresses(&name)).await?;
        Ok(addresses.iter().find_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        }))
    }
}

fn is_error(code: Ipv4Addr) -> bool {
    matches!(code.octets(), [127, 255, 255, _])
}

/// Spamhaus' Policy Blocklist holds ranges that are not meant to send mail at all.
fn policy(list: &str, code: Ipv4Addr) -> &'static str {
    match code.octets() {
        [127, 0, 0, 10 | 11] if list.ends_with("spamhaus.org") => {
            ", an address range that is not meant to send mail"
        }
        _ => "",
    }
}

/// Octets, or nibbles, in reverse (RFC 5782, 2.1 and 2.4).
fn reversed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_turned_round() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192");
        let six = reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap());
        assert_eq!(six, "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2");
    }
}
