//! One address at one host: the target first, then the domain's random mailbox, over a session from
//! the pool or a new one.
//!
//! Invariant: what a recipient is told that was not the first of its session is believed only where
//! it cannot be due to that (see [`Several`]); else it is asked again as a first one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use listmill_shared::domain::verdict::{Reason, Status};
use tokio::time::timeout;

use super::catch_all::CatchAll;
use super::connection::Connection;
use super::pool::{Host, Several, dismiss};
use super::session::{Answer, Recipient, Session};
use super::table::{Meaning, is_limit, of_fault, of_reply};
use super::walk::{Budget, Outcome, is_public};
use super::{Evidence, Fault, FaultKind, Smtp, Stage};

/// How long TLS is left alone at a host where a handshake failed.
const NO_TLS: Duration = Duration::from_secs(3600);
/// With less time than this left, the random mailbox is not asked about.
const TIME_FOR_RANDOM: Duration = Duration::from_millis(500);
/// Octets of what was said of the random mailbox.
const RANDOM_TEXT: usize = 200;

impl Smtp {
    /// `Err`: try the next.
    pub(super) async fn ask_address(
        &self,
        ip: IpAddr,
        to: Recipient<'_>,
        budget: &mut Budget,
        seen: &mut Evidence,
    ) -> Result<Outcome, Meaning> {
        seen.stage = Stage::Connect;
        if !self.config.private_hosts && !is_public(ip) {
            seen.note_text("the mail host's address is not a public one");
            return Err(Meaning { reason: Reason::NoConnect, temporary: false });
        }
        let host = self.pool.host(SocketAddr::new(ip, self.config.port)).await;
        // Waiting for one's turn is not the server's slowness: it has a limit of its own.
        let Ok(Ok(_permit)) = timeout(self.config.timeout, host.permits.acquire()).await else {
            seen.note_text("no free connection to the mail host");
            return Err(Meaning { reason: Reason::SmtpUnavailable, temporary: true });
        };
        if host.is_down(&self.clock) {
            seen.note_text("nobody was there a moment ago");
            return Err(Meaning { reason: Reason::NoConnect, temporary: true });
        }
        let (session, answer) = match budget.run(self.ask_target(&host, to, seen)).await {
            Some(Ok(asked)) => asked,
            Some(Err(fault)) => {
                seen.note_fault(&fault);
                return Err(of_fault(&fault));
            }
            None => {
                let fault = Fault::new(seen.stage, FaultKind::Timeout);
                seen.note_fault(&fault);
                return Err(of_fault(&fault));
            }
        };
        seen.note(&answer);
        let meaning = of_reply(answer.stage, &answer.reply);
        // It wants to be left alone, or not to be asked by us: no more over this connection.
        let mut session = Some(session);
        if answer.reply.code == 421 || meaning.reason == Reason::Blocked {
            session.take().into_iter().for_each(dismiss);
        }
        let catch_all = match meaning.reason {
            Reason::Accepted => {
                self.ask_catch_all(&host, to.domain, &mut session, budget, seen).await
            }
            Reason::MailboxNotFound => Some(false),
            _ => None,
        };
        if let Some(session) = session {
            host.give_back(session);
        }
        match answer.stage == Stage::Rcpt && answer.reply.code != 421 {
            true => Ok(Outcome { meaning, catch_all }),
            false => Err(meaning),
        }
    }

    /// An answer about `to` that can be believed, and the session that gave it.
    async fn ask_target(
        &self,
        host: &Arc<Host>,
        to: Recipient<'_>,
        seen: &mut Evidence,
    ) -> Result<(Session, Answer), Fault> {
        // Set when only the first recipient of a new session will do.
        let mut first = host.several() == Several::FirstOnly;
        let mut doubted: Option<Meaning> = None;
        loop {
            let idle = host.take(to.domain);
            let (mut session, reused) = match idle {
                Some(session) if !first => (session, true),
                other => {
                    // Its place is taken by the new one, so that connections stay within permits.
                    other.into_iter().for_each(dismiss);
                    (self.open(host, seen).await?, false)
                }
            };
            seen.stage = Stage::Rcpt;
            seen.tls = session.is_tls();
            let answer = match session.ask(to, &self.config.from, host.transaction()).await {
                Ok(answer) => answer,
                // Hung up while it was idle; that says nothing of this address.
                Err(fault) if reused && !matches!(fault.kind, FaultKind::NoSmtpUtf8) => continue,
                Err(fault) => return Err(fault),
            };
            let meaning = of_reply(answer.stage, &answer.reply);
            let later = session.recipients() > 1;
            if later && answer.reply.code == 421 {
                continue;
            }
            if later && !answer.reply.is_positive() && is_limit(&answer.reply) {
                if session.in_transaction() > 1 {
                    host.lower_transaction(session.in_transaction() - 1);
                    session.end_transaction();
                    host.give_back(session);
                } else {
                    dismiss(session);
                    first = true;
                }
                continue;
            }
            if later && is_doubtful(host, &session, meaning) {
                dismiss(session);
                doubted = Some(meaning);
                first = true;
                continue;
            }
            self.learn(host, to.domain, later, doubted, meaning).await;
            return Ok((session, answer));
        }
    }

    /// Compares what a first recipient was told with what it was told as a later one.
    async fn learn(
        &self,
        host: &Host,
        domain: &str,
        later: bool,
        doubted: Option<Meaning>,
        now: Meaning,
    ) {
        match doubted {
            Some(before) if before.reason == now.reason => host.learn(Several::Sound),
            Some(before) if before.reason != Reason::Blocked && now.reason == Reason::Accepted => {
                host.learn(Several::FirstOnly);
                // The random mailbox came second, too.
                self.catch_alls.forget(domain).await;
            }
            None if later && now.reason == Reason::Accepted => host.learn(Several::Sound),
            _ => {}
        }
    }

    async fn open(&self, host: &Host, seen: &mut Evidence) -> Result<Session, Fault> {
        let name = seen.mx.clone().unwrap_or_default();
        let (setup, stage) = (&self.setup, &mut seen.stage);
        let tls = host.may_tls(&self.clock);
        let opened = match Connection::open(setup, host.address, &name, tls, stage).await {
            Err(fault) if fault.stage == Stage::Tls => {
                host.no_tls(&self.clock, NO_TLS);
                Connection::open(setup, host.address, &name, false, stage).await
            }
            other => other,
        };
        if opened.as_ref().is_err_and(is_absent) {
            host.down(&self.clock, self.config.down_for);
        }
        opened.map(Session::new)
    }

    /// Does the domain accept everything? Asked over the target's own session, which is gone
    /// afterwards if that went wrong.
    async fn ask_catch_all(
        &self,
        host: &Arc<Host>,
        domain: &str,
        session: &mut Option<Session>,
        budget: &mut Budget,
        seen: &mut Evidence,
    ) -> Option<bool> {
        let known = match self.catch_alls.get(domain).await {
            Some(known) => known,
            None if budget.left < TIME_FOR_RANDOM => return None,
            None => {
                let mut at_random = seen.clone();
                let ask = async {
                    let (answer, said) =
                        self.ask_random(host, domain, session, &mut at_random).await;
                    CatchAll { answer, said: said.into() }
                };
                budget.run(self.catch_alls.get_or(domain, ask)).await?
            }
        };
        seen.random = Some(known.said);
        known.answer
    }

    async fn ask_random(
        &self,
        host: &Arc<Host>,
        domain: &str,
        session: &mut Option<Session>,
        seen: &mut Evidence,
    ) -> (Option<bool>, String) {
        let mailbox = self.catch_alls.mailbox(domain);
        let to = Recipient { local: &mailbox, domain };
        let unusable = |why: &dyn ToString| (None, why.to_string());
        // Out of the caller's hands while in use: if this is dropped half-way, so is the session.
        let own = match host.several() == Several::FirstOnly {
            true => {
                drop(session.take());
                self.open(host, seen).await
            }
            false => session.take().ok_or_else(|| Fault::new(Stage::Rcpt, FaultKind::Closed)),
        };
        let mut own = match own {
            Ok(own) => own,
            Err(fault) => return unusable(&fault),
        };
        let mut answer = own.ask(to, &self.config.from, host.transaction()).await;
        if matches!(&answer, Ok(a) if !a.reply.is_positive() && is_limit(&a.reply))
            && own.in_transaction() > 1
        {
            host.lower_transaction(own.in_transaction() - 1);
            own.end_transaction();
            answer = own.ask(to, &self.config.from, host.transaction()).await;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => return unusable(&fault),
        };
        let said = answer.reply.excerpt(RANDOM_TEXT);
        let accepts_all = match of_reply(answer.stage, &answer.reply).reason {
            Reason::Accepted => Some(true),
            Reason::MailboxNotFound | Reason::MailboxDisabled => Some(false),
            _ => None,
        };
        if accepts_all == Some(true) && own.recipients() > 1 {
            host.learn(Several::Sound);
        }
        if answer.reply.code != 421 {
            *session = Some(own);
        }
        (accepts_all, said)
    }
}

/// May this be said because the recipient was not the first of its session?
fn is_doubtful(host: &Host, session: &Session, meaning: Meaning) -> bool {
    match meaning.reason {
        // Too many unknown recipients may have turned the server against the session.
        Reason::Blocked => true,
        _ if host.several() != Several::Unknown => false,
        _ if meaning.temporary => session.has_accepted(),
        reason => reason.status() == Status::Undeliverable,
    }
}

/// Is nobody there? (Running out of sockets, or a proxy's trouble, is not the host's fault.)
fn is_absent(fault: &Fault) -> bool {
    use std::io::ErrorKind::{
        ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut as Late,
    };
    fault.stage == Stage::Connect
        && match &fault.kind {
            FaultKind::Timeout => true,
            FaultKind::Io(e) => {
                matches!(e.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | Late)
            }
            _ => false,
        }
}
