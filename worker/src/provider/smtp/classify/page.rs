//! `docs/VERDICTS.md` against the code: its tables are made here, and compared.

use listmill_shared::domain::verdict::Reason;

use super::super::fault::Stage::{Banner, Ehlo, Mail, Rcpt};
use super::Certainty;
use super::rules::{Cause, RULES, Rule};
use super::words::Set;

const PAGE: &str = include_str!("../../../../../docs/VERDICTS.md");

/// The rules as a table (Markdown).
fn rules() -> String {
    let mut out = String::from(
        "| rule | when | verdict | certainty | why |\n| --- | --- | --- | --- | --- |\n",
    );
    for rule in RULES {
        let later = if rule.temporary { ", asked again" } else { "" };
        out += &format!(
            "| `{}` | {} | {} `{}`{later} | {} | {} |\n",
            rule.name,
            when(rule),
            rule.reason.status(),
            rule.reason,
            rule.certainty.as_str(),
            rule.why
        );
    }
    out
}

fn when(rule: &Rule) -> String {
    let at = match rule.stages {
        [Rcpt] => "RCPT",
        [Banner, Ehlo, Mail] => "before RCPT",
        _ => "any stage",
    };
    let mut out = format!("{at}, {}", rule.code);
    if rule.enhanced != "*" {
        out += &format!(", {}", rule.enhanced);
    }
    let names = |sets: &[Set]| {
        sets.iter().map(|set| format!("*{}*", name(*set))).collect::<Vec<_>>().join(" or ")
    };
    if !rule.any.is_empty() {
        out += &format!("; says {}", names(rule.any));
    }
    if !rule.unless.is_empty() {
        out += &format!("; not {}", names(rule.unless));
    }
    out
}

/// What the page calls a set.
const fn name(set: Set) -> &'static str {
    match set {
        Set::Missing => "no mailbox",
        Set::Unavailable => "mailbox unavailable",
        Set::Disabled => "mailbox disabled",
        Set::Full => "mailbox full",
        Set::RecipientRejected => "recipient rejected",
        Set::SenderRefused => "sender refused",
        Set::Sender => "sender",
        Set::Yours => "your account",
        Set::BlockList => "block list",
        Set::Host => "your host",
        Set::TooMany => "too many",
        Set::TooMuch => "too much",
        Set::Rate => "rate",
        Set::Grey => "greylist",
        Set::Trouble => "server trouble",
        Set::Content => "content",
        Set::Message => "message",
        Set::Authentication => "authentication",
        Set::Policy => "policy",
        Set::BlockLink => "link to a block list",
        Set::MissingLink => "link: no such user",
        Set::DisabledLink => "link: disabled",
        Set::FullLink => "link: over quota",
    }
}

/// What needs no reply, likewise.
fn causes() -> String {
    let mut out = String::from("| rule | verdict | what happened |\n| --- | --- | --- |\n");
    for cause in Cause::ALL {
        let (reason, temporary) = cause.finding();
        let later = if temporary { ", asked again" } else { "" };
        let status = reason.status();
        out +=
            &format!("| `{}` | {status} `{reason}`{later} | {} |\n", cause.as_str(), cause.why());
    }
    out
}

#[test]
fn the_page_shows_the_rules_of_the_code() {
    for table in [rules(), causes()] {
        assert!(PAGE.contains(&table), "docs/VERDICTS.md should hold this:\n{table}");
    }
}

#[test]
fn the_page_shows_what_was_measured() {
    let table = super::judged::matrix(&super::judged::all());
    assert!(PAGE.contains(&table), "docs/VERDICTS.md should hold this:\n{table}");
}

#[test]
fn the_page_shows_the_scores() {
    for (verdict, reason) in [
        ("risky `mailbox_full`", Reason::MailboxFull),
        ("undeliverable `mailbox_disabled`", Reason::MailboxDisabled),
        ("undeliverable `mailbox_not_found` and others", Reason::MailboxNotFound),
    ] {
        let all = [Certainty::Sure, Certainty::Likely, Certainty::Guess];
        let [sure, likely, guess] = all.map(|certainty| certainty.score(reason));
        let row = format!("| {verdict} | {sure} | {likely} | {guess} |");
        assert!(PAGE.contains(&row), "docs/VERDICTS.md should hold this:\n{row}");
    }
}
