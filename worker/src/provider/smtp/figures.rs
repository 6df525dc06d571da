//! Which mail hosts share a pace, and how fast each group of them may be asked.
//!
//! A big provider's hosts, known by the ends of their names, are one group; any other host is its own,
//! by its address, as many domains' names lead to one machine.

use std::net::IpAddr;
use std::sync::Arc;

/// How fast one group may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Recipients named in a minute.
    pub recipients_per_minute: u32,
    /// Connections opened in a minute.
    pub connections_per_minute: u32,
    /// Connections at once.
    pub connections: usize,
}

/// Hosts that share one pace.
#[derive(Debug, Clone)]
pub struct Together {
    /// What the group is called.
    pub name: String,
    /// Ends of its hosts' names.
    pub hosts: Vec<String>,
    /// How fast.
    pub figures: Figures,
}

/// Every group's figures.
#[derive(Debug, Clone)]
pub struct Figured {
    /// Of a host that is in no group.
    pub usual: Figures,
    /// Big providers.
    pub together: Vec<Together>,
}

impl Figured {
    /// The group that the mail host `name` at `ip` belongs to.
    pub fn group(&self, name: &str, ip: IpAddr) -> (Arc<str>, Figures) {
        let fits = |end: &str| {
            let end = end.trim_matches('.');
            let before = name.len().checked_sub(end.len()).filter(|at| name.is_char_boundary(*at));
            before.is_some_and(|at| {
                name[at..].eq_ignore_ascii_case(end) && (at == 0 || name[..at].ends_with('.'))
            })
        };
        let longest = self
            .together
            .iter()
            .flat_map(|group| group.hosts.iter().map(move |end| (end, group)))
            .filter(|(end, _)| fits(end))
            .max_by_key(|(end, _)| end.len());
        match longest {
            Some((_, group)) => (group.name.as_str().into(), group.figures),
            None => (ip.to_string().into(), self.usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures =
        Figures { recipients_per_minute: 60, connections_per_minute: 60, connections: 2 };

    #[test]
    fn the_longest_end_of_the_name_decides() {
        let together = |name: &str, end: &str| Together {
            name: name.into(),
            hosts: vec![end.into()],
            figures: FIGURES,
        };
        let figured = Figured {
            usual: FIGURES,
            together: vec![
                together("business", "outlook.com"),
                together("home", ".olc.outlook.com"),
                together("search", "google.com"),
            ],
        };
        let ip = "192.0.2.7".parse().unwrap();
        for (host, group) in [
            ("aspmx.l.google.com", "search"),
            ("ALT1.Google.Com", "search"),
            ("google.com", "search"),
            ("notgoogle.com", "192.0.2.7"),
            ("google.com.example", "192.0.2.7"),
            ("a-example.mail.outlook.com", "business"),
            ("outlook-com.olc.outlook.com", "home"),
            ("", "192.0.2.7"),
            ("ü.example", "192.0.2.7"),
        ] {
            assert_eq!(&*figured.group(host, ip).0, group, "{host}");
        }
    }
}
