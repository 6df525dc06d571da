//! What must hold of the reply parser, and of the classifier behind it, whatever they are fed. Used by
//! the fuzz target and by the test that replays the corpus; both have the modules `reply`, `classify`
//! and `fault` beside this one.
//!
//! Input: two octets choose how the rest is cut into pieces; the rest comes from the server.

use std::sync::LazyLock;

use listmill_shared::domain::verdict::Status;

use super::classify::own::OwnRules;
use super::classify::{Classifier, is_limit, is_too_much};
use super::fault::Stage;
use super::reply::{MAX_LINE, MAX_REPLY, Parser, Reply, ReplyError};

/// Largest piece of the chosen cuts, beyond what one read of a connection takes.
const LARGEST: usize = 2048;
/// Octets of an excerpt.
const EXCERPT: usize = 500;
/// A replacement character for every octet of the last line.
const SLACK: usize = 3 * MAX_LINE;

/// Where replies come from.
const STAGES: &[Stage] = &[Stage::Banner, Stage::Ehlo, Stage::Tls, Stage::Mail, Stage::Rcpt];

/// With rules of an operator's that much of the corpus meets.
static OWN: LazyLock<Classifier> = LazyLock::new(|| {
    let rules = "[[rule]]\nname = \"a\"\ncode = \"55x\"\nwords = [\"user\", \"no\"]\n\
                 reason = \"mailbox_not_found\"\n\
                 [[rule]]\nname = \"b\"\nstages = [\"connect\", \"mail\"]\ncode = \"4xx\"\n\
                 reason = \"greylisted\"\ntemporary = true\n";
    Classifier::with(OwnRules::parse(rules).expect("rules"))
});

/// All replies, and why there are no more; panics where an invariant does not hold.
type Outcome = (Vec<Reply>, Option<ReplyError>);

/// Panics where an invariant does not hold.
pub fn check(data: &[u8]) {
    let Some((seed, bytes)) = data.split_first_chunk::<2>() else { return };
    let whole = parse(bytes, || bytes.len().max(1));
    let single = parse(bytes, || 1);
    let mut state = u32::from(u16::from_le_bytes(*seed)) << 1 | 1;
    let chosen = parse(bytes, || {
        // Numerical Recipes' generator: small, and the same for the same seed.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly small pieces, some large ones.
        let most = if state >> 29 == 0 { LARGEST } else { 16 };
        (state >> 16) as usize % most + 1
    });
    assert_eq!(whole, single, "one octet at a time");
    assert_eq!(whole, chosen, "in pieces");
    whole.0.iter().for_each(classify);
}

fn classify(reply: &Reply) {
    for &stage in STAGES {
        for classifier in [Classifier::shipped(), &*OWN] {
            let meaning = classifier.of_reply(stage, reply);
            let (status, class) = (meaning.reason.status(), reply.code / 100);
            let said = || format!("{stage:?} {reply:?}: {meaning:?}");
            match status {
                Status::Deliverable => assert!(stage == Stage::Rcpt && class == 2, "{}", said()),
                Status::Undeliverable => assert!(stage == Stage::Rcpt && class == 5, "{}", said()),
                Status::Risky => assert!(stage == Stage::Rcpt && class > 3, "{}", said()),
                Status::Unknown => assert!(stage != Stage::Rcpt || class != 2, "{}", said()),
            }
            let score = meaning.certainty.score(meaning.reason);
            assert!((0..=100).contains(&score), "{score}: {}", said());
            assert_eq!(classifier.of_reply(stage, reply), meaning);
        }
    }
    let _ = (is_limit(reply), is_too_much(reply));
}

fn parse(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Outcome {
    let (mut parser, mut replies, mut rest) = (Parser::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().min(rest.len()));
        rest = later;
        parser.feed(now);
        loop {
            match parser.next() {
                Ok(Some(reply)) => replies.push(judge(reply)),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
        assert!(parser.held() <= MAX_LINE + now.len() + MAX_REPLY, "{} held", parser.held());
    }
    (replies, None)
}

fn judge(reply: Reply) -> Reply {
    assert!((200..600).contains(&reply.code), "{reply:?}");
    assert!(reply.text.len() <= MAX_REPLY + SLACK, "{} octets", reply.text.len());
    assert!(!reply.text.chars().any(|c| c.is_control() && c != '\n'), "{reply:?}");
    if let Some(enhanced) = reply.enhanced {
        assert_eq!(u16::from(enhanced.0), reply.code / 100, "{reply:?}");
    }
    let excerpt = reply.excerpt(EXCERPT);
    assert!(excerpt.len() <= EXCERPT && !excerpt.contains('\n'), "{excerpt:?}");
    assert_eq!(Reply::new(reply.code, reply.text.clone()), reply);
    reply
}
