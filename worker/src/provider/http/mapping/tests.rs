use serde_json::json;

use super::*;

fn error(map: &str, fields: &str) -> String {
    match Mapping::new(map, fields) {
        Ok(_) => panic!("{map} {fields} is read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_first_line_that_fits_decides() {
    let map = "
        # trouble first; whatever it is
        /error *             = down
        /sub mailbox full    = mailbox_full
        /status valid        = accepted
        /status unknown      = greylisted later
        /status busy         = later
        /status *            = internal_error";
    let mapping = Mapping::new(map, "").unwrap();
    let says = |reason, temporary| Some(Meaning::Says { reason, temporary });
    for (answer, meaning) in [
        (json!({"status": "valid", "error": null}), says(Reason::Accepted, false)),
        (json!({"status": "VALID", "error": ""}), says(Reason::Accepted, false)),
        (json!({"status": "valid", "error": "no credit"}), Some(Meaning::Down)),
        (json!({"status": "valid", "sub": "mailbox full"}), says(Reason::MailboxFull, false)),
        (json!({"status": "unknown", "sub": ""}), says(Reason::Greylisted, true)),
        (json!({"status": "busy"}), says(Reason::SmtpUnavailable, true)),
        (json!({"status": "new word"}), says(Reason::InternalError, false)),
        (json!({"status": null}), None),
        (json!({"status": {}}), None),
        (json!([]), None),
        (json!("valid"), None),
    ] {
        assert_eq!(mapping.decide(&answer).map(|d| d.meaning), meaning, "{answer}");
    }
}

#[test]
fn words_may_be_truths_numbers_and_members_of_lists() {
    let map = "/a/0/b~1c true = accepted; /code 7 = no_mx; /flags role = catch_all";
    let mapping = Mapping::new(map, "").unwrap();
    for (answer, word) in [
        (json!({"a": [{"b/c": true}]}), Some("true")),
        (json!({"a": [{"b/c": "true"}]}), Some("true")),
        (json!({"a": [{"b/c": false}]}), None),
        (json!({"code": 7}), Some("7")),
        (json!({"code": 70}), None),
        (json!({"flags": ["dns", "role"]}), Some("role")),
        (json!({"flags": [["role"]]}), None),
        (json!({"flags": []}), None),
    ] {
        assert_eq!(mapping.decide(&answer).map(|d| d.word).as_deref(), word, "{answer}");
    }
    assert_eq!(mapping.words(&json!({"code": 70, "flags": ["x"], "else": 1})), "70 [\"x\"]");
}

#[test]
fn fields_are_read_where_they_make_sense() {
    let fields = "
        role = /role; role = /kind role; free = /list free; disposable = /disposable; catch_all = /all
        score = /quality 100
        mx = /mx; did_you_mean = /meant; smtp_code = /code";
    let mapping = Mapping::new("/s ok = accepted", fields).unwrap();
    let read = |answer: Value| mapping.verdict(&answer, Reason::Accepted, false);
    let verdict = read(json!({
        "role": "False", "list": ["free"], "disposable": 0, "all": null, "quality": 0.734,
        "mx": "mx.test", "meant": "a@gmail.com", "code": "250",
    }));
    let flags =
        Flags { role: Some(false), free: Some(true), disposable: Some(false), ..Flags::default() };
    assert_eq!(
        verdict,
        Verdict {
            flags,
            score: 73,
            mx: Some("mx.test".into()),
            did_you_mean: Some("a@gmail.com".into()),
            smtp_code: Some(250),
            ..Verdict::of(Reason::Accepted)
        }
    );
    // What makes no sense is left out.
    let verdict = read(json!({
        "role": "perhaps", "list": "no list", "quality": 3, "mx": "", "meant": "x\u{0}", "code": 9,
    }));
    let flags = Flags { free: Some(false), ..Flags::default() };
    assert_eq!(verdict, Verdict { flags, ..Verdict::of(Reason::Accepted) });
    for role in [json!({"role": true, "kind": "person"}), json!({"role": false, "kind": "role"})] {
        let verdict = read(role);
        assert_eq!((verdict.flags.role, verdict.score), (Some(true), SCORE_ROLE));
    }
}

#[test]
fn accepted_is_risky_where_everything_is_accepted_or_thrown_away() {
    let mapping =
        Mapping::new("/s ok = accepted", "catch_all = /all; disposable = /gone; score = /n")
            .unwrap();
    let reason = |answer: Value| mapping.verdict(&answer, Reason::Accepted, false).reason;
    assert_eq!(reason(json!({"all": true})), Reason::CatchAll);
    assert_eq!(reason(json!({"all": true, "gone": true})), Reason::Disposable);
    assert_eq!(reason(json!({"all": false, "gone": false})), Reason::Accepted);
    // An unknown one stays unknown, and has no score.
    let unknown = mapping.verdict(&json!({"all": true, "n": 99}), Reason::Timeout, true);
    assert_eq!((unknown.reason, unknown.score, unknown.temporary), (Reason::Timeout, 0, true));
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    for (map, fields, expect) in [
        ("", "", "http_map is empty"),
        ("/s x = timeout", "", "verdict"),
        ("/s valid = acepted", "", "mailbox_not_found"),
        ("/s valid = acepted", "", "\"acepted\""),
        ("/s valid = acepted", "", "later, down"),
        ("/s valid = accepted later", "", "definitive"),
        ("/s valid = down later", "", "unknown reason"),
        ("/s valid accepted", "", "POINTER WORD = REASON"),
        ("/s = accepted", "", "POINTER WORD = REASON"),
        ("status valid = accepted", "", "no JSON pointer"),
        ("/a~2b valid = accepted", "", "no JSON pointer"),
        ("/s valid = accepted", "roles = /r", "did_you_mean"),
        ("/s valid = accepted", "role /r", "NAME = POINTER"),
        ("/s valid = accepted", "role = r", "no JSON pointer"),
        ("/s valid = accepted", "score = /s much", "factor"),
        ("/s valid = accepted", "mx = /mx word", "nothing after"),
    ] {
        let error = error(map, fields);
        assert!(error.contains(expect), "{map} {fields}: {error}");
    }
}
