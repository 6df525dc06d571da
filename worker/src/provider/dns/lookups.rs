//! Look-ups that no verdict needs, but that show what others see of us. Not kept.

use std::net::IpAddr;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RData};

use super::{Dns, Failed, failed, qualified};

impl Dns {
    /// The names of an address (PTR), without the last dot; empty = it has none.
    pub async fn names(&self, ip: IpAddr) -> Result<Vec<String>, Failed> {
        let mut name = Name::from(ip);
        name.set_fqdn(true);
        let named = |data: &RData| match data {
            RData::PTR(name) => Some(name.0.to_ascii().trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        };
        let answer = self.resolver.reverse_lookup(name).await;
        found(&ip.to_string(), answer.map(|lookup| pick(lookup.answers(), named)))
    }

    /// The texts of a name (TXT), each in one piece; empty = it has none, or does not exist.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, Failed> {
        let Some(qualified) = qualified(name) else { return Ok(Vec::new()) };
        let text = |data: &RData| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        };
        let answer = self.resolver.txt_lookup(qualified).await;
        found(name, answer.map(|lookup| pick(lookup.answers(), text)))
    }
}

fn pick(
    records: &[hickory_resolver::proto::rr::Record],
    wanted: impl Fn(&RData) -> Option<String>,
) -> Vec<String> {
    records.iter().filter_map(|record| wanted(&record.data)).collect()
}

fn found(name: &str, answer: Result<Vec<String>, NetError>) -> Result<Vec<String>, Failed> {
    match answer {
        Ok(found) => Ok(found),
        Err(e) if e.is_no_records_found() || e.is_nx_domain() => Ok(Vec::new()),
        Err(e) => Err(failed(name, &e)),
    }
}
