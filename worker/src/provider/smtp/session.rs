//! Recipients named over one connection, one after the other, in as few commands as the server
//! bears: one MAIL FROM for many RCPT TO of one domain, RSET before the next transaction, all that
//! is due in one write where PIPELINING (RFC 2920) is offered. DATA is never sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::connection::Connection;
use super::reply::Reply;
use super::{Fault, FaultKind, Stage};

/// A mailbox to ask about.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// Its local part.
    pub local: &'a str,
    /// Its domain in ASCII form.
    pub domain: &'a str,
}

impl Recipient<'_> {
    /// A number that stands for it, the same in every process of one build.
    pub fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.local, self.domain).hash(&mut hasher);
        hasher.finish()
    }
}

/// What a server says of a recipient, and to which command.
#[derive(Debug, Clone)]
pub struct Answer {
    /// [`Stage::Mail`] when it turned away the transaction.
    pub stage: Stage,
    /// Its words.
    pub reply: Reply,
}

struct Transaction {
    domain: Box<str>,
    utf8: bool,
    recipients: u32,
}

/// See the module.
pub struct Session {
    connection: Connection,
    transaction: Option<Transaction>,
    /// RSET is due before the next MAIL FROM.
    open: bool,
    recipients: u32,
    accepted: bool,
}

impl Session {
    /// Nothing asked yet.
    pub fn new(connection: Connection) -> Self {
        Self { connection, transaction: None, open: false, recipients: 0, accepted: false }
    }

    /// Recipients named so far.
    pub fn recipients(&self) -> u32 {
        self.recipients
    }

    /// Has any recipient been accepted?
    pub fn has_accepted(&self) -> bool {
        self.accepted
    }

    /// Recipients named in the open transaction.
    pub fn in_transaction(&self) -> u32 {
        self.transaction.as_ref().map_or(0, |t| t.recipients)
    }

    /// Is the open transaction one for `domain`?
    pub fn is_for(&self, domain: &str) -> bool {
        self.transaction.as_ref().is_some_and(|t| &*t.domain == domain)
    }

    /// Is it encrypted?
    pub fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }

    /// The next recipient starts a new transaction.
    pub fn end_transaction(&mut self) {
        self.transaction = None;
    }

    /// See [`Connection::quit`].
    pub async fn quit(self, patience: Duration) {
        self.connection.quit(patience).await;
    }

    /// Asks about `to`, from `from`, with at most `most` recipients in a transaction.
    pub async fn ask(&mut self, to: Recipient<'_>, from: &str, most: u32) -> Result<Answer, Fault> {
        let utf8 = !to.local.is_ascii();
        if utf8 && !self.connection.features().smtputf8 {
            return Err(Fault::new(Stage::Mail, FaultKind::NoSmtpUtf8));
        }
        let Recipient { local, domain } = to;
        let rcpt = format!("RCPT TO:<{local}@{domain}>\r\n");
        let fits = |t: &Transaction| &*t.domain == domain && t.utf8 == utf8 && t.recipients < most;
        self.recipients += 1;
        if let Some(transaction) = self.transaction.as_mut().filter(|t| fits(t)) {
            transaction.recipients += 1;
            let reply = self.one(&rcpt, Stage::Rcpt).await?;
            self.accepted |= reply.is_positive();
            return Ok(Answer { stage: Stage::Rcpt, reply });
        }
        self.transaction = None;
        let mail = format!("MAIL FROM:<{from}>{}\r\n", if utf8 { " SMTPUTF8" } else { "" });
        let answer = self.begin(&mail, &rcpt).await?;
        if answer.stage == Stage::Rcpt {
            self.accepted |= answer.reply.is_positive();
            let domain = domain.into();
            self.transaction = Some(Transaction { domain, utf8, recipients: 1 });
        }
        Ok(answer)
    }

    /// RSET if due, MAIL FROM, RCPT TO.
    async fn begin(&mut self, mail: &str, rcpt: &str) -> Result<Answer, Fault> {
        let reset = if self.open { "RSET\r\n" } else { "" };
        self.open = true;
        if self.connection.features().pipelining {
            let stages = [Stage::Mail, Stage::Mail, Stage::Rcpt];
            let stages = if reset.is_empty() { &stages[1..] } else { &stages[..] };
            let commands = format!("{reset}{mail}{rcpt}");
            let replies = self.connection.exchange(&commands, stages).await?;
            // The first command that was turned away is the one that counts.
            return stages
                .iter()
                .zip(replies)
                .find(|(stage, reply)| **stage == Stage::Rcpt || !reply.is_positive())
                .map(|(stage, reply)| Answer { stage: *stage, reply })
                .ok_or_else(|| Fault::new(Stage::Rcpt, FaultKind::Closed));
        }
        for command in [reset, mail].into_iter().filter(|command| !command.is_empty()) {
            let reply = self.one(command, Stage::Mail).await?;
            if !reply.is_positive() {
                return Ok(Answer { stage: Stage::Mail, reply });
            }
        }
        let reply = self.one(rcpt, Stage::Rcpt).await?;
        Ok(Answer { stage: Stage::Rcpt, reply })
    }

    async fn one(&mut self, command: &str, stage: Stage) -> Result<Reply, Fault> {
        let replies = self.connection.exchange(command, &[stage]).await?;
        replies.into_iter().next().ok_or_else(|| Fault::new(stage, FaultKind::Closed))
    }
}
