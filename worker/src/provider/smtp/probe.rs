//! One address at one host: the target first, then the domain's random mailbox, over a session from
//! the pool or a new one.
//!
//! Invariant: what a recipient is told that was not the first of its session is believed only where
//! it cannot be due to that (see [`Several`]); else it is asked again as a first one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use listmill_shared::domain::verdict::{Reason, Status};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::catch_all::CatchAll;
use super::classify::rules::Cause;
use super::classify::{Meaning, is_limit, is_too_much};
use super::connection::Connection;
use super::group::Group;
use super::pace::PutOff;
use super::pool::{Host, Several};
use super::session::{Answer, Recipient, Session};
use super::walk::{Budget, Outcome, is_public};
use super::{Evidence, Fault, FaultKind, Smtp, Stage};

/// How long TLS is left alone at a host where a handshake failed.
const NO_TLS: Duration = Duration::from_secs(3600);
/// With less time than this left, the random mailbox is not asked about.
const TIME_FOR_RANDOM: Duration = Duration::from_millis(500);
/// How long a rejection that is in doubt waits for others to clear it.
const TIME_TO_FIND_OUT: Duration = Duration::from_millis(500);
/// Octets of what was said of the random mailbox.
const RANDOM_TEXT: usize = 200;

/// A mail host and those it shares a pace with.
struct Place {
    host: Arc<Host>,
    group: Arc<Group>,
}

/// Why there is no answer.
enum Unanswered {
    /// Asked in vain.
    Fault(Fault),
    /// Not asked.
    PutOff(PutOff),
}

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<PutOff> for Unanswered {
    fn from(put_off: PutOff) -> Self {
        Self::PutOff(put_off)
    }
}

impl Smtp {
    /// `Err`: try the next.
    pub(super) async fn ask_address(
        &self,
        ip: IpAddr,
        to: Recipient<'_>,
        budget: &mut Budget,
        seen: &mut Evidence,
    ) -> Result<Outcome, Outcome> {
        seen.stage = Stage::Connect;
        if !self.config.private_hosts && !is_public(ip) {
            seen.note_text("the mail host's address is not a public one");
            return Err(Cause::NotPublic.into());
        }
        let name = seen.mx.clone().unwrap_or_default();
        let address = SocketAddr::new(ip, self.config.port);
        let (host, group) = self.pool.host(&name, address).await;
        let place = Place { host, group };
        // Waiting for one's turn is not the server's slowness: it has a limit of its own.
        let mut patience = Budget { left: self.config.timeout };
        let _turn = match place.group.turn(to, &mut patience).await {
            Ok(turn) => turn,
            Err(put_off) => return note_put_off(put_off, seen),
        };
        if place.host.is_down(&self.clock) {
            seen.note_text("nobody was there a moment ago");
            return Err(Cause::NoConnect.into());
        }
        let asked = self.ask_target(&place, to, budget, &mut patience, seen).await;
        let (session, answer, meaning) = match asked {
            Ok(asked) => asked,
            Err(Unanswered::PutOff(put_off)) => return note_put_off(put_off, seen),
            Err(Unanswered::Fault(fault)) => {
                if matches!(&fault.kind, FaultKind::Refused(reply) if is_too_much(reply)) {
                    place.group.refused();
                }
                seen.note_fault(&fault);
                return Err(self.rules.get(&self.clock).of_fault(&fault).into());
            }
        };
        seen.note(&answer);
        match is_too_much(&answer.reply) {
            true => place.group.refused(),
            false => place.group.answered(),
        }
        // It wants to be left alone, or not to be asked by us: no more over this connection.
        let mut session = Some(session);
        if answer.reply.code == 421 || meaning.is_about_us() {
            session.take().into_iter().for_each(|session| place.group.dismiss(session));
        }
        let catch_all = match meaning.reason {
            Reason::Accepted => {
                self.ask_catch_all(&place, to.domain, &mut session, budget, seen).await
            }
            Reason::MailboxNotFound => Some(false),
            _ => None,
        };
        if let Some(session) = session {
            place.group.give_back(&place.host, session);
        }
        match answer.stage == Stage::Rcpt && answer.reply.code != 421 {
            true => Ok(Outcome { catch_all, ..meaning.into() }),
            false => Err(meaning.into()),
        }
    }

    /// An answer about `to` that can be believed, what it means, and the session that gave it.
    async fn ask_target(
        &self,
        place: &Place,
        to: Recipient<'_>,
        budget: &mut Budget,
        patience: &mut Budget,
        seen: &mut Evidence,
    ) -> Result<(Session, Answer, Meaning), Unanswered> {
        let Place { host, group } = place;
        // Set when only the first recipient of a new session will do.
        let mut fresh = host.several() == Several::FirstOnly;
        let mut doubted: Option<Meaning> = None;
        let mut doubt = None;
        let mut again = false;
        loop {
            if std::mem::replace(&mut again, true)
                && patience.run(group.another_recipient()).await.is_none()
            {
                return Err(group.put_off(to).await.into());
            }
            let idle = group.session(host, to, fresh, patience).await?;
            let reused = idle.is_some();
            let mut session = match idle {
                Some(session) => session,
                None => {
                    let opened = budget.run(self.open(place, to.domain, seen)).await;
                    opened.unwrap_or_else(|| Err(late(seen)))?
                }
            };
            seen.stage = Stage::Rcpt;
            seen.tls = session.is_tls();
            let ask = session.ask(to, &self.config.from, host.transaction());
            let answer = match budget.run(ask).await.unwrap_or_else(|| Err(late(seen))) {
                Ok(answer) => answer,
                // Hung up while it was idle; that says nothing of this address.
                Err(fault) if reused && is_old_news(&fault) && !budget.left.is_zero() => continue,
                Err(fault) => return Err(fault.into()),
            };
            let meaning = self.rules.get(&self.clock).of_reply(answer.stage, &answer.reply);
            let later = session.recipients() > 1;
            if later && answer.reply.code == 421 {
                continue;
            }
            if later && !answer.reply.is_positive() && is_limit(&answer.reply) {
                if session.in_transaction() > 1 {
                    host.lower_transaction(session.in_transaction() - 1);
                    session.end_transaction();
                    group.give_back(host, session);
                } else {
                    group.dismiss(session);
                    fresh = true;
                }
                continue;
            }
            if later
                && is_doubtful(host, &session, &meaning)
                && !is_cleared(host, &meaning, budget, &mut doubt).await
            {
                group.dismiss(session);
                doubted = Some(meaning);
                fresh = true;
                continue;
            }
            self.learn(host, to.domain, later, doubted, &meaning).await;
            return Ok((session, answer, meaning));
        }
    }

    /// Compares what a first recipient was told with what it was told as a later one.
    async fn learn(
        &self,
        host: &Host,
        domain: &str,
        later: bool,
        doubted: Option<Meaning>,
        now: &Meaning,
    ) {
        match doubted {
            Some(before) if before.reason == now.reason => host.learn(Several::Sound),
            Some(before) if !before.is_about_us() && now.reason == Reason::Accepted => {
                host.learn(Several::FirstOnly);
                // The random mailbox came second, too.
                self.catch_alls.forget(domain).await;
            }
            None if later && now.reason == Reason::Accepted => host.learn(Several::Sound),
            _ => {}
        }
    }

    async fn open(
        &self,
        place: &Place,
        domain: &str,
        seen: &mut Evidence,
    ) -> Result<Session, Fault> {
        let Place { host, group } = place;
        let name = seen.mx.clone().unwrap_or_default();
        let tls = host.may_tls(&self.clock);
        let opened = match self.connect(host, domain, &name, tls, &mut seen.stage).await {
            Err(fault) if fault.stage == Stage::Tls => {
                host.no_tls(&self.clock, NO_TLS);
                group.another_connection().await;
                self.connect(host, domain, &name, false, &mut seen.stage).await
            }
            other => other,
        };
        if opened.as_ref().is_err_and(is_absent) {
            host.down(&self.clock, self.config.down_for);
        }
        opened.map(Session::new)
    }

    async fn connect(
        &self,
        host: &Host,
        domain: &str,
        name: &str,
        tls: bool,
        stage: &mut Stage,
    ) -> Result<Connection, Fault> {
        let opened = Connection::open(&self.setup, host.address, name, tls, stage).await;
        match &opened {
            Err(fault) if fault.stage == Stage::Connect => {
                self.breaker.failed(host.address, domain, fault);
            }
            _ => self.breaker.connected(),
        }
        opened
    }

    /// Does the domain accept everything? Asked over the target's own session, which is gone
    /// afterwards if that went wrong.
    async fn ask_catch_all(
        &self,
        place: &Place,
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
                        self.ask_random(place, domain, session, &mut at_random).await;
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
        place: &Place,
        domain: &str,
        session: &mut Option<Session>,
        seen: &mut Evidence,
    ) -> (Option<bool>, String) {
        let Place { host, group } = place;
        let mailbox = self.catch_alls.mailbox(domain);
        let to = Recipient { local: &mailbox, domain };
        let unusable = |why: &dyn ToString| (None, why.to_string());
        group.another_recipient().await;
        // Out of the caller's hands while in use: if this is dropped half-way, so is the session.
        let own = match host.several() == Several::FirstOnly {
            true => {
                drop(session.take());
                group.another_connection().await;
                self.open(place, domain, seen).await
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
            group.another_recipient().await;
            answer = own.ask(to, &self.config.from, host.transaction()).await;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => return unusable(&fault),
        };
        let said = answer.reply.excerpt(RANDOM_TEXT);
        let meaning = self.rules.get(&self.clock).of_reply(answer.stage, &answer.reply);
        let accepts_all = match meaning.reason {
            Reason::Accepted => Some(true),
            Reason::MailboxNotFound | Reason::MailboxDisabled => Some(false),
            // It has just taken the target, from us: what else could be the matter?
            Reason::Blocked if meaning.is_bare() => Some(false),
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

/// What becomes of an address that nobody was asked about.
fn note_put_off(put_off: PutOff, seen: &mut Evidence) -> Result<Outcome, Outcome> {
    seen.note_text(put_off.text());
    metrics::counter!("listmill_put_off_total", "why" => put_off.name()).increment(1);
    let outcome = Outcome { again_in: put_off.again_in(), ..Cause::PutOff.into() };
    match put_off {
        // Not to the next host: a backup often takes everything, and is not there for us.
        PutOff::Paced(_) | PutOff::Busy => Ok(outcome),
        PutOff::LeftAlone(_) => Err(outcome),
    }
}

/// The address's time ran out.
fn late(seen: &Evidence) -> Fault {
    Fault::new(seen.stage, FaultKind::Timeout)
}

/// May an idle session's fault have come about before it was used again?
fn is_old_news(fault: &Fault) -> bool {
    !matches!(fault.kind, FaultKind::NoSmtpUtf8)
}

/// May this be said because the recipient was not the first of its session?
fn is_doubtful(host: &Host, session: &Session, meaning: &Meaning) -> bool {
    // Too many unknown recipients may have turned the server against the session.
    if meaning.is_about_us() {
        return true;
    }
    host.several() == Several::Unknown
        && match meaning.temporary {
            true => session.has_accepted(),
            false => is_rejection(meaning),
        }
}

/// Is the recipient turned away, or may it be? A host that gives no reasons is treated as one that
/// names the mailbox, so that it is not asked about each address twice.
fn is_rejection(meaning: &Meaning) -> bool {
    meaning.reason.status() == Status::Undeliverable || meaning.is_bare()
}

/// Does somebody else find out in time that this host judges later recipients like first ones? That
/// spares it a question. Otherwise the caller asks once more, and keeps `doubt` until it knows: who
/// doubts after it waits for that.
async fn is_cleared(
    host: &Host,
    meaning: &Meaning,
    budget: &mut Budget,
    doubt: &mut Option<OwnedMutexGuard<()>>,
) -> bool {
    if !is_rejection(meaning) {
        return false;
    }
    if doubt.is_none() {
        *doubt = budget.run(host.doubt()).await;
    }
    let found = timeout(TIME_TO_FIND_OUT, host.found_out()).await;
    if found.is_ok() {
        *doubt = None;
    }
    found == Ok(Several::Sound)
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
