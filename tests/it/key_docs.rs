//! The samples of `docs/KEYS.md` are run as they stand there: with a key that passes, with one that is
//! refused (they stop at once), and with one that has to wait (they wait).

use std::path::Path;
use std::time::{Duration, Instant};

use listmill_tests::admin::{Outcome, run, run_with_input};
use listmill_tests::process::Launch;
use listmill_tests::{Deployment, Setup, Size};
use serde_json::json;

#[path = "samples/refusals.rs"]
mod refusals;

/// The block of code below the mark `<!-- tried: NAME -->` of a document.
pub fn snippet(document: &str, name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let text = std::fs::read_to_string(root.join(document)).expect(document);
    let mark = format!("<!-- tried: {name} -->\n```");
    let (_, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("{document}: no {mark}"));
    let (_, rest) = rest.split_once('\n').expect("a line");
    rest.split_once("\n```").expect("an end").0.to_owned() + "\n"
}

/// How each sample is run: program, arguments before the code.
const SAMPLES: [(&str, &str, &[&str]); 3] =
    [("curl", "sh", &["-c"]), ("python", "python3", &["-c"]), ("javascript", "node", &["-e"])];

async fn sample(app: &Deployment, name: &str, key: &str) -> Outcome {
    let (_, program, args) = SAMPLES.into_iter().find(|(sample, ..)| *sample == name).expect(name);
    let code = snippet("docs/KEYS.md", name);
    let mut launch = Launch::new(program, app.folder()).args(args).args([code]);
    launch.env.push(("LISTMILL_URL".into(), app.apis[0].base()));
    launch.env.push(("LISTMILL_KEY".into(), key.into()));
    launch.env.push(("no_proxy".into(), "127.0.0.1".into()));
    run(launch, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_do_what_they_say() {
    let app = Setup::new(Size::Embedded).env("LISTMILL_RATE_LIMITS", "on").start().await;
    let owner = app.customer(7).await;
    let victim = app.create_key(&owner.account).await;
    app.suspend(&victim, "Excessive traffic").await;
    for (name, ..) in SAMPLES {
        let told = sample(&app, name, &owner.key.secret).await.expect_success();
        assert!(told.stdout.contains("email_credit"), "{told:#?}");
        let began = Instant::now();
        let told = sample(&app, name, &victim.secret).await.expect_failure();
        assert!(told.text().contains("Excessive traffic"), "{told:#?}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{name}: a refused key is not tried again"
        );

        // 30 a minute, all used up: the next one is due within two seconds.
        let body = json!({ "label": name, "rate_limit": 30 });
        let slow = owner.client.post("/v1/keys", &body).await.expect(201).json();
        let secret = slow["key"].as_str().expect("key");
        app.keep_secret(secret);
        let client = app.client(secret);
        while client.get("/v1/keys").await.status == 200 {}
        let told = sample(&app, name, secret).await.expect_success();
        assert!(told.stdout.contains("email_credit"), "{told:#?}");
    }
    let source = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("it/samples/refusals.rs"),
    );
    assert_eq!(source.expect("the sample"), snippet("docs/KEYS.md", "rust"), "one is the other");
    let http = listmill_tests::client::http().build().expect("a client");
    let url = format!("{}/v1/account/credits", app.apis[0].base());
    let credits = refusals::get(&http, &url, &owner.key.secret).await.expect("credits");
    assert_eq!(credits["email_credit"], 7.0);
    match refusals::get(&http, &url, &victim.secret).await {
        Err(refusals::CallError::KeyRefused(why)) => assert_eq!(why, "Excessive traffic"),
        other => panic!("{other:?}"),
    }
    let nowhere = refusals::get(&http, &format!("{}/v1/nothing", app.apis[0].base()), "").await;
    assert!(matches!(&nowhere, Err(refusals::CallError::Failed(why)) if why.contains("404")));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_checksum_is_the_real_one() {
    let app = Setup::new(Size::Embedded).start().await;
    let key = app.customer(0).await.key.secret;
    let last = if key.ends_with('a') { 'b' } else { 'a' };
    let slip = format!("{}{last}", &key[..34]);
    let cases = [(key.as_str(), "True"), (&slip, "False"), (&key[..34], "False")];
    for (text, want) in cases {
        let code = snippet("docs/KEYS.md", "checksum");
        let launch = Launch::new("python3", app.folder()).args(["-c".to_owned(), code]);
        let told = run_with_input(launch, Duration::from_secs(20), Some(text)).await;
        assert_eq!(told.expect_success().stdout.trim(), want);
    }
    app.finish().await;
}
