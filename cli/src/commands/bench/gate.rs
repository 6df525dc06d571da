//! `bench gate`: one question after another over keep-alive connections: the state of a task, the gate
//! alone, or whether a key of an api is valid.
//!
//! The client must be far cheaper than the server it measures on the same machine, so it speaks
//! just enough HTTP/1.1 by hand: one prepared request, one answer with a Content-Length, no
//! pipelining. Without `--rate` each connection asks as soon as it has its answer (closed loop);
//! with it, requests are due at fixed moments, and one that had to wait for its connection counts
//! from the moment it was due.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::ValueEnum as _;
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::id::RootKeyId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::latency::Latencies;
use super::process::Meter;
use super::{Bench, Outcome, report};
use crate::args::{GateArgs, Question};
use crate::output::{Output, grouped, rate};

/// An answer that is longer than this is not the one we asked for.
const LONGEST_ANSWER: usize = 64 * 1024;
/// A connection that cannot be made, or keeps breaking, gives up after this many times.
const PATIENCE: u32 = 10;
const AGAIN: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(100);

/// What one connection, or all, came to.
#[derive(Default)]
struct Tally {
    latencies: Latencies,
    refused: u64,
    broken: u64,
    /// The first thing that went wrong, for people.
    first: Option<String>,
}

impl Tally {
    fn merge(&mut self, other: Tally) {
        self.latencies.merge(&other.latencies);
        self.refused += other.refused;
        self.broken += other.broken;
        self.first = self.first.take().or(other.first);
    }
}

pub async fn run(bench: &Bench<'_>, args: &GateArgs) -> Result<Outcome> {
    let out = &bench.context.output;
    let asking = prepare(bench, args.ask).await?;
    // Connections, statements and caches of the servers are made by the first requests of their life.
    let warm = Duration::from_secs(args.warm_up);
    let warmed =
        if warm.is_zero() { Ok(()) } else { drive(out, &asking, args, warm).await.map(drop) };
    let meter = Meter::start(bench.wanted());
    let measured = Duration::from_secs(args.seconds);
    let driven = match warmed {
        Ok(()) => drive(out, &asking, args, measured).await,
        Err(error) => Err(error),
    };
    asking.clean(bench).await;
    let (tally, took) = driven?;
    let usage = meter.stop().await;
    if tally.latencies.count() == 0 {
        bail!("not one answer: {}", tally.first.unwrap_or_else(|| String::from("no reason known")));
    }
    let answers = tally.latencies.count();
    let per_second = rate(answers, took);
    out.say(format!(
        "{} requests a second over {} connections for {:.1} s: {}",
        grouped(per_second as u64),
        args.connections,
        took.as_secs_f64(),
        tally.latencies.text()
    ));
    if tally.refused + tally.broken > 0 {
        out.say(format!(
            "{} refused, {} broken; the first: {}",
            tally.refused,
            tally.broken,
            tally.first.as_deref().unwrap_or("?")
        ));
    }
    report::show_usage(out, &usage, answers, "request");
    let ok = tally.refused + tally.broken == 0;
    let object = json!({
        "mode": "gate",
        "ask": args.ask.to_possible_value().map(|value| value.get_name().to_owned()),
        "connections": args.connections,
        "rate": args.rate,
        "warm_up": args.warm_up,
        "seconds": took.as_secs_f64(),
        "requests": answers,
        "requests_per_second": per_second,
        "latency": tally.latencies.object(),
        "refused": tally.refused,
        "broken": tally.broken,
        "first_fault": tally.first,
        "cpu": report::usage_object(&usage, answers),
    });
    Ok(Outcome { ok, object })
}

/// One prepared request, over and over.
struct Asking {
    host: String,
    request: String,
    /// What a right answer holds.
    sign: &'static str,
    /// Whom the root key is to be deleted for.
    root: Option<RootKeyId>,
}

impl Asking {
    async fn clean(&self, bench: &Bench<'_>) {
        let Some(root) = self.root else { return };
        if let Err(error) = bench.app.delete_root_key(root, None, &Origin::operator()).await {
            tracing::warn!(%error, %root, "a root key was not deleted");
        }
    }
}

async fn prepare(bench: &Bench<'_>, question: Question) -> Result<Asking> {
    let host = bench.client.base().trim_start_matches("http://").to_owned();
    let get = |path: &str, key: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n")
    };
    match question {
        Question::Task => {
            let tasks = bench.submit_all(&[super::GATE_TASK]).await?.tasks;
            let task = tasks.first().context("the task is missing")?;
            let key = &bench.accounts[task.account].secret;
            let request = get(&format!("/v1/tasks/{}", task.view.id), key);
            Ok(Asking { request, host, sign: "\"status\"", root: None })
        }
        Question::Gate => {
            let key = &bench.accounts.first().context("no account was made")?.secret;
            let request = get("/v1/gate", key);
            Ok(Asking { request, host, sign: "", root: None })
        }
        Question::Verify | Question::VerifyLimit | Question::VerifyCredits => {
            verification(bench, question, host).await
        }
    }
}

/// Makes an api and a key of it, as another program would.
async fn verification(bench: &Bench<'_>, question: Question, host: String) -> Result<Asking> {
    let account = bench.accounts.first().context("no account was made")?.id;
    let (everything, by) = (vec![String::from("*")], Origin::operator());
    let (root, secret) = bench.app.create_root_key(account, "bench", everything, &by).await?;
    let ask = |method: &'static str, body: Value| {
        let secret = secret.reveal();
        async move {
            let path = format!("/v2/{method}");
            let mut answer = bench.client.post(&path, secret, &body).await?.success(method)?;
            Ok::<Value, anyhow::Error>(answer["data"].take())
        }
    };
    let api = ask("apis.createApi", json!({ "name": "bench" })).await?;
    let mut key = json!({ "apiId": api["apiId"] });
    let mut body = json!({});
    match question {
        Question::VerifyLimit => {
            body["ratelimits"] = json!([
                { "name": "requests", "limit": 1_000_000_000, "duration": 60_000 }
            ]);
        }
        Question::VerifyCredits => key["credits"] = json!({ "remaining": 1_000_000_000 }),
        _ => {}
    }
    body["key"] = ask("keys.createKey", key).await?["key"].take();
    let body = body.to_string();
    let request = format!(
        "POST /v2/keys.verifyKey HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        secret.reveal(),
        body.len()
    );
    Ok(Asking { request, host, sign: "\"code\":\"VALID\"", root: Some(root.id) })
}

/// Opens the connections and lets them ask until the time is up.
async fn drive(
    out: &Output,
    asking: &Asking,
    args: &GateArgs,
    span: Duration,
) -> Result<(Tally, Duration)> {
    let started = Instant::now();
    let end = started + span;
    let mut connections = JoinSet::new();
    for number in 0..args.connections {
        let pace = args.rate.map(|rate| {
            let gap = Duration::from_secs_f64(args.connections as f64 / rate as f64);
            // Spread out, so that the connections do not all ask at once.
            (started + gap.mul_f64(number as f64 / args.connections as f64), gap)
        });
        let (host, request) = (asking.host.clone(), asking.request.as_bytes().to_vec());
        connections.spawn(ask(host, request, asking.sign, pace, end));
    }
    let mut bar = out.progress("asking", span.as_secs(), "s");
    let mut tally = Tally::default();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(done) => tally.merge(done?),
                None => break,
            },
            _ = tick.tick() => bar.set(started.elapsed().min(span).as_secs()),
        }
    }
    let took = started.elapsed();
    bar.finish();
    Ok((tally, took))
}

/// One connection's life. `pace`: when its first request is due, and the gap between two.
async fn ask(
    host: String,
    request: Vec<u8>,
    sign: &'static str,
    pace: Option<(Instant, Duration)>,
    end: Instant,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let mut due = pace.map(|(first, _)| first);
    while Instant::now() < end && tally.broken < u64::from(PATIENCE) {
        let mut from = Instant::now();
        if let (Some(at), Some((_, gap))) = (due, pace) {
            if at >= end {
                break;
            }
            match at > from {
                // The timer's own lateness is ours, not the server's.
                true => {
                    tokio::time::sleep_until(at.into()).await;
                    from = Instant::now();
                }
                false => from = at,
            }
            due = Some(at + gap);
        }
        match exchange(&mut connection, &host, &request).await {
            Ok(status) => {
                let text = connection.as_ref().map(|c| String::from_utf8_lossy(&c.buffer));
                let text = text.unwrap_or_default();
                if status == 200 && text.contains(sign) {
                    tally.latencies.add(from.elapsed());
                } else {
                    tally.refused += 1;
                    tally.first.get_or_insert_with(|| text.into_owned());
                }
            }
            Err(error) => {
                connection = None;
                tally.broken += 1;
                tally.first.get_or_insert_with(|| format!("{error:#}"));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    tally
}

/// An open connection and what was read from it.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Its status; the answer stands in the connection's buffer.
async fn exchange(connection: &mut Option<Connection>, host: &str, request: &[u8]) -> Result<u16> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(host).await.context("cannot connect")?;
            stream.set_nodelay(true)?;
            connection.insert(Connection { stream, buffer: Vec::with_capacity(8 * 1024) })
        }
    };
    connection.stream.write_all(request).await?;
    connection.buffer.clear();
    loop {
        if let Some((status, length)) = parse(&connection.buffer)? {
            match connection.buffer.len() {
                got if got == length => return Ok(status),
                got if got > length => bail!("more bytes than the answer has"),
                _ => {}
            }
        }
        ensure!(connection.buffer.len() < LONGEST_ANSWER, "the answer is too long");
        if connection.stream.read_buf(&mut connection.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
    }
}

/// Status and whole length of an answer, once its head is there.
fn parse(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("the answer is no HTTP")?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.filter(|_| head.starts_with("HTTP/1.1 "));
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + 4 + length))),
        _ => Err(anyhow!("an answer without status or Content-Length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_measured_once_their_head_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse(answer).unwrap(), Some((200, answer.len())));
        assert_eq!(parse(&answer[..20]).unwrap(), None);
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0-x\r\nContent-Length: 2\r\n\r\n").is_err());
    }
}
