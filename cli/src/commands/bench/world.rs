//! A mail world on loopback, for `bench engine`: a DNS server and one mail host for each domain.
//!
//! It shares the machine with what it measures, so it does as little as a server can. Domain number
//! `n` is served by a listener of its own at [`address`]: hosts are told apart by their addresses,
//! and the engine bounds its connections to each. No mailbox but the load's is known.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, MX};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::generate::{domain, number_of};

/// Connections that may wait to be accepted at one host.
const BACKLOG: u32 = 1024;
/// No command of ours is longer.
const LONGEST_LINE: usize = 2 * 1024;
/// How long resolvers may keep an answer, in seconds.
const TTL: u32 = 3600;

/// What the world is like.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub domains: u64,
    /// Before every reply.
    pub delay: Duration,
    /// One mailbox of a domain in so many does not exist; 0: all do.
    pub refuse_every: u64,
}

/// What the world was asked.
#[derive(Debug, Default)]
pub struct Counts {
    pub mx_queries: AtomicU64,
    pub other_queries: AtomicU64,
    pub connections: AtomicU64,
    pub target_rcpts: AtomicU64,
    pub random_rcpts: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
}

/// [`Counts`] at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Asked {
    pub mx_queries: u64,
    pub other_queries: u64,
    pub connections: u64,
    pub most_connections_at_once: u64,
    pub target_rcpts: u64,
    pub random_rcpts: u64,
}

/// A running world; ends when dropped.
pub struct World {
    pub counts: Arc<Counts>,
    _serving: JoinSet<()>,
}

/// Where the mail host of domain `n` listens.
pub fn address(n: u64) -> Ipv4Addr {
    // 127.0.0.x is left to others.
    Ipv4Addr::new(127, 77, (n / 250) as u8, (n % 250 + 1) as u8)
}

impl Manner {
    /// Does the mailbox of address `number` exist?
    pub fn knows(self, number: u64) -> bool {
        match self.refuse_every {
            0 => true,
            // A domain has every `domains`-th number.
            every => number / self.domains % every != every - 1,
        }
    }
}

impl World {
    /// Starts the DNS server at `dns` and the mail hosts at `smtp_port`.
    pub async fn start(dns: SocketAddr, smtp_port: u16, manner: Manner) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let mut serving = JoinSet::new();
        let socket =
            UdpSocket::bind(dns).await.with_context(|| format!("cannot serve DNS at {dns}"))?;
        serving.spawn(answer_dns(socket, manner, counts.clone()));
        for n in 0..manner.domains {
            let at = SocketAddr::new(address(n).into(), smtp_port);
            serving.spawn(listen(socket_at(at)?, manner, counts.clone()));
        }
        Ok(Self { counts, _serving: serving })
    }
}

impl Counts {
    /// As they are now.
    pub fn read(&self) -> Asked {
        Asked {
            mx_queries: self.mx_queries.load(Relaxed),
            other_queries: self.other_queries.load(Relaxed),
            connections: self.connections.load(Relaxed),
            most_connections_at_once: self.most_open.load(Relaxed),
            target_rcpts: self.target_rcpts.load(Relaxed),
            random_rcpts: self.random_rcpts.load(Relaxed),
        }
    }
}

fn socket_at(at: SocketAddr) -> Result<tokio::net::TcpListener> {
    let listening = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    };
    listening().with_context(|| {
        format!("cannot listen at {at} (only Linux has all of 127.0.0.0/8 by itself)")
    })
}

async fn listen(listener: tokio::net::TcpListener, manner: Manner, counts: Arc<Counts>) {
    let mut sessions = JoinSet::new();
    loop {
        // Out of sockets, or a client that was gone at once.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let counts = counts.clone();
        sessions.spawn(async move {
            counts.connections.fetch_add(1, Relaxed);
            let open = counts.open.fetch_add(1, Relaxed) + 1;
            counts.most_open.fetch_max(open, Relaxed);
            // However it ends: the client judges.
            let _ = serve(stream, manner, &counts).await;
            counts.open.fetch_sub(1, Relaxed);
        });
        while sessions.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, counts: &Counts) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    say(&mut stream, b"220 mx.bench.example ESMTP\r\n", manner.delay).await?;
    let mut input = Vec::with_capacity(512);
    let mut output = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut input).await? == 0 || input.len() > LONGEST_LINE {
            return Ok(());
        }
        let mut used = 0;
        while let Some(end) = input[used..].iter().position(|byte| *byte == b'\n') {
            let line = &input[used..used + end];
            used += end + 1;
            let (reply, last) = reply_to(line, manner, counts);
            output.extend_from_slice(reply);
            if last || !manner.delay.is_zero() {
                say(&mut stream, &output, manner.delay).await?;
                output.clear();
            }
            if last {
                return Ok(());
            }
        }
        input.drain(..used);
        // Without a delay, replies to commands that came together go out together.
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
    }
}

async fn say(stream: &mut TcpStream, reply: &[u8], delay: Duration) -> std::io::Result<()> {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    stream.write_all(reply).await
}

/// The reply, and is it the session's last?
fn reply_to(line: &[u8], manner: Manner, counts: &Counts) -> (&'static [u8], bool) {
    match line.get(..4).unwrap_or(line) {
        b"EHLO" => {
            (b"250-mx.bench.example\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n", false)
        }
        b"MAIL" => (b"250 2.1.0 Ok\r\n", false),
        b"RSET" => (b"250 2.0.0 Ok\r\n", false),
        b"RCPT" => match number_of(line.strip_prefix(b"RCPT TO:<").unwrap_or(line)) {
            None => {
                counts.random_rcpts.fetch_add(1, Relaxed);
                (b"550 5.1.1 No such user\r\n", false)
            }
            Some(number) => {
                counts.target_rcpts.fetch_add(1, Relaxed);
                match manner.knows(number) {
                    true => (b"250 2.1.5 Ok\r\n", false),
                    false => (b"550 5.1.1 No such user\r\n", false),
                }
            }
        },
        b"QUIT" => (b"221 2.0.0 Bye\r\n", true),
        _ => (b"502 5.5.2 Not here\r\n", false),
    }
}

async fn answer_dns(socket: UdpSocket, manner: Manner, counts: Arc<Counts>) {
    let mut question = [0; 512];
    loop {
        let Ok((octets, from)) = socket.recv_from(&mut question).await else { continue };
        if let Some(answer) = resolve(&question[..octets], manner, &counts) {
            // Whoever does not get it asks again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

fn resolve(question: &[u8], manner: Manner, counts: &Counts) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?;
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let asked = asked.trim_end_matches('.');
    // The host of `mail007.bench.example` is `mx.mail007.bench.example`.
    let of = asked.strip_prefix("mx.").unwrap_or(asked);
    let number = (0..manner.domains).find(|n| domain(*n) == of);
    match query.query_type() {
        RecordType::MX => counts.mx_queries.fetch_add(1, Relaxed),
        _ => counts.other_queries.fetch_add(1, Relaxed),
    };
    match (number, query.query_type()) {
        (None, _) => answer.metadata.response_code = ResponseCode::NXDomain,
        (Some(_), RecordType::MX) if asked == of => {
            let host = Name::from_ascii(format!("mx.{of}.")).ok()?;
            let mx = RData::MX(MX::new(10, host));
            answer.add_answer(Record::from_rdata(query.name().clone(), TTL, mx));
        }
        (Some(number), RecordType::A) if asked != of => {
            let a = RData::A(A(address(number)));
            answer.add_answer(Record::from_rdata(query.name().clone(), TTL, a));
        }
        _ => {}
    }
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_are_told_apart() {
        let manner = Manner { domains: 1, delay: Duration::ZERO, refuse_every: 10 };
        let counts = Counts::default();
        for (line, code) in [
            (&b"RCPT TO:<user0000000001@mail000.bench.example>\r"[..], b'2'),
            (b"RCPT TO:<user0000000019@mail000.bench.example>\r", b'5'),
            (b"RCPT TO:<qzk3vwq81xsd0a2b@mail000.bench.example>\r", b'5'),
            (b"DATA\r", b'5'),
        ] {
            assert_eq!(reply_to(line, manner, &counts).0[0], code);
        }
        let asked = counts.read();
        assert_eq!((asked.target_rcpts, asked.random_rcpts), (2, 1));
    }

    #[test]
    fn every_domain_has_an_address_of_its_own() {
        let all: std::collections::HashSet<_> = (0..1_000).map(address).collect();
        assert_eq!(all.len(), 1_000);
        assert!(all.iter().all(|ip| ip.is_loopback() && ip.octets()[3] != 0));
    }
}
