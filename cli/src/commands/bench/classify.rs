//! `bench classify`: what it costs to tell what a mail server's reply means.
//!
//! Needs no deployment. The replies are the examples of the rules and long ones of several lines, as
//! big providers give them; each is classified anew every time, text and all.

use std::hint::black_box;
use std::time::Instant;

use listmill_worker::provider::smtp::Stage;
use listmill_worker::provider::smtp::classify::rules::RULES;
use listmill_worker::provider::smtp::classify::{of_reply, warm};
use listmill_worker::provider::smtp::reply::Reply;
use serde_json::json;

use super::Outcome;
use crate::output::{Output, grouped};

/// How often each reply is classified for one figure.
const TIMES: u32 = 200;
/// Figures of each reply; the least disturbed one counts.
const ROUNDS: usize = 25;

/// Long replies, with their codes.
const LONG: &[(u16, &str)] = &[
    (
        550,
        "5.1.1 The email account that you tried to reach does not exist. Please try\n\
         5.1.1 double-checking the recipient's email address for typos or\n\
         5.1.1 unnecessary spaces. For more information, go to\n\
         5.1.1  https://support.example.com/mail/?p=NoSuchUser a1b2c3d4e5f6g7.89 - gsmtp",
    ),
    (
        550,
        "5.7.26 This mail has been blocked because the sender is unauthenticated.\n\
         5.7.26 Our service requires all senders to authenticate with either SPF or DKIM.\n\
         5.7.26\n\
         5.7.26  Authentication results:\n\
         5.7.26  DKIM = did not pass\n\
         5.7.26  SPF [example.net] with ip: [192.0.2.1] = did not pass\n\
         5.7.26\n\
         5.7.26  For instructions on setting up authentication, go to\n\
         5.7.26  https://support.example.com/mail/answer/81126#authentication a1b2c3d4.56 - gsmtp",
    ),
    (
        550,
        "5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your\n\
         5.7.1 Internet service provider since part of their network is on our block list\n\
         5.7.1 (S3150). You can also refer your provider to\n\
         5.7.1 http://mail.example.com/mail/troubleshooting.aspx#errors.\n\
         5.7.1 [AM6EUR05FT047.eop-eur05.prod.protection.example.com]",
    ),
    (
        421,
        "4.7.0 Our system has detected an unusual rate of\n\
         4.7.0 unsolicited mail originating from your IP address. To protect our\n\
         4.7.0 users from spam, mail sent from your IP address has been temporarily\n\
         4.7.0 rate limited. Please visit\n\
         4.7.0  https://support.example.com/mail/?p=UnsolicitedRateLimitError to\n\
         4.7.0 review our Bulk Email Senders Guidelines. a1b2c3d4e5f6.78 - gsmtp",
    ),
    (
        554,
        "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.example.org;\n\
         https://www.example.org/query/ip/192.0.2.1",
    ),
    (
        552,
        "5.2.2 The email account that you tried to reach is over quota and inactive.\n\
         5.2.2 Please direct the recipient to\n\
         5.2.2  https://support.example.com/mail/?p=OverQuotaPerm a1b2c3d4e5f6.78 - gsmtp",
    ),
    (
        550,
        "Das Postfach des Empfängers existiert nicht oder wurde vom Inhaber gelöscht.\n\
         Bitte prüfen Sie die Schreibweise der Adresse <anna.weber@example.de>.\n\
         La boîte aux lettres du destinataire n'existe pas, veuillez vérifier l'adresse.",
    ),
    (550, "5.1.1 メールアドレスが見つかりません。宛先のアドレスを確認してください。"),
];

/// The replies, as they come from the parser.
fn replies() -> Vec<(Stage, Reply)> {
    let examples = RULES.iter().map(|rule| {
        let stage = rule.stages.last().copied().unwrap_or_default();
        (stage, rule.example)
    });
    let long = LONG.iter().map(|&reply| (Stage::Rcpt, reply));
    let all = examples.chain(long);
    all.map(|(stage, (code, text))| (stage, Reply::new(code, text.to_owned()))).collect()
}

pub fn run(out: &Output) -> Outcome {
    warm();
    let replies = replies();
    // In tenths of nanoseconds, and how long the reply is.
    let mut costs: Vec<(u64, usize)> = replies
        .iter()
        .map(|(stage, reply)| {
            let rounds = (0..ROUNDS).map(|_| {
                let started = Instant::now();
                for _ in 0..TIMES {
                    black_box(of_reply(*stage, black_box(reply)));
                }
                (started.elapsed() * 10 / TIMES).as_nanos() as u64
            });
            (rounds.min().unwrap_or_default(), reply.text.len())
        })
        .collect();
    costs.sort_unstable();
    let at = |percent: usize| (costs.len() * percent).div_ceil(100).saturating_sub(1);
    let shown =
        |index: usize| costs.get(index).map_or((0, 0), |&(tenths, octets)| (tenths / 10, octets));
    let [(median, _), (p90, _), (longest, octets)] = [shown(at(50)), shown(at(90)), shown(at(100))];
    out.say(format!("\n{} replies, {} of them long ones", costs.len(), LONG.len()));
    out.say(format!(
        "  median {} ns, p90 {} ns, longest {} ns (of {octets} octets)",
        grouped(median),
        grouped(p90),
        grouped(longest)
    ));
    let object = json!({
        "mode": "classify",
        "replies": costs.len(),
        "median_ns": median,
        "p90_ns": p90,
        "longest_ns": longest,
        "longest_octets": octets,
    });
    Outcome { ok: true, object }
}
