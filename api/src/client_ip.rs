//! The caller's address: whom blocks, allow-lists and the request log mean.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;
pub use listmill_shared::domain::network::{parse_network, parse_proxies};

/// The caller's address: the peer's, or, behind trusted proxies, the right-most hop of
/// `X-Forwarded-For` that is none of them. What stands left of it is only what the caller says.
pub fn caller_ip(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |ip: IpAddr| proxies.iter().any(|network| network.contains(&ip));
    let mut caller = peer.to_canonical();
    if !trusted(caller) {
        return caller;
    }
    let values: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        match parse_hop(hop) {
            Some(ip) => caller = ip,
            // Rubbish: the proxy that passed it on is all that is known.
            None => return caller,
        }
        if !trusted(caller) {
            return caller;
        }
    }
    caller
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1` or `[2001:db8::1]:443`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_trusted_proxies_name_the_caller() {
        let proxies = parse_proxies("10.0.0.0/8, 192.0.2.7").unwrap();
        let of = |peer: &str, values: &[&str]| {
            caller_ip(peer.parse().unwrap(), &forwarded(values), &proxies).to_string()
        };
        assert_eq!(of("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(of("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(of("10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("::ffff:10.1.1.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        // What stands left of the right-most untrusted hop is hearsay.
        assert_eq!(of("10.1.1.1", &["1.1.1.1, 198.51.100.1, 192.0.2.7"]), "198.51.100.1");
        assert_eq!(of("10.1.1.1", &["1.1.1.1", "198.51.100.1:80, 10.2.2.2"]), "198.51.100.1");
        assert_eq!(of("10.1.1.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(of("10.1.1.1", &["198.51.100.1, rubbish, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(of("10.1.1.1", &["10.3.3.3, 10.2.2.2"]), "10.3.3.3");
    }
}
