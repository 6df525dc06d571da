//! What processes know together of mail hosts, for who looks on: nothing is changed, and nobody waits for it.
//!
//! Data: the keys of [`super::share`] and [`super::line`], found by going through the names in Redis, a bounded part
//! of them.

use std::collections::HashMap;

use redis::AsyncCommands;

use super::share::Rest;
use crate::domain::clock::Millis;
use crate::queue::{QueueError, RedisQueue};

/// Names gone through in one step, and steps.
const STEP: usize = 2_000;
const STEPS: usize = 100;

/// Hosts that share a pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A group of `pace_hosts`, else an address.
    pub name: String,
    /// Processes that have connections to it, or wait for one.
    pub processes: usize,
    /// Connections that they may have.
    pub connections: u64,
    /// What is known of its refusals.
    pub rest: Rest,
    /// How long its line of promised turns is, in milliseconds; 0 = there is none.
    pub line_ms: Millis,
}

/// Hosts that were asked lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// By name.
    pub hosts: Vec<Host>,
    /// There are more than were looked at.
    pub more: bool,
}

impl RedisQueue {
    /// Mail hosts that processes have asked within the last minutes, up to `most`.
    pub async fn mail_hosts(&self, most: usize, now: Millis) -> Result<Hosts, QueueError> {
        let (mut names, mut more) = (Vec::new(), true);
        let start = format!("{}:share:", self.namespace());
        let mut commands = self.commands();
        let mut cursor = 0_u64;
        for _ in 0..STEPS {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", escaped(&start)));
            scan.arg("COUNT").arg(STEP);
            let (next, found): (u64, Vec<String>) =
                self.in_time(scan.query_async(&mut commands)).await?;
            names
                .extend(found.iter().filter_map(|key| key.strip_prefix(&start)).map(str::to_owned));
            cursor = next;
            if cursor == 0 || names.len() > most {
                more = cursor != 0;
                break;
            }
        }
        names.sort_unstable();
        names.dedup();
        more |= names.len() > most;
        names.truncate(most);
        let mut hosts = Vec::with_capacity(names.len());
        for name in names {
            let share: HashMap<String, String> =
                self.in_time(commands.hgetall(format!("{start}{name}"))).await?;
            let line = format!("{}:line:{name}", self.namespace());
            let line: Option<String> = self.in_time(commands.get(line)).await?;
            hosts.push(host(name, &share, line.as_deref(), now));
        }
        Ok(Hosts { hosts, more })
    }
}

/// What stands for itself in a pattern of Redis.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        if matches!(sign, '*' | '?' | '[' | ']' | '^' | '\\') {
            out.push('\\');
        }
        out.push(sign);
    }
    out
}

fn host(name: String, share: &HashMap<String, String>, line: Option<&str>, now: Millis) -> Host {
    let numbers =
        |text: &str| -> Vec<i64> { text.split(' ').filter_map(|part| part.parse().ok()).collect() };
    let (mut processes, mut connections, mut rest) = (0, 0, Rest::default());
    for (field, value) in share {
        match (field.as_str(), numbers(value).as_slice()) {
            ("rest", [at, refusals, until]) => {
                let refusals = u32::try_from(*refusals).unwrap_or(u32::MAX);
                rest = Rest { at: *at, refusals, until: *until };
            }
            (_, [slots, expires]) if *expires > now => {
                processes += 1;
                connections += slots.unsigned_abs();
            }
            _ => {}
        }
    }
    let tail = line.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let line_ms = tail.map_or(0, |tail| (tail as Millis - now).max(0));
    Host { name, processes, connections, rest, line_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_from_its_share_and_its_line() {
        let fields = [("p:a", "3 2000"), ("p:b", "2 900"), ("rest", "5 2 7000"), ("x", "?")];
        let share = fields.map(|(field, value)| (field.to_owned(), value.to_owned())).into();
        let read = host(String::from("google"), &share, Some("61000.250 900"), 1_000);
        let rest = Rest { at: 5, refusals: 2, until: 7_000 };
        let name = String::from("google");
        assert_eq!(read, Host { name, processes: 1, connections: 3, rest, line_ms: 60_000 });
        assert_eq!(escaped("a[1]*:"), "a\\[1\\]\\*:");
    }
}
