use super::*;
use Reason::{
    Accepted, Blocked, Greylisted, MailboxDisabled, MailboxFull, MailboxNotFound, SmtpUnavailable,
};
use Stage::{Banner, Ehlo, Mail, Rcpt};

fn reason(stage: Stage, code: u16, text: &str) -> Reason {
    of_reply(stage, &Reply::new(code, text.into())).reason
}

#[test]
fn every_rule_is_reached_by_its_example() {
    for (index, rule) in RULES.iter().enumerate() {
        let reply = Reply::new(rule.example.0, rule.example.1.into());
        for &stage in rule.stages {
            let found = find(&mut Seen::new(stage, &reply)).map(|i| RULES[i].name);
            assert_eq!(found, Some(rule.name), "{index} {stage:?} {}", rule.example.1);
        }
    }
}

#[test]
fn names_are_unique_and_plain() {
    for (index, rule) in RULES.iter().enumerate() {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(rule.name.bytes().all(plain), "{}", rule.name);
        assert!(RULES[..index].iter().all(|other| other.name != rule.name), "{}", rule.name);
        assert!(!rule.why.is_empty() && rule.code.len() == 3, "{}", rule.name);
    }
    for (index, cause) in Cause::ALL.iter().enumerate() {
        let name = cause.as_str();
        assert!(RULES.iter().all(|rule| rule.name != name), "{name}");
        assert!(Cause::ALL[..index].iter().all(|other| other.as_str() != name), "{name}");
    }
}

#[test]
fn every_reply_matches_a_rule_and_only_rcpt_is_about_a_mailbox() {
    let all = [Stage::List, Stage::Dns, Stage::Connect, Banner, Ehlo, Stage::Tls, Mail, Rcpt];
    let texts = ["", "mailbox full", "user unknown", "account disabled", "5.1.1 no", "4.2.2 no"];
    for stage in all {
        for code in 200..600 {
            for text in texts {
                let reply = Reply::new(code, text.into());
                let found = find(&mut Seen::new(stage, &reply)).unwrap();
                let status = RULES[found].reason.status();
                assert!(stage == Rcpt || status == Status::Unknown, "{stage:?} {code} {text}");
                assert!(code < 300 || status != Status::Deliverable, "{stage:?} {code} {text}");
                assert!(code >= 500 || status != Status::Undeliverable, "{stage:?} {code} {text}");
            }
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
        (Mail, FaultKind::Closed, SmtpUnavailable, true),
        (Mail, FaultKind::NoSmtpUtf8, SmtpUnavailable, false),
        (Banner, refused, Blocked, false),
    ] {
        let found = Classifier::shipped().of_fault(&Fault::new(stage, kind));
        assert_eq!((found.reason, found.temporary), (reason, temporary), "{stage:?}");
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
fn a_limit_is_about_the_session() {
    for (code, text, limit) in [
        (452, "4.5.3 Not more than 100", true),
        (550, "Too many recipients this session", true),
        (451, "too many messages, slow down", true),
        (550, "no such user", false),
        (550, "<too-many-recipients@x.y>: no", false),
    ] {
        assert_eq!(is_limit(&Reply::new(code, text.into())), limit, "{code} {text}");
    }
}

#[test]
fn facts_should_be_column() {
    for (stage, code, text, reason, temporary) in [
        (Rcpt, 450, "mailbox unavailable, try later", SmtpUnavailable, true),
        (Rcpt, 550, "5.7.1 Rejected by policy", Blocked, false),
        (Rcpt, 550, "no such user", MailboxNotFound, false),
        (Rcpt, 550, "no such user here, check the sender's list", MailboxNotFound, false),
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
        (Rcpt, 250, "ok", Accepted, false),
        (Rcpt, 550, "5.1.1 account disabled", MailboxNotFound, false),
        (Rcpt, 552, "1 Requested mail action aborted, mailbox not found", MailboxNotFound, false),
        (
            Rcpt,
            554,
            "delivery error: dd This user doesn't have a yahoo.com account",
            MailboxNotFound,
            false,
        ),
        // Where words outweigh codes.
        (Rcpt, 550, "5.7.1 user unknown", MailboxNotFound, false),
        (Rcpt, 550, "5.1.1 mailbox full", MailboxFull, false),
        (Rcpt, 550, "5.2.1 listed at zen.spamhaus.org", Blocked, false),
        (Rcpt, 550, "5.2.1 sender rejected", Blocked, false),
        (Rcpt, 550, "5.2.1 receiving mail at a rate that prevents delivery", SmtpUnavailable, true),
        (Rcpt, 525, "5.7.13 no", MailboxDisabled, false),
        (Rcpt, 452, "no", SmtpUnavailable, true),
        (Rcpt, 552, "no", Blocked, false),
        (Rcpt, 550, "no", Blocked, false),
        (Rcpt, 553, "no", Blocked, false),
    ] {
        let found = of_reply(stage, &Reply::new(code, text.into()));
        assert_eq!((found.reason, found.temporary), (reason, temporary), "{stage:?} {code} {text}");
    }
}

#[test]
fn whom_it_is_about_comes_first() {
    for (code, text, want) in [
        (550, "Verification failed for <a@b.c>\nNo such user here\nSender verify failed", Blocked),
        (553, "5.1.8 Domain of sender address does not exist", Blocked),
        (550, "5.1.0 Sender address <a@b.c> does not exist", Blocked),
        (554, "Your account has been suspended, sending is disabled", Blocked),
        (550, "You have exceeded your sending quota", Blocked),
        (550, "Too many invalid recipients from 192.0.2.1", SmtpUnavailable),
        (521, "5.2.1 We will not accept delivery of this message.", Blocked),
        (552, "5.3.4 Message size exceeds fixed limit", Blocked),
        (550, "5.1.1 Message rejected as spam", Blocked),
        (550, "5.1.1 <a@b.c>: Relay access denied", Blocked),
        (550, "5.7.1 RESOLVER.RST.AuthRequired; authentication required", Blocked),
        (550, "5.1.1 RESOLVER.ADR.RecipNotFound; not found", MailboxNotFound),
        (550, "5.5.0 Requested action not taken: mailbox unavailable", MailboxNotFound),
        (550, "Mailbox unavailable or access denied", Blocked),
        (550, "5.2.2 STOREDRV.Deliver; QuotaExceededException", MailboxFull),
        (554, "5.7.1 Your IP is listed, see https://www.spamhaus.org/query/ip/1.2.3.4", Blocked),
        (550, "5.1.1 See http://x.spamhaus.org/", Blocked),
        (550, "Invalid SPF record", Blocked),
        (550, "Invalid username or password", Blocked),
        (550, "User a@b.c not listed in Domino Directory", MailboxNotFound),
        (550, "User unknown, please check your address book", MailboxNotFound),
        (550, "Relaying denied: recipient is not local", Blocked),
        (551, "User not local; please try <a@example.net>", MailboxNotFound),
        (550, "TLS is disabled, service has been suspended", Blocked),
        (550, "No username given", Blocked),
    ] {
        assert_eq!(reason(Rcpt, code, text), want, "{code} {text}");
    }
}

#[test]
fn the_address_itself_says_nothing() {
    for who in ["full@blocked.example", "user.unknown@no-such-user.example", "spam@spamhaus.org"] {
        for (text, want) in [
            ("5.1.1 <{}>: Recipient address rejected: User unknown", MailboxNotFound),
            ("{} is not a valid mailbox", MailboxNotFound),
            ("5.2.1 <{}>: disabled account", MailboxDisabled),
            ("5.7.1 <{}>: not now", Blocked),
            ("<{}> no", Blocked),
            ("5.2.2 [{}]", MailboxFull),
        ] {
            assert_eq!(reason(Rcpt, 550, &text.replace("{}", who)), want, "{text} {who}");
        }
    }
}

#[test]
fn speaks_the_languages_of_mail() {
    for (text, want) in [
        ("Empfänger unbekannt", MailboxNotFound),
        ("Postfach existiert nicht", MailboxNotFound),
        ("Das Postfach ist voll", MailboxFull),
        ("Utilisateur inconnu", MailboxNotFound),
        ("Adresse d au moins un destinataire invalide", MailboxNotFound),
        ("Boîte aux lettres pleine", MailboxFull),
        ("El usuario no existe", MailboxNotFound),
        ("Buzón lleno", MailboxFull),
        ("Cuenta suspendida", MailboxDisabled),
        ("Usuário não encontrado", MailboxNotFound),
        ("Caixa postal cheia", MailboxFull),
        ("Conta inativa", MailboxDisabled),
        ("Utente sconosciuto", MailboxNotFound),
        ("La casella è piena", MailboxFull),
        ("Gebruiker onbekend", MailboxNotFound),
        ("Postvak is vol", MailboxFull),
        ("Nie ma takiego użytkownika", MailboxNotFound),
        ("Konto zablokowane", MailboxDisabled),
        ("Нет такого пользователя", MailboxNotFound),
        ("Почтовый ящик переполнен", MailboxFull),
        ("Пользователь заблокирован", MailboxDisabled),
        ("用户不存在", MailboxNotFound),
        ("邮箱已满", MailboxFull),
        ("宛先が存在しません", MailboxNotFound),
        ("メールボックスがいっぱいです", MailboxFull),
        ("존재하지 않는 사용자입니다", MailboxNotFound),
        ("메일함이 가득 찼습니다", MailboxFull),
        ("휴면 계정입니다", MailboxDisabled),
        ("Böyle bir kullanıcı yok", MailboxNotFound),
        ("Posta kutusu dolu", MailboxFull),
        ("Adresse IP bloquée", Blocked),
        ("Tu mensaje fue rechazado", Blocked),
    ] {
        assert_eq!(reason(Rcpt, 550, text), want, "{text}");
        assert_eq!(reason(Mail, 550, text).status(), Status::Unknown, "{text}");
    }
}

#[test]
fn scores_follow_certainty() {
    use Certainty::{Guess, Likely, Sure};
    for reason in Reason::ALL.iter().copied() {
        assert_eq!(Sure.score(reason), reason.score(), "{reason}");
        let (likely, guess) = (Likely.score(reason), Guess.score(reason));
        match reason.status() {
            Status::Unknown => assert_eq!((likely, guess), (0, 0)),
            Status::Deliverable => assert!(reason.score() > likely && likely > guess),
            Status::Undeliverable => assert!(reason.score() < likely && likely < guess),
            Status::Risky => assert!((0..=100).contains(&guess)),
        }
        assert!(reason.status() != Status::Undeliverable || guess < 20, "{reason}");
    }
}

#[test]
fn own_rules_stand_above() {
    let own = r#"
        [[rule]]
        name = "example-gone"
        code = "550"
        words = ["nobody by this name"]
        reason = "mailbox_not_found"
    "#;
    let classifier = Classifier::with(OwnRules::parse(own).unwrap());
    let ask = |stage, code, text: &str| classifier.of_reply(stage, &Reply::new(code, text.into()));
    let found = ask(Rcpt, 550, "5.7.1 Nobody  by THIS name, spam");
    assert_eq!((found.reason, found.rule.as_str()), (MailboxNotFound, "example-gone"));
    assert_eq!(ask(Rcpt, 250, "nobody by this name").reason, Accepted);
    assert_eq!(ask(Mail, 550, "nobody by this name").reason, Blocked);
    assert_eq!(ask(Rcpt, 550, "<nobody-by-this-name@b.c>").reason, Blocked);
}

#[test]
fn whatever_is_said_it_is_bounded_and_never_about_us() {
    const PIECES: &[&str] = &[
        "user ",
        "unknown ",
        "5.1.1 ",
        "<a@",
        "b.c>",
        "http://",
        "é",
        "мой ",
        "用户",
        "\u{fffd}",
        "not ",
        "listed in ",
        ".",
        "mailbox ",
        "full",
        "\n",
        "(s)",
        "e-mail",
        "'",
        "İ",
        "full> ",
        "www.",
        "%40",
    ];
    let mut seed = 7_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for _ in 0..1_000 {
        let text: String = (0..next(600)).map(|_| PIECES[next(PIECES.len())]).collect();
        let folded = Folded::new(&text);
        assert!(folded.bytes.len() <= 3 * text::MAX_READ, "{}", folded.bytes.len());
        let code = 200 + u16::try_from(next(400)).unwrap();
        let stage = [Banner, Ehlo, Mail, Rcpt][next(4)];
        let status = reason(stage, code, &text).status();
        assert!(stage == Rcpt || status == Status::Unknown, "{stage:?} {code} {text}");
        assert_eq!(status == Status::Deliverable, stage == Rcpt && code < 300, "{code} {text}");
    }
}

#[test]
fn a_refusal_without_words_is_not_held_against_us() {
    for (code, text, bare) in [
        (550, "", true),
        (550, "Not here", true),
        (553, "no", true),
        (552, "no", true),
        (550, "5.7.1 no", false),
        (550, "listed at zen.spamhaus.org", false),
        (554, "no", false),
    ] {
        let found = of_reply(Rcpt, &Reply::new(code, text.into()));
        assert_eq!((found.reason, found.is_bare()), (Blocked, bare), "{code} {text}");
        assert_ne!(found.is_bare(), found.is_about_us());
    }
    assert!(!of_reply(Rcpt, &Reply::new(550, "no such user".into())).is_about_us());
}
