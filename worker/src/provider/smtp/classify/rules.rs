//! The rules: from the top, the first match wins.
//!
//! Data: [`RULES`]. A rule matches on the stage, the reply code, the enhanced code (RFC 3463,
//! RFC 5248) and sets of phrases (see [`super::words`]); at least one of `any`, none of `unless`.
//!
//! Invariants:
//! - every reply matches a rule (the last one matches any);
//! - nothing before RCPT is about the mailbox;
//! - each rule carries a real reply that it is for, and a test that this reply reaches it and no rule
//!   above, so a new rule cannot silently shadow an old one;
//! - 5xx at RCPT is told apart by whom it is about: greylist and rate, then the sender, the host and
//!   its lists, then the mailbox, then content and policy. Codes decide where words do not.

use listmill_shared::domain::verdict::Reason;

use super::super::fault::Stage;
use super::Certainty;
use super::words::Set;

/// One rule. Patterns: `x` stands for any digit of a code and any part of an enhanced code; `*` for
/// anything, also nothing.
#[derive(Debug)]
pub struct Rule {
    /// Stable: it is evidence.
    pub name: &'static str,
    /// Where it was said.
    pub stages: &'static [Stage],
    /// Reply code.
    pub code: &'static str,
    /// Enhanced code.
    pub enhanced: &'static str,
    /// One of these; none = any text.
    pub any: &'static [Set],
    /// None of these.
    pub unless: &'static [Set],
    /// The finding.
    pub reason: Reason,
    /// Worth asking again later.
    pub temporary: bool,
    /// How safe the conclusion is.
    pub certainty: Certainty,
    /// Why it concludes so.
    pub why: &'static str,
    /// A reply that this rule is for.
    pub example: (u16, &'static str),
}

use Certainty::{Guess, Likely, Sure};
use Reason::{
    Accepted, Blocked, Greylisted, MailboxDisabled, MailboxFull, MailboxNotFound, NoMx,
    SmtpUnavailable,
};
use Set::{
    Authentication, BlockLink, BlockList, Content, Disabled, DisabledLink, Full, FullLink, Grey,
    Host, Message, Missing, MissingLink, Policy, Rate, RecipientRejected, Sender, SenderRefused,
    TooMany, TooMuch, Trouble, Unavailable, Yours,
};
use Stage::{Banner, Ehlo, Mail, Rcpt};

const TO: &[Stage] = &[Rcpt];
const BEFORE: &[Stage] = &[Banner, Ehlo, Mail];
const ANY: &[Stage] =
    &[Stage::List, Stage::Dns, Stage::Connect, Banner, Ehlo, Stage::Tls, Mail, Rcpt];

const NOW: bool = false;
const LATER: bool = true;

/// Not about the mailbox: what would make a rate, a list or a sender look like one.
const OTHERS: &[Set] = &[Rate, TooMuch, TooMany, SenderRefused, BlockList, Host, Yours];

/// `(name, stages, code, enhanced)`: for the table's lines.
type When = (&'static str, &'static [Stage], &'static str, &'static str);

const fn rule(
    (name, stages, code, enhanced): When,
    any: &'static [Set],
    unless: &'static [Set],
    (reason, temporary, certainty): (Reason, bool, Certainty),
    example: (u16, &'static str),
    why: &'static str,
) -> Rule {
    Rule { name, stages, code, enhanced, any, unless, reason, temporary, certainty, why, example }
}

/// The table.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule(("accepted", TO, "2xx", "*"), &[], &[], (Accepted, NOW, Sure),
        (250, "2.1.5 Ok"),
        "the server takes mail for the address"),

    // 4xx at any stage: nothing definitive, but for a full mailbox.
    rule(("later-mailbox-full-words", TO, "4xx", "*"), &[Full, FullLink], &[Rate, TooMuch, SenderRefused, Yours], (MailboxFull, NOW, Sure),
        (452, "4.2.2 The email account that you tried to reach is over quota"),
        "a full mailbox stays full for days, so waiting does not help"),
    rule(("later-mailbox-full-code", TO, "4xx", "4.2.2"), &[], OTHERS, (MailboxFull, NOW, Likely),
        (452, "4.2.2 Not now"),
        "the enhanced code is defined as `mailbox full`"),
    rule(("later-greylist-words", ANY, "4xx", "*"), &[Grey], &[], (Greylisted, LATER, Sure),
        (450, "4.2.0 <a@b.c>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch"),
        "the server asks every stranger to come again"),
    rule(("later-authentication-words", ANY, "4xx", "*"), &[Authentication], &[], (Blocked, LATER, Sure),
        (421, "4.7.27 Your email has been rate limited because SPF authentication didn't pass"),
        "the server does not believe who the sender is"),
    rule(("later-rate-words", ANY, "4xx", "*"), &[Rate, TooMany, TooMuch], &[], (SmtpUnavailable, LATER, Sure),
        (452, "4.5.3 Error: too many recipients"),
        "we asked too much or too fast"),
    rule(("later-block-words", ANY, "4xx", "*"), &[BlockList, Host, SenderRefused, BlockLink], &[], (Blocked, LATER, Sure),
        (450, "4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]"),
        "the server speaks of us, our host or our sender address"),
    rule(("later-trouble-words", ANY, "4xx", "4.7.x"), &[Trouble], &[Policy, Content], (Greylisted, LATER, Guess),
        (451, "4.7.1 Temporarily rejected, try again later"),
        "a security code and the wish that we come again is how most greylists answer"),
    rule(("later-policy-words", ANY, "4xx", "*"), &[Policy, Content], &[Trouble], (Blocked, LATER, Likely),
        (450, "4.7.1 <a@b.c>: Relay access denied"),
        "a refusal by policy that may be lifted"),
    rule(("later-security-code", ANY, "4xx", "4.7.1"), &[], &[], (Greylisted, LATER, Guess),
        (451, "4.7.1 Not yet"),
        "4.7.1 without further words is how most greylists answer"),
    rule(("later-storage", ANY, "452", "*"), &[], &[], (SmtpUnavailable, LATER, Likely),
        (452, "Requested action not taken: insufficient system storage"),
        "452 without words about the mailbox is about the whole system"),
    rule(("later", ANY, "4xx", "*"), &[], &[], (SmtpUnavailable, LATER, Likely),
        (450, "mailbox unavailable, try later"),
        "a 4xx reply says no more than `not now`"),

    // 5xx before the recipient was named is about us, or about the host as a whole.
    rule(("before-greylist-words", BEFORE, "5xx", "*"), &[Grey], &[], (Greylisted, LATER, Sure),
        (554, "Greylisted, come back in 5 minutes"),
        "the server asks every stranger to come again"),
    rule(("before-rate-words", BEFORE, "5xx", "*"), &[Rate, TooMany, TooMuch], &[], (SmtpUnavailable, LATER, Sure),
        (554, "Too many connections from your address"),
        "we asked too much or too fast"),
    rule(("before-syntax", BEFORE, "50x", "*"), &[], &[SenderRefused, BlockList, Host, Policy, Sender], (SmtpUnavailable, NOW, Likely),
        (502, "5.5.2 Error: command not recognized"),
        "the server does not do what we asked for"),
    rule(("before-refused", BEFORE, "5xx", "*"), &[], &[], (Blocked, NOW, Sure),
        (554, "5.7.1 mx.example: no SMTP service for 192.0.2.1"),
        "nobody was asked about yet, so the refusal is about us"),

    // 5xx to RCPT: greylists, rates, full mailboxes.
    rule(("null-mx", TO, "556", "*"), &[], &[], (NoMx, NOW, Sure),
        (556, "5.1.10 Recipient address has null MX"),
        "the domain takes no mail (RFC 7504, RFC 7505)"),
    rule(("greylist-words", TO, "5xx", "*"), &[Grey], &[], (Greylisted, LATER, Sure),
        (550, "5.7.1 Greylisted, try again in 300 seconds"),
        "the server asks every stranger to come again, with the wrong code"),
    rule(("mailbox-full-words", TO, "5xx", "*"), &[Full, FullLink], &[Rate, TooMuch, SenderRefused, Yours], (MailboxFull, NOW, Sure),
        (552, "5.1.1 Boite du destinataire pleine"),
        "words about a quota tell more than a code"),
    rule(("rate-words", TO, "5xx", "*"), &[Rate, TooMany, TooMuch], &[], (SmtpUnavailable, LATER, Sure),
        (550, "5.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery"),
        "we, or others, asked too much or too fast"),

    // About the sender and the host.
    rule(("sender-words", TO, "5xx", "*"), &[SenderRefused], &[], (Blocked, NOW, Sure),
        (550, "5.1.0 Sender denied"),
        "the sender address was turned away, whatever was asked about"),
    rule(("block-list-words", TO, "5xx", "*"), &[BlockList], &[], (Blocked, NOW, Sure),
        (550, "5.7.1 Service unavailable, client host [192.0.2.1] blocked using Spamhaus"),
        "our address is on a list"),
    rule(("host-words", TO, "5xx", "*"), &[Host], &[], (Blocked, NOW, Sure),
        (550, "5.7.25 Reverse DNS validation failed"),
        "the server speaks of our host, its name or its address"),

    // About the mailbox.
    rule(("mailbox-unknown-over-disabled", TO, "5xx", "5.1.1"), &[Disabled], &[Yours], (MailboxNotFound, NOW, Sure),
        (550, "5.1.1 account disabled"),
        "code and words both say that mail cannot arrive; the code is the stricter"),
    rule(("mailbox-unknown-words", TO, "5xx", "*"), &[Missing, MissingLink], &[Yours], (MailboxNotFound, NOW, Sure),
        (550, "5.7.1 <a@b.c>: Recipient address rejected: User unknown in virtual mailbox table"),
        "the server says in words that there is no such mailbox, whatever the enhanced code"),
    rule(("mailbox-disabled-code", TO, "525", "*"), &[], &[], (MailboxDisabled, NOW, Sure),
        (525, "5.7.13 Disabled recipient address"),
        "the code is defined as `user account disabled` (RFC 5248)"),
    rule(("mailbox-disabled-enhanced", TO, "5xx", "5.7.13"), &[], &[Yours], (MailboxDisabled, NOW, Sure),
        (550, "5.7.13 Not accepted"),
        "the enhanced code is defined as `user account disabled` (RFC 5248)"),
    rule(("mailbox-disabled-words", TO, "5xx", "*"), &[Disabled, DisabledLink], &[Yours], (MailboxDisabled, NOW, Sure),
        (554, "delivery error: This account has been suspended"),
        "the mailbox is there, but switched off"),
    rule(("mailbox-exchange", TO, "5xx", "5.4.1"), &[RecipientRejected], &[], (MailboxNotFound, NOW, Likely),
        (550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
        "Exchange Online says so of mailboxes that are not in its directory"),

    // About content and policy.
    rule(("content-words", TO, "5xx", "*"), &[Content], &[], (Blocked, NOW, Sure),
        (552, "5.2.3 Message size exceeds fixed maximum message size"),
        "content and size are never about the mailbox"),
    rule(("policy-words", TO, "5xx", "*"), &[Policy, Authentication, BlockLink], &[], (Blocked, NOW, Sure),
        (550, "relay not permitted"),
        "relaying, authentication and policy are never about the mailbox"),

    // The enhanced code.
    rule(("sender-code-syntax", TO, "5xx", "5.1.7"), &[], &[], (Blocked, NOW, Sure),
        (553, "5.1.7 Bad syntax"),
        "the enhanced code is about the sender's address"),
    rule(("sender-code-domain", TO, "5xx", "5.1.8"), &[], &[], (Blocked, NOW, Sure),
        (553, "5.1.8 Domain does not resolve"),
        "the enhanced code is about the sender's domain"),
    rule(("mailbox-unknown-code", TO, "5xx", "5.1.1"), &[], &[], (MailboxNotFound, NOW, Likely),
        (550, "5.1.1 RCP-P1"),
        "the enhanced code is defined as `no such mailbox`, and no word says otherwise"),
    rule(("sender-hint", TO, "5xx", "*"), &[Sender], &[], (Blocked, NOW, Likely),
        (550, "5.1.0 Not from this sender"),
        "the server speaks of the sender"),
    rule(("message-words", TO, "5xx", "*"), &[Message], &[], (Blocked, NOW, Likely),
        (521, "5.2.1 We do not take this message"),
        "the server speaks of a message, which was not even sent"),
    rule(("mailbox-address-code", TO, "5xx", "5.1.x"), &[], &[], (MailboxNotFound, NOW, Likely),
        (550, "#5.1.0 Address rejected."),
        "the enhanced code is about the recipient's address, and no word says otherwise"),
    rule(("mailbox-disabled-state", TO, "5xx", "5.2.1"), &[], &[Trouble], (MailboxDisabled, NOW, Likely),
        (550, "5.2.1 Not accepting"),
        "the enhanced code is defined as `mailbox disabled`, and no word says otherwise"),
    rule(("mailbox-full-code", TO, "5xx", "5.2.2"), &[], &[Trouble], (MailboxFull, NOW, Likely),
        (552, "5.2.2 Delivery failed"),
        "the enhanced code is defined as `mailbox full`, and no word says otherwise"),
    rule(("policy-code", TO, "5xx", "5.7.x"), &[], &[], (Blocked, NOW, Likely),
        (550, "5.7.1 Not accepted"),
        "the enhanced code is about security and policy"),
    rule(("mailbox-unavailable-words", TO, "5xx", "*"), &[Unavailable], &[Trouble], (MailboxNotFound, NOW, Likely),
        (550, "5.5.0 Requested action not taken: mailbox unavailable (S2017062302)"),
        "the words of RFC 5321 for 550, and most servers that use them mean a missing mailbox"),

    // The code alone.
    rule(("system-code", TO, "5xx", "5.3.x"), &[], &[], (SmtpUnavailable, NOW, Likely),
        (550, "5.3.0 Mail system trouble"),
        "the enhanced code is about the mail system"),
    rule(("route-code", TO, "5xx", "5.4.x"), &[], &[], (SmtpUnavailable, NOW, Likely),
        (554, "5.4.6 Routing failed"),
        "the enhanced code is about the way there"),
    rule(("protocol-code", TO, "5xx", "5.5.x"), &[], &[], (SmtpUnavailable, NOW, Likely),
        (503, "5.5.1 Error: need MAIL command"),
        "the enhanced code is about the dialogue"),
    rule(("content-code", TO, "5xx", "5.6.x"), &[], &[], (SmtpUnavailable, NOW, Likely),
        (550, "5.6.7 SMTPUTF8 is required"),
        "the enhanced code is about the form of the message"),
    rule(("syntax", TO, "50x", "*"), &[], &[], (SmtpUnavailable, NOW, Likely),
        (501, "Syntax error in parameters"),
        "the server does not understand the command"),
    rule(("trouble-words", TO, "5xx", "*"), &[Trouble], &[], (SmtpUnavailable, LATER, Likely),
        (554, "Service unavailable, try again later"),
        "the server speaks of its own trouble"),
    rule(("bare-550", TO, "550", "*"), &[], &[], (Blocked, NOW, Guess),
        (550, "Not here"),
        "without words about the mailbox it is a policy more often than a missing mailbox"),
    rule(("bare-552", TO, "552", "*"), &[], &[], (Blocked, NOW, Guess),
        (552, "Requested mail action aborted"),
        "without words about the mailbox it is the message's size more often than a full mailbox"),
    rule(("bare-553", TO, "553", "*"), &[], &[], (Blocked, NOW, Guess),
        (553, "Requested action not taken"),
        "without words about the mailbox it is a policy more often than a missing mailbox"),
    rule(("refused", TO, "5xx", "*"), &[], &[], (Blocked, NOW, Guess),
        (554, "Transaction failed"),
        "refused, and nothing says why"),

    rule(("nonsense", ANY, "xxx", "*"), &[], &[], (SmtpUnavailable, LATER, Guess),
        (354, "Go ahead"),
        "a reply that makes no sense here"),
];

/// What leads to a verdict without a usable reply. Its name stands in a rule's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`why` says it")]
pub enum Cause {
    Syntax,
    Disposable,
    NoDomain,
    NullMx,
    NoAddress,
    DnsFailed,
    DnsNoAnswer,
    DnsNotBelieved,
    NotPublic,
    NetworkDown,
    PutOff,
    NoConnect,
    NoAnswer,
    HungUp,
    BrokenOff,
    Garbled,
    NoSmtpUtf8,
    CatchAll,
}

impl Cause {
    /// Every cause.
    pub const ALL: &[Self] = &[
        Self::Syntax,
        Self::Disposable,
        Self::NoDomain,
        Self::NullMx,
        Self::NoAddress,
        Self::DnsFailed,
        Self::DnsNoAnswer,
        Self::DnsNotBelieved,
        Self::NotPublic,
        Self::NetworkDown,
        Self::PutOff,
        Self::NoConnect,
        Self::NoAnswer,
        Self::HungUp,
        Self::BrokenOff,
        Self::Garbled,
        Self::NoSmtpUtf8,
        Self::CatchAll,
    ];

    /// Stable: it is evidence.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What is concluded, and whether it is worth asking again.
    pub const fn finding(self) -> (Reason, bool) {
        let (_, reason, temporary, _) = self.row();
        (reason, temporary)
    }

    /// What happened.
    pub const fn why(self) -> &'static str {
        self.row().3
    }

    #[rustfmt::skip]
    const fn row(self) -> (&'static str, Reason, bool, &'static str) {
        match self {
            Self::Syntax => ("address-syntax", Reason::InvalidSyntax, NOW, "this is not a valid email address"),
            Self::Disposable => ("disposable-list", Reason::Disposable, NOW, "the domain is on the list of throw-away domains"),
            Self::NoDomain => ("dns-no-domain", Reason::NoDomain, NOW, "the domain does not exist"),
            Self::NullMx => ("dns-null-mx", NoMx, NOW, "the domain says in DNS that it takes no mail (RFC 7505)"),
            Self::NoAddress => ("dns-no-address", NoMx, NOW, "no mail host of the domain has an address"),
            Self::DnsFailed => ("dns-failed", Reason::NoConnect, LATER, "the domain's nameservers fail"),
            Self::DnsNoAnswer => ("dns-no-answer", Reason::Timeout, LATER, "no answer from DNS in time"),
            Self::DnsNotBelieved => ("dns-not-believed", Reason::NoConnect, LATER, "the resolver does not tell living domains from dead ones"),
            Self::NotPublic => ("not-public", Reason::NoConnect, NOW, "the mail host's address is in a private network"),
            Self::NetworkDown => ("network-down", Reason::NoConnect, LATER, "no mail host at all can be reached from here"),
            Self::PutOff => ("put-off", SmtpUnavailable, LATER, "the host was not asked: its pace or its patience is used up"),
            Self::NoConnect => ("no-connect", Reason::NoConnect, LATER, "nobody listens at the mail host"),
            Self::NoAnswer => ("no-answer", Reason::Timeout, LATER, "the server did not answer in time"),
            Self::HungUp => ("hung-up", SmtpUnavailable, LATER, "the server closed the connection"),
            Self::BrokenOff => ("broken-off", SmtpUnavailable, LATER, "the connection broke"),
            Self::Garbled => ("garbled", SmtpUnavailable, LATER, "what the server said is no SMTP"),
            Self::NoSmtpUtf8 => ("no-smtputf8", SmtpUnavailable, NOW, "the server does not take addresses beyond ASCII"),
            Self::CatchAll => ("catch-all", Reason::CatchAll, NOW, "the server takes a made-up mailbox of the domain as well"),
        }
    }
}
