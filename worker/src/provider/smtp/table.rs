//! From what a server said to what it means: the one place where that is decided.
//!
//! Data: [`ROWS`], read from the top, the first match wins. A row matches on the stage, the reply
//! code, the enhanced code (RFC 3463, RFC 5248) and words of the text, in this order of weight: a
//! row that looks at the text stands above a code's general row only where that code alone is known
//! to be ambiguous. [`of_fault`] does the same for servers that gave no reply.
//!
//! Invariants:
//! - every reply matches a row (the last rows match any);
//! - each row carries a real reply that it is for, and a test that this reply reaches it and no row
//!   above, so a new row cannot silently shadow an old one;
//! - `undeliverable` needs a permanent answer about the *recipient*; whatever may be about us (policy,
//!   block lists, the sender) is `unknown`.

use listmill_shared::domain::verdict::Reason;

use super::reply::Reply;
use super::{Fault, FaultKind, Stage};

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The finding.
    pub reason: Reason,
    /// Worth asking again later.
    pub temporary: bool,
}

/// One rule. Patterns: `x` stands for any digit of a code and any part of an enhanced code; `*` for
/// anything, also nothing; `-` for no enhanced code; no words for any text.
pub struct Row {
    stages: &'static [Stage],
    code: &'static str,
    enhanced: &'static str,
    words: &'static [&'static str],
    meaning: Meaning,
    /// A reply that this row is for.
    #[cfg_attr(not(test), expect(dead_code, reason = "the rows' tests"))]
    example: (u16, &'static str),
}

use Stage::{Banner, Ehlo, Mail, Rcpt};

const TO: &[Stage] = &[Rcpt];
const BEFORE: &[Stage] = &[Banner, Ehlo, Mail];
const ANY: &[Stage] = &[Banner, Ehlo, Mail, Rcpt];

const GREY: &[&str] = &["greylist", "graylist", "grey list", "gray list", "grey-list", "gray-list"];
const TOO_MANY: &[&str] = &[
    "too many recipients",
    "too many connections",
    "too many messages",
    "too many sessions",
    "recipients this session",
    "too fast",
    "too quickly",
    "rate limit",
    "exceeded the rate",
];
/// Those of them that are about the host as a whole.
const TOO_MUCH: &[&str] = &[
    "too many connections",
    "too many sessions",
    "too fast",
    "rate limit",
    "exceeded the rate",
    "maximum number of connections",
];
const FULL: &[&str] = &[
    "mailbox full",
    "mailbox is full",
    "inbox is full",
    "inbox full",
    "over quota",
    "overquota",
    "quota exceeded",
    "exceeded its quota",
    "exceeded storage",
    "out of storage",
    "mailbox size limit",
    "exceeds the maximum mailbox",
    "insufficient quota",
];
const DISABLED: &[&str] = &[
    "disabled",
    "deactivated",
    "inactive",
    "suspended",
    "account locked",
    "mailbox is locked",
    "not active",
    "account closed",
    "account expired",
    "discontinued",
];
const NOT_FOUND: &[&str] = &[
    "user unknown",
    "unknown user",
    "no such user",
    "no such recipient",
    "no such mailbox",
    "no such address",
    "no such person",
    "no such account",
    "no such local",
    "does not exist",
    "doesn't exist",
    "not exist",
    "mailbox not found",
    "user not found",
    "recipient not found",
    "address not found",
    "unknown recipient",
    "recipient unknown",
    "unknown address",
    "address unknown",
    "addressee unknown",
    "unknown local",
    "unknown mailbox",
    "mailbox unknown",
    "invalid recipient",
    "invalid mailbox",
    "no mailbox",
    "not a valid mailbox",
    "not a valid recipient",
    "unrouteable address",
    "doesn't have a",
    "no longer here",
    "mailbox unavailable",
    "undeliverable address",
    "unknown email",
];
const SENDER: &[&str] = &[
    "sender",
    "mail from",
    "helo",
    "ehlo",
    "reverse dns",
    "rdns",
    "reverse hostname",
    "ptr record",
    "your ip",
    "your host",
    "client host",
    "client ip",
];
const BLOCK: &[&str] = &[
    "block list",
    "blocklist",
    "blacklist",
    "black list",
    "blocked",
    "spamhaus",
    "spamcop",
    "barracuda",
    "dnsbl",
    "rbl",
    "policy",
    "reputation",
    "spam",
    "relay",
    "rcpthosts",
    "banned",
    "access denied",
    "not authorized",
    "not permitted",
    "administrative prohibition",
    "authentication required",
    "client host rejected",
    "cannot find your",
    "reverse hostname",
    "starttls",
];

const fn row(
    stages: &'static [Stage],
    code: &'static str,
    enhanced: &'static str,
    words: &'static [&'static str],
    (reason, temporary): (Reason, bool),
    example: (u16, &'static str),
) -> Row {
    Row { stages, code, enhanced, words, meaning: Meaning { reason, temporary }, example }
}

const NOW: bool = false;
const LATER: bool = true;
const NONE: &[&str] = &[];

use Reason::{
    Accepted, Blocked, Greylisted, MailboxDisabled, MailboxFull, MailboxNotFound, NoMx,
    SmtpUnavailable,
};

/// The table.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row(TO, "2xx", "*", NONE, (Accepted, NOW), (250, "2.1.5 Ok")),

    // 4xx at any stage: nothing definitive, but for a full mailbox.
    row(TO, "4xx", "4.2.2", NONE, (MailboxFull, NOW), (452, "4.2.2 The email account that you tried to reach is over quota")),
    row(ANY, "4xx", "*", GREY, (Greylisted, LATER), (450, "4.2.0 <a@b.c>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch")),
    row(ANY, "4xx", "*", TOO_MANY, (SmtpUnavailable, LATER), (452, "4.5.3 Error: too many recipients")),
    row(ANY, "4xx", "4.7.x", BLOCK, (Blocked, LATER), (450, "4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]")),
    row(ANY, "4xx", "4.7.1", NONE, (Greylisted, LATER), (451, "4.7.1 Please try again later")),
    row(TO, "45x", "4.3.x", NONE, (SmtpUnavailable, LATER), (452, "4.3.1 Insufficient system storage")),
    row(TO, "45x", "4.5.x", NONE, (SmtpUnavailable, LATER), (452, "4.5.3 Not more than 100")),
    row(TO, "45x", "*", FULL, (MailboxFull, NOW), (450, "User's mailbox is full, over quota")),
    row(TO, "452", "*", &["system storage", "system resources"], (SmtpUnavailable, LATER), (452, "Requested action not taken: insufficient system storage")),
    row(TO, "452", "*", NONE, (MailboxFull, NOW), (452, "Mailbox has no room")),
    row(ANY, "4xx", "-", BLOCK, (Blocked, LATER), (421, "Your address is listed at spamhaus, blocked for now")),
    row(ANY, "4xx", "*", NONE, (SmtpUnavailable, LATER), (450, "mailbox unavailable, try later")),

    // 5xx before the recipient was named is about us, or about the host as a whole.
    row(BEFORE, "5xx", "*", GREY, (Greylisted, LATER), (554, "Greylisted, come back in 5 minutes")),
    row(BEFORE, "5xx", "*", TOO_MANY, (SmtpUnavailable, LATER), (554, "Too many connections from your address")),
    row(BEFORE, "50x", "*", NONE, (SmtpUnavailable, NOW), (502, "5.5.2 Error: command not recognized")),
    row(&[Banner, Ehlo, Mail], "5xx", "*", NONE, (Blocked, NOW), (554, "5.7.1 mx.example: no SMTP service for 192.0.2.1")),

    // 5xx about the recipient, enhanced code first.
    row(TO, "556", "*", NONE, (NoMx, NOW), (556, "5.1.10 Recipient address has null MX")),
    row(TO, "5xx", "*", TOO_MANY, (SmtpUnavailable, LATER), (550, "5.5.3 Too many recipients this session")),
    row(TO, "5xx", "5.1.0", SENDER, (Blocked, NOW), (550, "5.1.0 Sender denied")),
    row(TO, "5xx", "5.1.7", NONE, (Blocked, NOW), (553, "5.1.7 Bad sender's mailbox address syntax")),
    row(TO, "5xx", "5.1.8", NONE, (Blocked, NOW), (553, "5.1.8 Domain of sender address does not resolve")),
    row(TO, "5xx", "5.1.x", NONE, (MailboxNotFound, NOW), (550, "5.1.1 <a@b.c>: Recipient address rejected: User unknown in virtual mailbox table")),
    row(TO, "5xx", "5.2.1", NONE, (MailboxDisabled, NOW), (550, "5.2.1 The email account that you tried to reach is disabled")),
    row(TO, "5xx", "5.2.2", NONE, (MailboxFull, NOW), (552, "5.2.2 The email account that you tried to reach is over quota")),
    row(TO, "5xx", "5.4.1", &["recipient address rejected"], (MailboxNotFound, NOW), (550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)")),
    row(TO, "5xx", "5.7.x", GREY, (Greylisted, LATER), (550, "5.7.1 Greylisted, try again in 300 seconds")),
    row(TO, "5xx", "5.7.x", NONE, (Blocked, NOW), (550, "5.7.1 Service unavailable, client host [192.0.2.1] blocked using Spamhaus")),

    // No enhanced code, or one that says little: the text.
    row(TO, "5xx", "*", GREY, (Greylisted, LATER), (550, "You have been greylisted")),
    row(TO, "5xx", "*", FULL, (MailboxFull, NOW), (554, "delivery error: mailbox is full")),
    row(TO, "5xx", "*", &["user unknown", "unknown user", "no such user"], (MailboxNotFound, NOW), (550, "no such user here, check the sender's list")),
    row(TO, "5xx", "*", SENDER, (Blocked, NOW), (550, "Sender verify failed")),
    row(TO, "5xx", "*", DISABLED, (MailboxDisabled, NOW), (554, "delivery error: This account has been suspended")),
    row(TO, "5xx", "*", NOT_FOUND, (MailboxNotFound, NOW), (550, "5.5.0 Requested action not taken: mailbox unavailable (S2017062302)")),
    row(TO, "5xx", "*", BLOCK, (Blocked, NOW), (550, "relay not permitted")),

    // The code alone.
    row(TO, "5xx", "5.3.x", NONE, (SmtpUnavailable, NOW), (550, "5.3.0 Mail system trouble")),
    row(TO, "5xx", "5.4.x", NONE, (SmtpUnavailable, NOW), (554, "5.4.6 Too many hops")),
    row(TO, "5xx", "5.5.x", NONE, (SmtpUnavailable, NOW), (503, "5.5.1 Error: need MAIL command")),
    row(TO, "5xx", "5.6.x", NONE, (SmtpUnavailable, NOW), (550, "5.6.7 SMTPUTF8 is required")),
    row(TO, "550", "*", NONE, (MailboxNotFound, NOW), (550, "Not here")),
    row(TO, "551", "*", NONE, (MailboxNotFound, NOW), (551, "User not local; please try <a@example.net>")),
    row(TO, "552", "*", NONE, (MailboxFull, NOW), (552, "Requested mail action aborted")),
    row(TO, "553", "*", NONE, (MailboxNotFound, NOW), (553, "Requested action not taken: mailbox name not allowed")),
    row(TO, "50x", "*", NONE, (SmtpUnavailable, NOW), (501, "Syntax error in parameters")),
    row(TO, "5xx", "*", NONE, (Blocked, NOW), (554, "Transaction failed")),

    // A 2xx or 3xx where it makes no sense.
    row(ANY, "xxx", "*", NONE, (SmtpUnavailable, LATER), (354, "Go ahead")),
];

/// What `reply` at `stage` means.
pub fn of_reply(stage: Stage, reply: &Reply) -> Meaning {
    match find(stage, reply) {
        Some(index) => ROWS[index].meaning,
        None => Meaning { reason: SmtpUnavailable, temporary: true },
    }
}

/// What it means that there was no usable reply.
pub fn of_fault(fault: &Fault) -> Meaning {
    let (reason, temporary) = match (&fault.kind, fault.stage) {
        (FaultKind::Refused(reply), stage) => return of_reply(stage, reply),
        // Nobody there, or nobody lets us through: the same whether refused, unreachable or silent.
        (_, Stage::Dns | Stage::Connect) => (Reason::NoConnect, true),
        (FaultKind::Timeout, _) => (Reason::Timeout, true),
        (FaultKind::NoSmtpUtf8, _) => (SmtpUnavailable, false),
        (FaultKind::Closed | FaultKind::Io(_) | FaultKind::Garbled(_), _) => {
            (SmtpUnavailable, true)
        }
    };
    Meaning { reason, temporary }
}

/// Is this about how many recipients a session or transaction may have, not about this one?
pub fn is_limit(reply: &Reply) -> bool {
    let text = reply.text.to_ascii_lowercase();
    matches!(reply.enhanced, Some(e) if (e.1, e.2) == (5, 3))
        || TOO_MANY.iter().any(|word| text.contains(word))
}

/// Does this say that we are too much for the host just now: too many connections, too fast?
/// (Exchange Online's words for that are codes from 4.7.500 to 4.7.699.)
pub fn is_too_much(reply: &Reply) -> bool {
    let throttled =
        matches!(reply.enhanced, Some(e) if (e.0, e.1) == (4, 7) && (500..700).contains(&e.2));
    reply.code == 421 || throttled || {
        let text = reply.text.to_ascii_lowercase();
        !reply.is_positive() && TOO_MUCH.iter().any(|word| text.contains(word))
    }
}

fn find(stage: Stage, reply: &Reply) -> Option<usize> {
    let text = reply.text.to_ascii_lowercase();
    ROWS.iter().position(|row| {
        row.stages.contains(&stage)
            && code_matches(row.code, reply.code)
            && enhanced_matches(row.enhanced, reply)
            && (row.words.is_empty() || row.words.iter().any(|word| text.contains(word)))
    })
}

fn code_matches(pattern: &str, code: u16) -> bool {
    let digits = [code / 100, code / 10 % 10, code % 10];
    pattern.bytes().zip(digits).all(|(p, d)| p == b'x' || u16::from(p.wrapping_sub(b'0')) == d)
}

fn enhanced_matches(pattern: &str, reply: &Reply) -> bool {
    match (pattern, reply.enhanced) {
        ("*", _) | ("-", None) => true,
        ("-", Some(_)) | (_, None) => false,
        (_, Some(found)) => pattern
            .split('.')
            .zip([u16::from(found.0), found.1, found.2])
            .all(|(part, number)| part == "x" || part.parse() == Ok(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_reached_by_its_example() {
        for (index, row) in ROWS.iter().enumerate() {
            let reply = Reply::new(row.example.0, row.example.1.into());
            for &stage in row.stages {
                let found = find(stage, &reply);
                // The shared last row of nonsense is the only one whose stages overlap on purpose.
                assert_eq!(found, Some(index), "{stage:?} {:?} {}", row.code, row.example.1);
            }
        }
    }

    #[test]
    fn every_reply_matches_a_row() {
        for stage in [Banner, Ehlo, Mail, Rcpt] {
            for code in 200..600 {
                let reply = Reply::new(code, String::new());
                let found = find(stage, &reply).unwrap();
                let reason = ROWS[found].meaning.reason;
                assert!(
                    stage == Rcpt
                        || reason.credit() == listmill_shared::domain::verdict::Credit::Refunded,
                    "{stage:?} {code} {reason}"
                );
            }
        }
    }

    #[test]
    fn faults_are_unknown_and_worth_another_try() {
        let io = || FaultKind::Io(std::io::Error::other("reset"));
        let refused = FaultKind::Refused(Reply::new(554, "5.7.1 no".into()));
        for (stage, kind, reason, temporary) in [
            (Stage::Connect, io(), Reason::NoConnect, true),
            (Stage::Connect, FaultKind::Timeout, Reason::NoConnect, true),
            (Banner, FaultKind::Timeout, Reason::Timeout, true),
            (Rcpt, FaultKind::Timeout, Reason::Timeout, true),
            (Rcpt, FaultKind::Closed, SmtpUnavailable, true),
            (Rcpt, io(), SmtpUnavailable, true),
            (Mail, FaultKind::NoSmtpUtf8, SmtpUnavailable, false),
            (Banner, refused, Blocked, false),
        ] {
            let found = of_fault(&Fault::new(stage, kind));
            assert_eq!(found, Meaning { reason, temporary }, "{stage:?}");
        }
    }

    #[test]
    fn too_much_is_about_the_host() {
        for (code, text, too_much) in [
            (421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", true),
            (
                451,
                "4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections",
                true,
            ),
            (451, "4.7.500 Server busy. Please try again later", true),
            (554, "Too many connections from your address", true),
            (450, "4.7.1 Error: rate limit exceeded", true),
            (450, "4.2.1 The user you are trying to contact is receiving mail too quickly", false),
            (452, "4.5.3 too many recipients", false),
            (451, "4.7.1 Greylisted", false),
            (250, "2.1.5 not too fast", false),
        ] {
            assert_eq!(is_too_much(&Reply::new(code, text.into())), too_much, "{code} {text}");
        }
    }

    #[test]
    fn facts_should_be_column() {
        for (stage, code, text, reason, temporary) in [
            (Rcpt, 450, "mailbox unavailable, try later", SmtpUnavailable, true),
            (Rcpt, 550, "5.7.1 Rejected by policy", Blocked, false),
            (Rcpt, 550, "no such user", MailboxNotFound, false),
            (Rcpt, 550, "5.1.1 no such user", MailboxNotFound, false),
            (Rcpt, 550, "5.2.1 mailbox disabled", MailboxDisabled, false),
            (Rcpt, 552, "5.2.2 mailbox full", MailboxFull, false),
            (Rcpt, 452, "4.2.2 mailbox full", MailboxFull, false),
            (Rcpt, 452, "mailbox full", MailboxFull, false),
            (Rcpt, 450, "4.2.0 Greylisted for 3 seconds", Greylisted, true),
            (Rcpt, 451, "4.7.1 try again", Greylisted, true),
            (Rcpt, 421, "4.3.2 shutting down", SmtpUnavailable, true),
            (Rcpt, 451, "local error", SmtpUnavailable, true),
            (Mail, 550, "5.7.1 listed on a blocklist", Blocked, false),
            (Banner, 421, "too busy", SmtpUnavailable, true),
            (Banner, 554, "no SMTP service here", Blocked, false),
            // The enhanced code outweighs the text.
            (Rcpt, 550, "5.1.1 account disabled", MailboxNotFound, false),
            (Rcpt, 550, "5.7.1 user unknown", Blocked, false),
            (
                Rcpt,
                552,
                "1 Requested mail action aborted, mailbox not found",
                MailboxNotFound,
                false,
            ),
            (
                Rcpt,
                554,
                "delivery error: dd This user doesn't have a yahoo.com account",
                MailboxNotFound,
                false,
            ),
        ] {
            let found = of_reply(stage, &Reply::new(code, text.into()));
            assert_eq!(found, Meaning { reason, temporary }, "{stage:?} {code} {text}");
        }
    }
}
