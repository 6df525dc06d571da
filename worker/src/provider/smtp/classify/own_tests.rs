use super::*;

const RULE: &str = "[[rule]]\nname = \"a-rule\"\nreason = \"blocked\"\n";

fn error(text: &str) -> String {
    OwnRules::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn reads_all_fields() {
    let rules = OwnRules::parse(
        r#"
        [[rule]]
        name = "example-busy"
        stages = ["connect", "ehlo", "mail", "rcpt"]
        code = "5xx"
        enhanced = "5.7.x"
        words = ["too busy", "Später"]
        reason = "smtp_unavailable"
        temporary = true
        why = "their support says so"
        "#,
    )
    .unwrap();
    let ask = |stage, code, text: &str| {
        rules.find(stage, &Reply::new(code, text.into()), &Folded::new(text))
    };
    let found = ask(Stage::Banner, 554, "5.7.1 we are TOO BUSY").unwrap();
    assert_eq!((found.reason, found.temporary), (Reason::SmtpUnavailable, true));
    assert!(ask(Stage::Rcpt, 550, "5.7.9 bitte spater").is_some());
    assert!(ask(Stage::Rcpt, 550, "5.1.1 too busy").is_none());
    assert!(ask(Stage::Rcpt, 450, "4.7.1 too busy").is_none());
    assert!(ask(Stage::Rcpt, 550, "5.7.1 no").is_none());
}

#[test]
fn says_what_is_wrong() {
    let with = |more: &str| format!("{RULE}{more}\n");
    let of = |reason: &str| RULE.replace("blocked", reason);
    for (text, parts) in [
        (of("accepted"), vec!["rule 1 (\"a-rule\")", "reason", "mailbox_not_found"]),
        (of("catch_all"), vec!["reason"]),
        (with("stages = [\"data\"]"), vec!["stages", "data", "rcpt"]),
        (with("stages = []"), vec!["stages", "empty"]),
        (of("mailbox_full") + "stages = [\"mail\"]", vec!["stages", "about the mailbox"]),
        (of("mailbox_full") + "stages = [\"mail\", \"rcpt\"]", vec!["about the mailbox"]),
        (with("code = \"250\""), vec!["code", "4 or 5"]),
        (with("code = \"xxx\""), vec!["code"]),
        (with("code = \"55é\""), vec!["code"]),
        (with("enhanced = \"5.7\""), vec!["enhanced", "5.7.x"]),
        (with("words = [\"--\"]"), vec!["words", "letters"]),
        (with(&format!("words = [\"{}\"]", "a".repeat(201))), vec!["words", "201", "200"]),
        (with(&format!("words = [{}]", "\"a\",".repeat(65))), vec!["words", "65", "64"]),
        (with(&format!("why = \"{}\"", "a".repeat(501))), vec!["why", "500"]),
        (format!("{RULE}{RULE}"), vec!["rule 2", "name", "differ"]),
        (RULE.replace("a-rule", "A rule"), vec!["name", "a-z"]),
        (RULE.replace("a-rule", "bare-550"), vec!["name", "program"]),
        (RULE.replace("a-rule", "hung-up"), vec!["name", "program"]),
        (with("word = \"x\""), vec!["word"]),
        ("rule = 1".into(), vec!["rule"]),
    ] {
        let error = error(&text);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
    let many: String = (0..=MAX_RULES).map(|i| RULE.replace("a-rule", &format!("r{i}"))).collect();
    assert!(error(&many).contains("at most 1000"));
}

#[test]
fn a_full_file_is_read() {
    let rule = |i: usize| {
        let words: Vec<_> = (0..MAX_WORDS).map(|w| format!("\"w{w} of {i} all\"")).collect();
        RULE.replace("a-rule", &format!("r{i}")) + &format!("words = [{}]\n", words.join(","))
    };
    let text: String = (0..MAX_RULES).map(rule).collect();
    let rules = OwnRules::parse(&text).unwrap();
    let said = "xx w7 of 999 all";
    let found = rules.find(Stage::Rcpt, &Reply::new(550, said.into()), &Folded::new(said));
    assert_eq!(found.unwrap().rule.as_str(), "r999");
}

#[test]
fn a_long_file_is_refused() {
    let path = std::env::temp_dir().join(format!("classify-long-{}.toml", std::process::id()));
    fs::write(&path, "#".repeat(MAX_FILE + 1)).unwrap();
    assert!(matches!(OwnRules::load(&path), Err(RulesError::TooLong)));
    fs::remove_file(&path).unwrap();
    assert!(matches!(OwnRules::load(&path), Err(RulesError::File(_))));
}
