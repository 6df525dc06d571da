//! What settings take and refuse.

use super::*;

fn load(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::load(None, pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

#[test]
fn defaults_load_and_variables_override_them() {
    let settings = load(&[]).unwrap();
    assert_eq!((settings.batch_size, settings.redis_url), (500, None));
    assert!(settings.rate_limits);
    let settings = load(&[
        ("LISTMILL_BATCH_SIZE", "20"),
        ("LISTMILL_RATE_LIMITS", "off"),
        ("LISTMILL_SANDBOX_LATENCY", "50ms"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(settings.batch_size, 20);
    assert!(!settings.rate_limits);
    assert_eq!(settings.sandbox_latency, Duration::from_millis(50));
}

#[test]
fn a_file_changes_adds_to_and_keeps_the_pace_of_providers() {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("listmill-settings-{}.toml", std::process::id()));
    let text = "pace = \"off\"\n[pace_hosts.google]\nconnections = 2\n\
                [pace_hosts.own]\nhosts = [\"mx.example.net\"]\nrecipients_per_minute = 7\n";
    std::fs::write(&path, text).unwrap();
    let loaded = Settings::load(Some(&path), []);
    std::fs::remove_file(&path).unwrap();
    let (settings, shipped) = (loaded.unwrap(), load(&[]).unwrap());
    assert!(shipped.pace && !settings.pace);
    let mut want = shipped.pace_hosts.clone();
    want.get_mut("google").unwrap().connections = Some(2);
    let own = PaceHosts {
        hosts: vec!["mx.example.net".into()],
        recipients_per_minute: Some(7),
        connections_per_minute: None,
        connections: None,
    };
    want.insert("own".into(), own);
    assert_eq!(settings.pace_hosts, want);
    assert!(want.len() > 10);
}

#[test]
fn durations_have_a_unit() {
    for (text, seconds) in [("0", 0), ("0d", 0), ("90s", 90), ("2h", 7_200), ("30d", 2_592_000)] {
        assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in ["", "5", "d", "-1d", "1w", "1.5h", "999999999999999999d"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn a_misspelt_variable_is_told() {
    assert_eq!(load(&[("LISTMILL_BATCHSIZE", "20")]).unwrap().unknown, ["LISTMILL_BATCHSIZE"]);
}

#[test]
fn a_wrong_value_is_named() {
    for (name, value, expect) in [
        ("LISTMILL_BATCH_SIZE", "0", "batch_size"),
        ("LISTMILL_BATCH_SIZE", "many", "batch_size"),
        ("LISTMILL_TEST_TASK_ADDRESSES", "0", "test_task_addresses"),
        ("LISTMILL_LEASE_TTL", "30", "30"),
        ("LISTMILL_DATABASE_URL", "mysql://x", "database_url"),
        ("LISTMILL_HTTP_TIMEOUT", "50s", "http_timeout"),
        ("LISTMILL_HTTP_CONCURRENCY", "0", "http_concurrency"),
        ("LISTMILL_SMTP_HOST_RECIPIENTS_PER_MINUTE", "0", "recipients_per_minute"),
        ("LISTMILL_PACE_HOSTS", "google", "pace_hosts"),
        ("LISTMILL_REQUEST_LOG_ROWS", "0", "request_log_rows"),
        ("LISTMILL_PUBLIC_URL", "api.example.com", "public_url"),
        ("LISTMILL_PUBLIC_URL", "https://", "public_url"),
        ("LISTMILL_PUBLIC_URL", "https://a.example/?x", "public_url"),
        ("LISTMILL_KEY_LINK_TTL", "8d", "key_link_ttl"),
        ("LISTMILL_OIDC_ISSUER", "http://login.example.com", "oidc_issuer"),
        ("LISTMILL_OIDC_ISSUER", "https://login.example.com", "public_url"),
        ("LISTMILL_OIDC_NAME", " ", "oidc_name"),
        ("LISTMILL_MAX_WORKBOOK_BYTES", "5", "max_workbook_bytes"),
        ("LISTMILL_MAX_TEMPORARY_BYTES", "0", "max_temporary_bytes"),
        ("LISTMILL_MIN_TEMPORARY_FREE", "2000000000000000", "min_temporary_free"),
        ("LISTMILL_EXPORT_TIMEOUT", "0", "export_timeout"),
        ("LISTMILL_KEY_ROTATION_REMINDER", "99999d", "key_rotation_reminder"),
        ("LISTMILL_RESULTS_TTL", "for ever", "for ever"),
        ("LISTMILL_ABUSE_DEAD_KEYS", "maybe", "dry_run"),
        ("LISTMILL_ABUSE_NETWORKS_THRESHOLD", "0", "abuse_networks_threshold"),
        ("LISTMILL_ABUSE_UNKNOWN_KEYS_FIRST", "60d", "abuse_unknown_keys_first"),
        ("LISTMILL_ABUSE_RATE_LIMITS_SPREAD", "11m", "abuse_rate_limits_spread"),
        ("LISTMILL_SIGN_UP", "maybe", "maybe"),
        ("LISTMILL_SIGN_UP_CREDITS", "-1", "sign_up_credits"),
        ("LISTMILL_SMTP_URL", "http://mail.example.com", "smtp_url"),
        ("LISTMILL_SMTP_URL", "smtp://mail.example.com", "mail_from"),
        ("LISTMILL_MAIL_FROM", "nobody", "mail_from"),
    ] {
        let error = load(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(expect), "{name}={value}: {error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let secret = "s3cr3t";
    let names = ["URL", "KEY", "HEADER", "BODY"].map(|name| format!("LISTMILL_HTTP_{name}"));
    let mut pairs: Vec<_> = names.iter().map(|name| (name.as_str(), secret)).collect();
    pairs.push(("LISTMILL_DATABASE_URL", "postgres://me:s3cr3t@host/db"));
    pairs.push(("LISTMILL_REDIS_URL", "redis://:s3cr3t@host"));
    pairs.push(("LISTMILL_OIDC_CLIENT_SECRET", secret));
    pairs.push(("LISTMILL_SMTP_URL", "smtp://me:s3cr3t@host"));
    pairs.push(("LISTMILL_MAIL_FROM", "Listmill <listmill@example.com>"));
    let without = load(&pairs).unwrap_err().to_string();
    assert!(without.contains("public_url") && !without.contains(secret), "{without}");
    pairs.push(("LISTMILL_PUBLIC_URL", "https://listmill.example.com"));
    let settings = load(&pairs).unwrap();
    assert_eq!(settings.http_header.reveal(), secret);
    assert!(!format!("{settings:?}").contains(secret));
}
