use super::*;

const SECRET: &str = "s3cr3t-value";

fn config() -> Config {
    Config {
        url: "https://api.example.com/v1?email={email}".into(),
        key: Secret::default(),
        header: Secret::default(),
        body: Secret::default(),
        ca_file: None,
        map: "/s ok = accepted".into(),
        fields: String::new(),
        timeout: Duration::from_secs(1),
        retries: 0,
        back_off: BACK_OFF,
        rate: 0,
        concurrency: 1,
        probe_every: PROBE_EVERY,
    }
}

fn error(change: impl FnOnce(&mut Config)) -> String {
    let mut config = config();
    change(&mut config);
    match config.build(Clock::manual(0)) {
        Ok(_) => panic!("{config:?} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn mistakes_are_told_and_secrets_are_not() {
    type Change = fn(&mut Config);
    let wrong: &[(Change, &str)] = &[
        (|c| c.url = "".into(), "http_url is empty"),
        (|c| c.url = "api.example.com/{email}".into(), "https://"),
        (|c| c.url = "ftp://example.com/s3cr3t-value/{email}".into(), "https://"),
        (|c| c.url = "https://u:s3cr3t-value@example.com/{email}".into(), "Authorization: Basic"),
        (|c| c.url = "https://example.com/?key=s3cr3t-value&e={mail}".into(), "{mail}"),
        (|c| c.url = "https://example.com/?key=s3cr3t-value".into(), "{email}"),
        (|c| c.url = "https://example.com/a b?s3cr3t-value={email}".into(), "not a valid URL"),
        (|c| c.url = "https://example.com/#{email}".into(), "#"),
        (|c| c.header = "Authorization s3cr3t-value".into(), "line 1"),
        (|c| c.header = "\nX Key: s3cr3t-value".into(), "line 2"),
        (|c| c.header = "X-Key: s3cr3t-value\u{1}".into(), "character"),
        (|c| c.header = "Host: s3cr3t-value".into(), "Listmill alone"),
        (|c| c.header = "X-Key: {key}".into(), "http_key is empty"),
        (|c| c.key = SECRET.into(), "{key} stands in none"),
        (|c| c.body = "{\"key\": \"s3cr3t-value\", \"email\": {email}}".into(), "line 1"),
        (|c| c.body = "email={email}".into(), "not JSON"),
        (|c| c.map = String::new(), "http_map"),
    ];
    for (change, expect) in wrong {
        let error = error(change);
        assert!(error.contains(expect), "{expect}: {error}");
        assert!(!error.contains(SECRET), "{error}");
    }
    assert!(config().build(Clock::manual(0)).is_ok());
}

#[test]
fn a_service_may_repeat_our_secrets_and_they_are_not_shown() {
    let mut config = config();
    config.url = "https://x.test/?token=url-secret&email={email}".into();
    config.header = "Authorization: Bearer {key}\nX-Other: header-secret".into();
    config.body = "{\"id\": [\"body-secret\"]}".into();
    config.key = SECRET.into();
    let (_, reader) = config.build(Clock::manual(0)).unwrap();
    let told = format!("{SECRET}, Bearer {SECRET}, url-secret, header-secret, body-secret, words");
    let shown = reader.shown(&told, 500);
    assert!(!shown.contains("secret") && !shown.contains(SECRET), "{shown}");
    assert!(shown.ends_with("words"), "{shown}");
    let debug = format!("{config:?}");
    assert!(!debug.contains("secret") && !debug.contains(SECRET), "{debug}");
}

#[test]
fn a_file_of_authorities_must_hold_some() {
    let path = std::env::temp_dir().join(format!("listmill-ca-{}", std::process::id()));
    std::fs::write(&path, "no certificate\n").unwrap();
    let empty = error(|config| config.ca_file = Some(path.clone()));
    std::fs::remove_file(&path).unwrap();
    assert!(empty.contains("no certificate in it"), "{empty}");
    let absent = error(|config| config.ca_file = Some(path.clone()));
    assert!(absent.contains("http_ca_file") && absent.contains("listmill-ca"), "{absent}");
}
