//! The real engine: asks DNS and the receiving mail server about an address (RFC 5321: EHLO, MAIL
//! FROM, RCPT TO, never DATA), and says what it found with evidence.
//!
//! ```text
//! address ─▶ lists ─▶ dns ─▶ walk: hosts in order ─▶ probe ─▶ pool ─▶ session ─▶ connection ─▶ reply
//!                                                └─ target first, then the random mailbox
//!                                                              classify: reply ─▶ rule, meaning
//! ```
//!
//! Data: a [`Finding`] is the verdict and its [`Evidence`]. Shared state is what is known of domains
//! (dns, catch-all) and of hosts (pool); all of it is a cache and may be lost.
//!
//! Invariants:
//! - one address costs at most [`Config::timeout`] of a server's slowness, plus at most as much again
//!   of waiting for its turn at each host; who waits in vain is told when to come again;
//! - dropping the future closes what it was using at once;
//! - nothing is concluded while the resolver does not tell living domains from dead ones ([`control`]);
//! - the target is asked about before the random mailbox, and no rejection is believed that a server
//!   might give to any second recipient (see [`pool::Several`]).

mod breaker;
mod catch_all;
pub mod classify;
pub(crate) mod connection;
mod control;
pub mod fault;
pub mod figures;
mod group;
mod live_rules;
mod pace;
mod pool;
mod probe;
pub mod reply;
mod session;
mod slots;
mod walk;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use listmill_shared::app::provider::{Health, Provider};
use listmill_shared::domain::address::{domain_to_ascii, split};
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::{Flags, Reason, Verdict};
use listmill_shared::throttle::look::Hosts;
use listmill_shared::throttle::pace::Pacer;
use serde::Serialize;
use tokio::sync::watch;

use crate::provider::dns::{Dns, DnsSetupError};
use crate::provider::lists::{ListError, ListFiles, LiveLists};
use crate::provider::suggest::suggest;
use breaker::Breaker;
pub use breaker::LANDMARKS;
use catch_all::CatchAlls;
use classify::own::RulesError;
use classify::rules::Cause;
use classify::{Meaning, RuleName};
use connection::Setup;
use control::Control;
pub use fault::{Fault, FaultKind, MAX_TEXT, Stage};
use live_rules::LiveRules;
pub use pool::Limits;
use pool::Pool;
use reply::Reply;
use session::{Answer, Recipient};
use walk::Outcome;

/// Chance of delivery when the server accepts the address, but would not say whether it accepts any.
const SCORE_CATCH_ALL_UNKNOWN: i16 = 80;
/// Chance of delivery to an accepted role address.
const SCORE_ROLE: i16 = 93;

/// What the engine needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` with commas; empty = the system's.
    pub nameservers: String,
    /// Port of the mail servers.
    pub port: u16,
    /// Our name in EHLO.
    pub ehlo: String,
    /// Our address in MAIL FROM; empty = the null sender.
    pub from: String,
    /// Time budget of one address.
    pub timeout: Duration,
    /// The address that we come from.
    pub source_ip: Option<IpAddr>,
    /// SOCKS5 proxy, `host:port`.
    pub socks5: Option<String>,
    /// STARTTLS where it is offered.
    pub starttls: bool,
    /// Bounds for every mail host.
    pub limits: Limits,
    /// How long a domain's catch-all answer is kept.
    pub catch_all_ttl: Duration,
    /// How long a host where nobody listened is left alone.
    pub down_for: Duration,
    /// How fast mail hosts are asked; `None` = as fast as they answer.
    pub pace: Option<figures::Figured>,
    /// Mail hosts that can be reached if any can, to tell a dead list from a dead network.
    pub landmarks: Vec<String>,
    /// How often it is tried whether mail hosts can be reached again.
    pub test_every: Duration,
    /// Domains that every honest resolver knows; none = the resolver is believed.
    pub control: Vec<String>,
    /// Ask mail hosts at loopback and private addresses too.
    pub private_hosts: bool,
    /// Lists to use instead of the shipped ones.
    pub lists: ListFiles,
    /// The operator's rules for replies, above the shipped ones.
    pub rules: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nameservers: String::new(),
            port: 25,
            ehlo: "localhost".into(),
            from: "verify@localhost".into(),
            timeout: Duration::from_secs(20),
            source_ip: None,
            socks5: None,
            starttls: true,
            limits: Limits {
                connections: 20,
                idle: Duration::from_secs(3),
                recipients: 100,
                transaction: 25,
            },
            catch_all_ttl: Duration::from_secs(3600),
            down_for: Duration::from_secs(5),
            pace: None,
            landmarks: Vec::new(),
            test_every: Duration::from_secs(30),
            control: Vec::new(),
            private_hosts: false,
            lists: ListFiles::default(),
            rules: None,
        }
    }
}

/// An engine that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// DNS.
    #[error(transparent)]
    Dns(#[from] DnsSetupError),
    /// Lists.
    #[error(transparent)]
    Lists(#[from] ListError),
    /// The operator's rules.
    #[error("classify_rules, {}: {source}", path.display())]
    Rules {
        /// Their file.
        path: PathBuf,
        /// What is wrong with it.
        source: RulesError,
    },
    /// TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A name that cannot stand in an SMTP command.
    #[error("{0:?} cannot stand in an SMTP command")]
    Name(String),
}

/// What a verdict rests on; stored as JSON with the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// How far it got.
    pub stage: Stage,
    /// The rule that says what that means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// The mail host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mx: Option<Arc<str>>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Its reply code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Its enhanced status code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<String>,
    /// Its words, or what went wrong; at most [`MAX_TEXT`] octets, printable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Was the connection encrypted?
    pub tls: bool,
    /// Mail hosts' addresses that were tried.
    pub tried: u16,
    /// What was said of the domain's random mailbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Arc<str>>,
}

impl Evidence {
    fn note(&mut self, answer: &Answer) {
        self.stage = answer.stage;
        self.note_reply(&answer.reply);
    }

    fn note_fault(&mut self, fault: &Fault) {
        self.stage = fault.stage;
        match &fault.kind {
            FaultKind::Refused(reply) => self.note_reply(reply),
            kind => self.note_text(&kind.to_string()),
        }
    }

    fn note_reply(&mut self, reply: &Reply) {
        self.code = Some(reply.code);
        self.enhanced = reply.enhanced.map(|e| e.to_string());
        self.text = Some(reply.excerpt(MAX_TEXT));
    }

    fn note_text(&mut self, text: &str) {
        self.text = Some(text[..text.floor_char_boundary(MAX_TEXT)].to_owned());
    }
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Its grounds.
    pub evidence: Evidence,
}

/// See the module.
pub struct Smtp {
    config: Config,
    setup: Arc<Setup>,
    clock: Clock,
    lists: Arc<LiveLists>,
    rules: Arc<LiveRules>,
    dns: Arc<Dns>,
    pool: Pool,
    breaker: Arc<Breaker>,
    catch_alls: Arc<CatchAlls>,
    control: Arc<Control>,
}

impl Smtp {
    /// An engine with empty caches that keeps the pace in this process. Call it inside the tokio
    /// runtime that will use it.
    pub fn new(config: Config, clock: Clock, ids: Ids) -> Result<Self, SetupError> {
        let pacer = Pacer::alone(clock.clone());
        Self::paced(config, clock, ids, pacer)
    }

    /// The same with a `pacer` that others may share.
    pub fn paced(config: Config, clock: Clock, ids: Ids, pacer: Pacer) -> Result<Self, SetupError> {
        for name in [&config.ehlo, &config.from] {
            if name.chars().any(|c| c.is_control() || c.is_whitespace() || "<>".contains(c)) {
                return Err(SetupError::Name(name.clone()));
            }
        }
        let tls = match config.starttls {
            true => Some(connection::accept_any_certificate()?),
            false => None,
        };
        let setup = Arc::new(Setup {
            ehlo: config.ehlo.clone(),
            // So that a dead first host leaves time for the next.
            connect_timeout: config.timeout / 4,
            reply_timeout: config.timeout / 2,
            source_ip: config.source_ip,
            socks5: config.socks5.clone(),
            tls,
        });
        let dns = Arc::new(Dns::new(&config.nameservers, clock.clone())?);
        classify::warm();
        let test = (config.port, config.landmarks.clone(), config.test_every);
        let breaker = Breaker::new(Arc::clone(&setup), Arc::clone(&dns), clock.clone(), test);
        let catch_alls = CatchAlls::new(config.catch_all_ttl, clock.clone(), &ids);
        let catch_alls = Arc::new(catch_alls);
        let resolvers = (Dns::new(&config.nameservers, clock.clone())?, Arc::clone(&dns));
        let (known, learnt) = (config.control.clone(), Arc::clone(&catch_alls));
        Ok(Self {
            control: Control::new(known, resolvers, learnt, Arc::clone(&breaker), ids),
            breaker,
            setup,
            lists: LiveLists::load(config.lists.clone(), clock.now())?,
            rules: LiveRules::load(config.rules.clone(), clock.now())?,
            dns,
            pool: Pool::new(config.limits, config.pace.clone(), pacer, clock.clone()),
            catch_alls,
            config,
            clock,
        })
    }

    /// Checks a canonical address.
    pub async fn check(&self, address: &str) -> Finding {
        let Some((local, domain, ascii)) = readable(address) else {
            return decided(Cause::Syntax, Flags::default());
        };
        let lists = self.lists.get(&self.clock);
        let flags = Flags {
            role: Some(lists.is_role(local)),
            free: Some(lists.is_free(&ascii)),
            disposable: Some(lists.is_disposable(&ascii)),
            ..Flags::default()
        };
        let meant = || suggest(domain, &lists).map(|meant| format!("{local}@{meant}"));
        if flags.disposable == Some(true) {
            let mut finding = decided(Cause::Disposable, flags);
            finding.verdict.did_you_mean = meant();
            return finding;
        }
        let mut evidence = Evidence::default();
        let to = Recipient { local, domain: &ascii };
        let outcome = self.walk(to, flags.free == Some(true), &mut evidence).await;
        let mut verdict = conclude(&outcome, flags, &evidence);
        evidence.rule = Some(match verdict.reason {
            Reason::CatchAll => Cause::CatchAll.into(),
            _ => outcome.meaning.rule,
        });
        if verdict.reason != Reason::Accepted {
            // A mailbox that is there needs no other suggestion.
            verdict.did_you_mean = meant();
        }
        Finding { verdict, evidence }
    }
}

impl Provider for Smtp {
    fn verify<'a>(&'a self, address: &'a str, _attempt: i16) -> BoxFuture<'a, Verdict> {
        async move {
            let Finding { verdict, evidence } = self.check(address).await;
            Verdict { detail: serde_json::to_string(&evidence).ok(), ..verdict }
        }
        .boxed()
    }

    fn name(&self) -> &'static str {
        "smtp"
    }

    fn health(&self) -> Option<watch::Receiver<Health>> {
        Some(self.breaker.health())
    }

    fn hosts(&self, most: usize) -> Option<Hosts> {
        Some(self.pool.look(most))
    }
}

/// Local part, domain, domain in ASCII form. The syntax has been checked; what could end a command
/// early is refused all the same.
fn readable(address: &str) -> Option<(&str, &str, std::borrow::Cow<'_, str>)> {
    let (local, domain) = split(address)?;
    let ascii = domain_to_ascii(domain)?;
    let safe = !address.chars().any(char::is_control) && !ascii.contains([' ', '<', '>']);
    (safe && !local.is_empty() && !ascii.is_empty()).then_some((local, domain, ascii))
}

fn decided(cause: Cause, flags: Flags) -> Finding {
    let Meaning { reason, rule, .. } = cause.into();
    let evidence = Evidence { rule: Some(rule), ..Evidence::default() };
    Finding { verdict: Verdict { flags, ..Verdict::of(reason) }, evidence }
}

fn conclude(outcome: &Outcome, flags: Flags, evidence: &Evidence) -> Verdict {
    let Meaning { reason, temporary, certainty, .. } = outcome.meaning;
    let reason = match (reason, outcome.catch_all) {
        (Reason::Accepted, Some(true)) => Reason::CatchAll,
        _ => reason,
    };
    let role = flags.role == Some(true);
    let score = match (reason, outcome.catch_all) {
        (Reason::Accepted, None) => SCORE_CATCH_ALL_UNKNOWN,
        (Reason::Accepted, _) if role => SCORE_ROLE,
        _ => certainty.score(reason),
    };
    let accepted = matches!(reason, Reason::Accepted | Reason::CatchAll);
    let mailbox = |is: Reason| match reason == is {
        true => Some(true),
        false => accepted.then_some(false),
    };
    Verdict {
        score,
        flags: Flags {
            catch_all: outcome.catch_all,
            mailbox_full: mailbox(Reason::MailboxFull),
            disabled: mailbox(Reason::MailboxDisabled),
            ..flags
        },
        mx: evidence.mx.as_deref().map(str::to_owned),
        smtp_code: evidence.code.and_then(|code| i16::try_from(code).ok()),
        temporary,
        again_in: outcome.again_in,
        ..Verdict::of(reason)
    }
}
