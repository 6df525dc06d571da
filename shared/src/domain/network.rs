//! Networks as people write them: for blocks, allow-lists and trusted proxies.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// A network or a single address; IPv4 inside IPv6 becomes IPv4, as callers' addresses do.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).ok().map(IpNet::V4),
            None => Some(network),
        },
        _ => Some(network),
    }
}

/// Reads the setting `trusted_proxies`; the part that does not parse comes back as the error.
pub fn parse_proxies(text: &str) -> Result<Vec<IpNet>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| parse_network(part).ok_or_else(|| part.to_owned()))
        .collect()
}

/// What is counted as one caller: an IPv4 address, or the first of a /64 of IPv6, as whoever has one has all of it.
pub fn home(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Do two networks have an address in common?
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_a_list() {
        assert_eq!(parse_proxies("10.0.0.0/8, 192.0.2.7").unwrap().len(), 2);
        assert_eq!(parse_proxies("10.0.0.0/8, nonsense"), Err("nonsense".to_owned()));
        assert!(parse_proxies("").unwrap().is_empty());
    }

    #[test]
    fn callers_are_at_home_in_a_network() {
        let of = |text: &str| home(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn networks_overlap_whichever_is_the_wider() {
        let of = |text: &str| parse_network(text).unwrap();
        for (one, other, do_they) in [
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.0/24", "192.0.0.0/8", true),
            ("192.0.2.0/24", "192.0.3.0/24", false),
            ("2001:db8::/64", "2001:db8::5", true),
            ("2001:db8::/64", "0.0.0.0/0", false),
        ] {
            assert_eq!(overlap(&of(one), &of(other)), do_they, "{one} {other}");
            assert_eq!(overlap(&of(other), &of(one)), do_they, "{other} {one}");
        }
    }

    #[test]
    fn networks_hold_addresses_in_either_form() {
        let holds = |network: &str, ip: &str| {
            parse_network(network).unwrap().contains(&ip.parse::<IpAddr>().unwrap().to_canonical())
        };
        assert!(holds("127.0.0.0/8", "127.3.2.1"));
        assert!(holds("127.0.0.0/8", "::ffff:127.3.2.1"));
        assert!(holds("::ffff:192.0.2.0/120", "192.0.2.77"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(holds("2001:db8::/32", "2001:db8::5"));
        assert!(!holds("2001:db8::/32", "2001:db9::5"));
        assert!(parse_network("nonsense").is_none());
    }
}
