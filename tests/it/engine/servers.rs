//! The engine against real servers: Postfix, postgrey in front of it, and NSD.
//!
//! Postfix itself decides who is unknown, what is not its domain, what a catch-all takes, and when a
//! session has made too many mistakes; postgrey decides about greylisting. Full, disabled and
//! policy-bound mailboxes are an access map's words (`check_recipient_access`): Postfix says such
//! things only on behalf of others (quota daemons, policy servers), whose usual words they are.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use listmill_shared::domain::clock::Clock;
use listmill_shared::domain::id::Ids;
use listmill_shared::domain::verdict::Reason;
use listmill_tests::nsd::Nsd;
use listmill_tests::postfix::{Postfix, Service, Site};
use listmill_tests::postgrey::Postgrey;
use listmill_tests::{Setup, Size, Task, for_each_size, ports, within};
use listmill_worker::provider::smtp::{Config, Smtp};
use tokio::sync::OnceCell;

/// How long postgrey keeps a newcomer waiting.
pub const GREY: Duration = Duration::from_secs(2);

const PLAIN: &str = "127.0.0.31";
const ENCRYPTED: &str = "127.0.0.32";
const GREYLISTING: &str = "127.0.0.33";

/// All of it, running.
pub struct Servers {
    pub nsd: Nsd,
    pub port: u16,
    pub postfix: Postfix,
    _postgrey: Postgrey,
}

/// Those that all tests share.
pub async fn shared() -> &'static Servers {
    static SHARED: OnceCell<Servers> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

async fn start() -> Servers {
    let postgrey = Postgrey::start(GREY).await;
    let port = ports::free_port();
    let service = |ip: &str, options: &[&str]| Service {
        address: SocketAddr::new(ip.parse().unwrap(), port),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let clear = "smtpd_tls_security_level=none";
    // By default it waits a second for every mistake after the tenth; what counts is the hang-up
    // after the twentieth.
    let quick = "smtpd_error_sleep_time=0";
    let grey = format!(
        "smtpd_recipient_restrictions=check_policy_service,inet:127.0.0.1:{}",
        postgrey.port
    );
    let mut services = vec![
        service(PLAIN, &[clear, quick]),
        service(ENCRYPTED, &[]),
        service(GREYLISTING, &[clear, &grey]),
    ];
    if has_ipv6() {
        services.push(service("::1", &[clear]));
    }
    let signed = rcgen::generate_simple_self_signed(vec!["elsewhere.test".into()]).unwrap();
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let known = ["good", "safe", "grey", "six", "many"];
    let site = Site {
        services,
        domains: strings(&[
            "good.test",
            "all.test",
            "safe.test",
            "grey.test",
            "six.test",
            "many.test",
        ]),
        mailboxes: known
            .iter()
            .flat_map(|domain| (0..100).map(move |i| format!("known{i}@{domain}.test")))
            .chain(strings(&["@all.test", "full@good.test", "fuller@good.test", "off@good.test"]))
            .chain(strings(&["policy@good.test"]))
            .collect(),
        access: [
            ("full@good.test", "452 4.2.2 The mailbox is over its quota"),
            ("fuller@good.test", "552 5.2.2 Quota exceeded (mailbox for user is full)"),
            ("off@good.test", "550 5.2.1 The account is disabled"),
            ("policy@good.test", "554 5.7.1 Not from where you are"),
        ]
        .map(|(who, what)| (who.to_owned(), what.to_owned()))
        .into(),
        certificate: Some(signed.signing_key.serialize_pem() + signed.cert.pem().as_str()),
    };
    let postfix = Postfix::start(&site).await;
    Servers { nsd: Nsd::start(&records()).await, port, postfix, _postgrey: postgrey }
}

fn records() -> String {
    let mut records = String::new();
    let hosts = [
        ("good", PLAIN),
        ("all", PLAIN),
        ("foreign", PLAIN),
        ("safe", ENCRYPTED),
        ("grey", GREYLISTING),
    ];
    for (domain, ip) in hosts {
        records += &format!("{domain} MX 10 mx.{domain}\nmx.{domain} A {ip}\n");
    }
    records += "six MX 10 mx.six\nmx.six AAAA ::1\n";
    // Too much for one UDP answer: NSD sends none of it, and wants to be asked over TCP.
    for i in 0..40 {
        let host = format!("one-of-many-mail-hosts-with-a-long-name-{i}.many");
        records += &format!("many MX {i} {host}\n{host} A {PLAIN}\n");
    }
    records
}

fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

impl Servers {
    /// An engine that knows nothing yet.
    fn engine(&self, change: impl FnOnce(&mut Config)) -> (Smtp, Clock) {
        let mut config = Config {
            nameservers: self.nsd.address.to_string(),
            port: self.port,
            ehlo: "probe.test".into(),
            from: "verify@probe.test".into(),
            private_hosts: true,
            ..Config::default()
        };
        change(&mut config);
        let clock = Clock::manual(1_700_000_000_000);
        (Smtp::new(config, clock.clone(), Ids::seeded(7)).unwrap(), clock)
    }
}

async fn reason(engine: &Smtp, address: &str) -> (Reason, bool) {
    let verdict = engine.check(address).await.verdict;
    (verdict.reason, verdict.temporary)
}

#[tokio::test]
async fn postfix_mailboxes_in_every_state() {
    let (engine, _) = shared().await.engine(|_| {});
    for (address, want) in [
        ("known1@good.test", Reason::Accepted),
        ("nobody@good.test", Reason::MailboxNotFound),
        ("full@good.test", Reason::MailboxFull),
        ("fuller@good.test", Reason::MailboxFull),
        ("off@good.test", Reason::MailboxDisabled),
        ("policy@good.test", Reason::Blocked),
        ("known1@foreign.test", Reason::Blocked),
        ("anybody@all.test", Reason::CatchAll),
        ("kate@nowhere.test", Reason::NoDomain),
        ("known2@good.test", Reason::Accepted),
    ] {
        let found = engine.check(address).await;
        assert_eq!((found.verdict.reason, found.verdict.temporary), (want, false), "{found:#?}");
    }
    let known = engine.check("known3@good.test").await;
    assert_eq!(known.verdict.flags.catch_all, Some(false));
    assert!(known.evidence.text.is_some_and(|text| text == "250 2.1.5 Ok"));
    let nobody = engine.check("nobody@good.test").await.evidence;
    assert_eq!(nobody.enhanced.as_deref(), Some("5.1.1"), "{nobody:?}");
}

#[tokio::test]
async fn postfix_with_starttls() {
    let servers = shared().await;
    let (engine, _) = servers.engine(|_| {});
    let found = engine.check("known1@safe.test").await;
    assert_eq!((found.verdict.reason, found.evidence.tls), (Reason::Accepted, true));
    let (engine, _) = servers.engine(|c| c.starttls = false);
    let found = engine.check("known1@safe.test").await;
    assert_eq!((found.verdict.reason, found.evidence.tls), (Reason::Accepted, false));
}

/// It hangs up on whoever names too many unknown recipients, and that says nothing of the next one.
#[tokio::test]
async fn postfix_loses_patience_with_many_unknown() {
    let servers = shared().await;
    let (engine, _) = servers.engine(|c| {
        c.limits.connections = 3;
        c.timeout = Duration::from_secs(30);
    });
    let addresses: Vec<(String, Reason)> = (0..200)
        .map(|i| match i % 4 {
            0 => (format!("known{}@good.test", i / 4), Reason::Accepted),
            _ => (format!("nobody{i}@good.test"), Reason::MailboxNotFound),
        })
        .collect();
    let all = join_all(addresses.iter().map(|(address, _)| reason(&engine, address)));
    let found = within("200 addresses", Duration::from_secs(60), all).await;
    for ((address, want), found) in addresses.iter().zip(found) {
        assert_eq!(found, (*want, false), "{address}");
    }
    let log = servers.postfix.log();
    assert!(log.contains("too many errors after RCPT"), "it was never angry:\n{log}");
}

#[tokio::test]
async fn postgrey_lets_in_whoever_comes_again() {
    let (engine, clock) = shared().await.engine(|_| {});
    let addresses: Vec<String> = (0..20).map(|i| format!("known{i}@grey.test")).collect();
    let all = async || join_all(addresses.iter().map(|a| reason(&engine, a))).await;
    let first = all().await;
    assert!(first.iter().all(|found| *found == (Reason::Greylisted, true)), "{first:?}");
    tokio::time::sleep(GREY + Duration::from_millis(1_100)).await;
    let second = all().await;
    assert!(second.iter().all(|found| *found == (Reason::Accepted, false)), "{second:?}");
    // The random mailbox was greylisted in its turn; it is the same one when it is asked again.
    assert_eq!(engine.check("known0@grey.test").await.verdict.flags.catch_all, None);
    tokio::time::sleep(GREY + Duration::from_millis(1_100)).await;
    clock.advance(120_000);
    assert_eq!(engine.check("known0@grey.test").await.verdict.flags.catch_all, Some(false));
    assert_eq!(reason(&engine, "nobody@grey.test").await, (Reason::Greylisted, true));
}

#[tokio::test]
async fn a_mail_host_with_ipv6_alone() {
    let (engine, _) = shared().await.engine(|_| {});
    let want = match has_ipv6() {
        true => [(Reason::Accepted, false), (Reason::MailboxNotFound, false)],
        // Nothing on this machine speaks it.
        false => [(Reason::NoConnect, true), (Reason::NoConnect, true)],
    };
    let found =
        [reason(&engine, "known1@six.test").await, reason(&engine, "nobody@six.test").await];
    assert_eq!(found, want);
}

#[tokio::test]
async fn a_truncated_dns_answer_is_asked_for_over_tcp() {
    let (engine, _) = shared().await.engine(|_| {});
    let found = engine.check("known1@many.test").await;
    assert_eq!(found.verdict.reason, Reason::Accepted, "{found:#?}");
    let first = "one-of-many-mail-hosts-with-a-long-name-0.many.test";
    assert_eq!(found.verdict.mx.as_deref(), Some(first));
}

for_each_size!(a_list_behind_postgrey_is_verified_in_the_end);

/// Every mailbox of a greylisting Postfix gets its verdict, by being asked again.
async fn a_list_behind_postgrey_is_verified_in_the_end(size: Size) {
    let servers = shared().await;
    let setup = Setup::new(size.with(1, 2)).env("LISTMILL_PROVIDER", "smtp");
    let setup = setup.env("LISTMILL_DNS", servers.nsd.address.to_string());
    let setup = setup.env("LISTMILL_SMTP_PORT", servers.port.to_string());
    // Postgrey knows a sender again: each size of deployment is a new one.
    let setup = setup.env("LISTMILL_SMTP_FROM", format!("bulk-{}@probe.test", size.is_scaled()));
    let setup = setup.env("LISTMILL_PACE", "off").env("LISTMILL_RETRY_DELAYS", "2s,4s,8s");
    let app = setup.start().await;
    let customer = app.customer(100).await;
    let client = &customer.client;
    let mut list: Vec<String> = (0..40).map(|i| format!("known{i}@grey.test")).collect();
    list.push("nobody@grey.test".into());
    list.push("known1@good.test".into());
    let id = client.submit(&list).await.id;
    let grey = "the rest done, nothing held";
    let limit = Duration::from_secs(20);
    let set_aside = |task: &Task| task.counts.processed == 1 && task.credits.held == 0;
    client.wait_until(&id, grey, limit, set_aside).await;
    let task = client.wait_completed(&id).await;
    for row in client.results(&id).await {
        let email = row["email"].as_str().expect("an address");
        let (reason, attempts) = match email {
            "nobody@grey.test" => ("mailbox_not_found", 2),
            "known1@good.test" => ("accepted", 1),
            _ => ("accepted", 2),
        };
        assert_eq!(row["reason"], reason, "{row}");
        assert!(row["attempts"].as_u64().is_some_and(|n| n >= attempts), "{row}");
    }
    assert_eq!((task.credits.charged, task.credits.refunded), (42, 0), "{task:#?}");
    app.finish().await;
}
