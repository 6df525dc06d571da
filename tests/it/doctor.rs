//! `listmill doctor` as a process of its own, in a scripted world: it finds what is wrong and says so.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use listmill_tests::admin::{Outcome, run};
use listmill_tests::process::Launch;
use listmill_tests::redis::Redis;
use listmill_tests::setup::binary;
use listmill_tests::{Setup, Size, ports, scratch};
use serde_json::Value;

use super::engine::server::{Act, Script, Server, say};
use super::engine::world::World;

const LIMIT: Duration = Duration::from_secs(35);
/// From where the scripted servers say that we come.
const IP: &str = "203.0.113.7";
const US: &str = "verify.ours.test";
const LISTS: [&str; 2] = ["zen.spamhaus.org", "bl.spamcop.net"];

/// A world in which all is well, but for its mail servers.
struct Practice {
    world: World,
    folder: PathBuf,
    env: Vec<(String, String)>,
}

impl Practice {
    async fn new() -> Self {
        let world = World::new().await;
        let zone = &world.zone;
        for provider in ["gmail.com", "outlook.com", "yahoo.com"] {
            zone.mx(provider, 10, "mx.big.test");
        }
        zone.ip("mx.big.test", "127.0.0.1");
        zone.named(IP, US);
        zone.ip(US, IP);
        zone.text(US, "v=spf1 a -all");
        for list in LISTS {
            zone.ip(&format!("2.0.0.127.{list}"), "127.0.0.2");
        }
        let folder = scratch::folder("doctor");
        let env = [
            ("LISTMILL_DNS", world.zone.address.to_string()),
            ("LISTMILL_SMTP_PORT", world.port.to_string()),
            ("LISTMILL_SMTP_EHLO", US.to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { world, folder, env }
    }

    async fn server(&self, script: Script) -> Server {
        self.world.server("127.0.0.1", vec![script]).await
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    async fn doctor(&self, args: &[&str]) -> Outcome {
        let mut launch = Launch::new(binary(), &self.folder).args(["doctor"]).args(args);
        launch.env.extend(self.env.clone());
        let started = Instant::now();
        let outcome = run(launch, LIMIT).await;
        assert!(started.elapsed() < Duration::from_secs(30), "{outcome:#?}");
        assert!(!outcome.text().contains("panicked"), "{outcome:#?}");
        outcome
    }

    /// The findings, after a look at what must agree.
    async fn findings(&self) -> Findings {
        let outcome = self.doctor(&["--json"]).await;
        let object = outcome.json();
        let checks = object["checks"].as_array().expect("checks").clone();
        let problems = checks.iter().filter(|check| check["state"] == "problem").count();
        assert_eq!(object["problems"], problems, "{object}");
        assert_eq!(object["ok"], problems == 0, "{object}");
        assert_eq!(outcome.code, Some(i32::from(problems > 0)), "{object}");
        let advised = |check: &&Value| (check["state"] == "ok") == check["advice"].is_null();
        assert!(checks.iter().all(|check| advised(&check)), "what to do is said: {object}");
        Findings(checks)
    }
}

struct Findings(Vec<Value>);

impl Findings {
    /// Every finding of this check has this state, and one of them says so.
    #[track_caller]
    fn assert(&self, check: &str, state: &str, says: &str) {
        let of: Vec<&Value> = self.0.iter().filter(|found| found["check"] == check).collect();
        assert!(!of.is_empty(), "nothing about {check}: {:#?}", self.0);
        assert!(of.iter().all(|found| found["state"] == state), "{check}: {of:#?}");
        let said = |found: &&&Value| found["found"].as_str().expect("text").contains(says);
        assert!(of.iter().any(|found| said(&found)), "{check} says {says:?}: {of:#?}");
    }

    fn worst(&self, state: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|found| found["state"] == state);
        found.map(|found| found["check"].as_str().expect("a check")).collect()
    }
}

/// As Google says it.
fn polite() -> Script {
    Script::usual().with(|script| script.hello = "mx.big.test at your service, [203.0.113.7]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_fit_has_no_problem() {
    let practice = Practice::new().await;
    let server = practice.server(polite()).await;
    let found = practice.findings().await;
    assert_eq!(
        (found.worst("problem"), found.worst("warning")),
        (vec![], vec![]),
        "{:#?}",
        found.0
    );
    found.assert("port", "ok", "3 of 3");
    found.assert("address", "ok", IP);
    found.assert("reverse_dns", "ok", US);
    found.assert("blocklists", "ok", "zen.spamhaus.org, bl.spamcop.net");
    for check in
        ["settings", "open_files", "database", "disk", "redis", "resolver", "ehlo", "sender"]
    {
        found.assert(check, "ok", "");
    }
    let commands = server.commands();
    assert!(
        commands.iter().all(|said| !said.starts_with("MAIL")),
        "nobody is asked about: {commands:?}"
    );
    let outcome = practice.doctor(&[]).await.expect_success();
    assert!(outcome.stdout.contains("All is well"), "{outcome:#?}");
    assert_eq!(
        std::fs::read_dir(&practice.folder).expect("a folder").count(),
        0,
        "nothing is made"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_shut_is_told_from_one_that_turns_us_away() {
    let practice = Practice::new().await;
    let refused = practice.findings().await;
    refused.assert("port", "problem", "firewall");
    refused.assert("address", "warning", "not looked at");
    refused.assert("ehlo", "ok", "resolves");

    let silent = Script::usual().with(|script| script.banner = vec![Act::Hang]);
    let server = practice.server(silent).await;
    practice.findings().await.assert("port", "problem", "blocked on the way out");
    server.stop().await;

    let rude = Script::usual().with(|script| script.banner = say("554 5.7.1 your kind is listed"));
    let server = practice.server(rude).await;
    practice.findings().await.assert("port", "problem", "554 5.7.1 your kind is listed");
    server.stop().await;

    practice.world.zone.forget("yahoo.com");
    let _server = practice.server(polite()).await;
    practice.findings().await.assert("port", "warning", "2 of 3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_lies_or_fails_is_found() {
    let practice = Practice::new().await;
    let _server = practice.server(polite()).await;
    practice.world.zone.hijacks("198.51.100.1");
    let found = practice.findings().await;
    found.assert("resolver", "problem", "makes up answers");
    found.assert("blocklists", "warning", "no answer of a list");

    let deaf =
        Practice::new().await.with("LISTMILL_DNS", format!("127.0.0.1:{}", ports::free_port()));
    let found = deaf.findings().await;
    found.assert("resolver", "problem", "no usable answer");
    found.assert("port", "problem", "could be reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_do_not_lead_to_us_are_found() {
    let practice = Practice::new().await;
    let _server = practice.server(polite()).await;
    let zone = practice.world.zone.clone();
    let reverse = "7.113.0.203.in-addr.arpa";

    zone.forget(reverse);
    zone.forget(US);
    zone.ip(US, "203.0.113.99");
    let found = practice.findings().await;
    found.assert("reverse_dns", "problem", "has no name");
    found.assert("ehlo", "warning", "we come from 203.0.113.7");
    found.assert("sender", "warning", "no SPF");

    zone.named(IP, "liar.test");
    zone.forget(US);
    let found = practice.findings().await;
    found.assert("reverse_dns", "problem", "does not lead back");
    found.assert("ehlo", "problem", "does not resolve");
    found.assert("sender", "problem", "takes no mail");

    zone.forget(reverse);
    zone.named(IP, "ip-203-0-113-7.cloud.test");
    zone.ip("ip-203-0-113-7.cloud.test", IP);
    let practice = practice.with("LISTMILL_SMTP_EHLO", "localhost");
    let found = practice.findings().await;
    found.assert("reverse_dns", "warning", "home or rented");
    found.assert("ehlo", "problem", "no full domain name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_on_a_blocklist_is_found_and_a_mute_list_is_not_believed() {
    let practice = Practice::new().await;
    let _server = practice.server(polite()).await;
    let zone = practice.world.zone.clone();
    zone.ip("7.113.0.203.zen.spamhaus.org", "127.0.0.10");
    let found = practice.findings().await;
    found.assert("blocklists", "problem", "zen.spamhaus.org (127.0.0.10, an address range");

    zone.forget("7.113.0.203.zen.spamhaus.org");
    zone.ip("7.113.0.203.zen.spamhaus.org", "127.255.255.254");
    zone.forget("2.0.0.127.bl.spamcop.net");
    let found = practice.findings().await;
    found.assert("blocklists", "warning", "127.255.255.254, which is an error");
    found.assert("blocklists", "warning", "bl.spamcop.net: it does not answer this resolver");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_and_redis_are_looked_at() {
    let nobody = format!("127.0.0.1:{}", ports::free_port());
    let practice = Practice::new()
        .await
        .with("LISTMILL_PROVIDER", "sandbox")
        .with("LISTMILL_REDIS_URL", format!("redis://:hush@{nobody}"))
        .with("LISTMILL_DATABASE_URL", format!("postgres://u:hush@{nobody}/db"))
        .with("LISTMILL_BATCHSIZE", "7");
    let found = practice.findings().await;
    found.assert("redis", "problem", "cannot be used");
    found.assert("database", "problem", "cannot be used");
    found.assert("settings", "warning", "LISTMILL_BATCHSIZE");
    found.assert("mail", "ok", "not looked at");
    assert!(!format!("{:?}", found.0).contains("hush"), "no password is shown: {:#?}", found.0);

    let redis = Redis::start().await;
    let practice = practice
        .with("LISTMILL_REDIS_URL", redis.url())
        .with("LISTMILL_DATABASE_URL", "sqlite://none/yet.db");
    let found = practice.findings().await;
    found.assert("redis", "ok", "answers");
    found.assert("clock", "ok", "Redis");
    found.assert("database", "ok", "not there yet");
    redis.stall();
    practice.findings().await.assert("redis", "problem", "no answer in time");

    let app = Setup::new(Size::Scaled { apis: 1, workers: 1 }).start().await;
    let found = app.cli(&["doctor", "--json"]).await.expect_success().json();
    let found = Findings(found["checks"].as_array().expect("checks").clone());
    found.assert("database", "ok", "its schema fits");
    found.assert("clock", "ok", "the database");
    app.finish().await;
}
