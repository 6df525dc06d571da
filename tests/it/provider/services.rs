//! The examples in docs/OPERATIONS.md, each against answers in its service's form.

use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::{Reason, Verdict};
use listmill_shared::settings::Settings;
use listmill_worker::provider::http::{Config, Http};
use serde_json::{Value, json};

use super::server::{Seen, Upstream, say};

/// The settings of the example that begins with `# NAME`.
pub fn example(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let title = format!("# {name}\n");
    blocks.into_iter().find(|block| block.starts_with(&title)).expect("an example").to_owned()
}

/// Its settings, with the service at `base`.
pub fn settings(name: &str, base: &str) -> Settings {
    let path = listmill_tests::scratch::folder("settings").join("listmill.toml");
    std::fs::write(&path, example(name)).expect("a file");
    let env = [("LISTMILL_HTTP_KEY".to_owned(), "the-secret-key".to_owned())];
    let mut settings = Settings::load(Some(&path), env).expect("settings");
    let url = settings.http_url.reveal();
    let host =
        url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).expect("a host");
    settings.http_url = url.replace(&format!("https://{host}"), base).as_str().into();
    settings
}

/// What the provider makes of one answer, and how it asked.
async fn ask(name: &str, answer: Value) -> (Verdict, Seen) {
    let service = Upstream::start(move |_| say(200, answer.to_string())).await;
    let settings = settings(name, &service.base());
    let provider = Http::new(&Config::from(&settings), Clock::system(), Ids::seeded(1)).unwrap();
    let verdict = provider.check("kate+x@shop.test").await.verdict;
    let seen = service.seen().remove(0);
    (verdict, seen)
}

async fn reason(name: &str, answer: Value) -> (Reason, bool) {
    let (verdict, _) = ask(name, answer).await;
    (verdict.reason, verdict.temporary)
}

#[tokio::test]
async fn zero_bounce() {
    let answer = |status: &str, sub: &str| {
        json!({"address": "kate+x@shop.test", "status": status, "sub_status": sub,
            "free_email": false, "did_you_mean": null, "mx_found": "true",
            "mx_record": "mx.shop.test", "smtp_provider": ""})
    };
    for (status, sub, want) in [
        ("valid", "", (Reason::Accepted, false)),
        ("valid", "alias_address", (Reason::Accepted, false)),
        ("invalid", "mailbox_not_found", (Reason::MailboxNotFound, false)),
        ("invalid", "mailbox_quota_exceeded", (Reason::MailboxFull, false)),
        ("invalid", "no_dns_entries", (Reason::NoDomain, false)),
        ("catch-all", "", (Reason::CatchAll, false)),
        ("do_not_mail", "disposable", (Reason::Disposable, false)),
        ("do_not_mail", "role_based", (Reason::Accepted, false)),
        ("do_not_mail", "role_based_catch_all", (Reason::CatchAll, false)),
        ("do_not_mail", "toxic", (Reason::Blocked, false)),
        ("spamtrap", "", (Reason::Blocked, false)),
        ("unknown", "greylisted", (Reason::Greylisted, true)),
        ("unknown", "", (Reason::SmtpUnavailable, false)),
    ] {
        assert_eq!(reason("ZeroBounce", answer(status, sub)).await, want, "{status} {sub}");
    }
    let (verdict, seen) = ask("ZeroBounce", answer("do_not_mail", "role_based")).await;
    assert_eq!((verdict.flags.role, verdict.flags.free), (Some(true), Some(false)));
    assert_eq!((verdict.score, verdict.mx.as_deref()), (93, Some("mx.shop.test")));
    assert_eq!(
        seen.path,
        "/v2/validate?api_key=the-secret-key&email=kate%2Bx%40shop.test&ip_address="
    );
    let refused = json!({"error": "Invalid API key or your account ran out of credits"});
    assert_eq!(reason("ZeroBounce", refused).await, (Reason::InternalError, true));
}

#[tokio::test]
async fn never_bounce() {
    let answer = |result: &str, flags: &[&str]| {
        json!({"status": "success", "result": result, "flags": flags,
            "suggested_correction": "", "execution_time": 499})
    };
    for (result, want) in [
        ("valid", (Reason::Accepted, false)),
        ("invalid", (Reason::MailboxNotFound, false)),
        ("disposable", (Reason::Disposable, false)),
        ("catchall", (Reason::CatchAll, false)),
        ("unknown", (Reason::NoConnect, true)),
        ("new", (Reason::InternalError, false)),
    ] {
        assert_eq!(reason("NeverBounce", answer(result, &["has_dns"])).await, want, "{result}");
    }
    let answer = answer("valid", &["has_dns", "role_account"]);
    let (verdict, seen) = ask("NeverBounce", answer).await;
    let flags = verdict.flags;
    assert_eq!((flags.role, flags.free, flags.disposable), (Some(true), Some(false), Some(false)));
    assert_eq!(verdict.did_you_mean, None);
    assert_eq!(seen.path, "/v4/single/check?key=the-secret-key&email=kate%2Bx%40shop.test");
    for (status, temporary) in [("auth_failure", true), ("throttle_triggered", true)] {
        let answer = json!({"status": status, "message": "…"});
        assert_eq!(reason("NeverBounce", answer).await.1, temporary, "{status}");
    }
}

#[tokio::test]
async fn kickbox() {
    let answer = |result: &str, reason: &str, accept_all: bool, disposable: bool| {
        json!({"result": result, "reason": reason, "role": false, "free": true,
            "disposable": disposable, "accept_all": accept_all, "did_you_mean": "kate@shop.example",
            "sendex": 0.85, "email": "kate+x@shop.test", "success": true, "message": null})
    };
    for (answer, want) in [
        (answer("deliverable", "accepted_email", false, false), (Reason::Accepted, false)),
        (answer("undeliverable", "rejected_email", false, false), (Reason::MailboxNotFound, false)),
        (answer("undeliverable", "invalid_domain", false, false), (Reason::NoDomain, false)),
        (answer("risky", "low_deliverability", true, false), (Reason::CatchAll, false)),
        (answer("risky", "low_quality", false, true), (Reason::Disposable, false)),
        (answer("unknown", "timeout", false, false), (Reason::Timeout, true)),
    ] {
        assert_eq!(reason("Kickbox", answer.clone()).await, want, "{answer}");
    }
    let (verdict, _) = ask("Kickbox", answer("deliverable", "accepted_email", false, false)).await;
    assert_eq!((verdict.score, verdict.flags.free), (85, Some(true)));
    assert_eq!(verdict.did_you_mean.as_deref(), Some("kate@shop.example"));
}

#[tokio::test]
async fn reacher() {
    let answer = |reachable: &str, smtp: Value| {
        json!({"input": "kate+x@shop.test", "is_reachable": reachable, "smtp": smtp,
            "misc": {"is_disposable": false, "is_role_account": true},
            "mx": {"accepts_mail": true, "records": ["mx.shop.test."]},
            "syntax": {"is_valid_syntax": true, "suggestion": null}})
    };
    let smtp = |deliverable, catch_all, full| {
        json!({"can_connect_smtp": true, "is_deliverable": deliverable, "is_disabled": false,
            "is_catch_all": catch_all, "has_full_inbox": full})
    };
    for (answer, want) in [
        (answer("safe", smtp(true, false, false)), (Reason::Accepted, false)),
        (answer("risky", smtp(true, false, false)), (Reason::Accepted, false)),
        (answer("risky", smtp(true, true, false)), (Reason::CatchAll, false)),
        (answer("risky", smtp(false, false, true)), (Reason::MailboxFull, false)),
        (answer("invalid", smtp(false, false, false)), (Reason::MailboxNotFound, false)),
        (
            answer("unknown", json!({"error": {"type": "SmtpError"}})),
            (Reason::SmtpUnavailable, true),
        ),
    ] {
        assert_eq!(reason("Reacher", answer.clone()).await, want, "{answer}");
    }
    let (verdict, seen) = ask("Reacher", answer("safe", smtp(true, false, false))).await;
    assert_eq!((verdict.flags.role, verdict.mx.as_deref()), (Some(true), Some("mx.shop.test.")));
    assert_eq!(seen.body, "{\"to_email\": \"kate+x@shop.test\"}");
    assert_eq!(seen.header("authorization"), Some("the-secret-key"));
}
