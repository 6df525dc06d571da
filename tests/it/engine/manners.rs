//! How we introduce ourselves, TLS, and letting go.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use listmill_shared::domain::verdict::Reason;

use super::server::{Act, Script, Tls, say};
use super::world::World;

#[tokio::test]
async fn helo_where_ehlo_is_refused() {
    let world = World::new().await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual().with(|s| s.ehlo = None)).await;
    assert_eq!(world.reason("known@a.test").await.0, Reason::Accepted);
    assert_eq!(mx.commands()[..2], ["EHLO probe.test", "HELO probe.test"]);
}

#[tokio::test]
async fn tls_with_any_certificate() {
    let world = World::new().await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual().with(|s| s.tls = Tls::Good)).await;
    let found = world.check("known@a.test").await;
    assert_eq!((found.verdict.reason, found.evidence.tls), (Reason::Accepted, true));
    assert_eq!(found.verdict.flags.catch_all, Some(false));
    assert_eq!((mx.connections(), mx.counts.tls.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_failed_handshake_falls_back_and_is_remembered() {
    let world = World::with(|c| c.limits.recipients = 1).await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual().with(|s| s.tls = Tls::Broken)).await;
    let found = world.check("known@a.test").await;
    assert_eq!((found.verdict.reason, found.evidence.tls), (Reason::Accepted, false));
    assert_eq!(mx.connections(), 2);
    assert_eq!(world.reason("known2@a.test").await.0, Reason::Accepted);
    assert_eq!(mx.connections(), 3);
    world.clock.advance(2 * 3_600_000);
    assert_eq!(world.reason("known3@a.test").await.0, Reason::Accepted);
    // After an hour TLS was tried again; the catch-all answer had run out, too.
    assert_eq!(mx.commands().iter().filter(|c| *c == "STARTTLS").count(), 2);
}

#[tokio::test]
async fn refusals_before_the_recipient_are_about_us() {
    for (script, reason, temporary) in [
        (Script::usual().with(|s| s.banner = say("554 5.7.1 go away")), Reason::Blocked, false),
        (Script::usual().with(|s| s.banner = say("421 too busy")), Reason::SmtpUnavailable, true),
        (
            Script::usual().with(|s| s.mail = say("550 5.7.1 listed at spamhaus")),
            Reason::Blocked,
            false,
        ),
        (Script::usual().with(|s| s.mail = say("451 4.3.0 later")), Reason::SmtpUnavailable, true),
        (
            Script::usual().with(|s| s.mail = vec![Act::Say("421 4.7.0 bye".into()), Act::Drop]),
            Reason::SmtpUnavailable,
            true,
        ),
    ] {
        let world = World::new().await;
        let _mx = world.mail("a.test", "127.0.0.1", script).await;
        assert_eq!(world.reason("known@a.test").await, (reason, temporary));
    }
}

#[tokio::test]
async fn a_host_that_turns_us_away_passes_us_on_to_the_next() {
    let world = World::new().await;
    world.zone.mx("a.test", 5, "first.test");
    world.zone.ip("first.test", "127.0.0.3");
    let busy = Script::usual().with(|s| s.banner = say("421 too busy"));
    let _first = world.server("127.0.0.3", vec![busy]).await;
    let _second = world.mail("a.test", "127.0.0.4", Script::usual()).await;
    assert_eq!(world.reason("known@a.test").await, (Reason::Accepted, false));
}

#[tokio::test]
async fn comes_from_the_address_that_was_set() {
    let world = World::with(|c| c.source_ip = Some("127.0.0.77".parse().unwrap())).await;
    let mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("known@a.test").await.0, Reason::Accepted);
    assert_eq!(mx.counts.peers.lock().unwrap()[0].to_string(), "127.0.0.77");
}

/// A SOCKS5 proxy (RFC 1928) for one IPv4 connection after the other; counts them.
async fn socks5() -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut hello = [0; 3];
            client.read_exact(&mut hello).await.unwrap();
            client.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 10];
            client.read_exact(&mut request).await.unwrap();
            assert_eq!(request[..4], [5, 1, 0, 1]);
            let ip: [u8; 4] = request[4..8].try_into().unwrap();
            let port = u16::from_be_bytes([request[8], request[9]]);
            let mut server =
                tokio::net::TcpStream::connect((std::net::Ipv4Addr::from(ip), port)).await.unwrap();
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            counter.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn goes_through_a_socks5_proxy() {
    let (proxy, count) = socks5().await;
    let world = World::with(|c| c.socks5 = Some(proxy)).await;
    let _mx = world.mail("a.test", "127.0.0.1", Script::usual()).await;
    assert_eq!(world.reason("known@a.test").await, (Reason::Accepted, false));
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn a_host_where_nobody_was_is_left_alone_for_a_while() {
    let world = World::with(|c| c.down_for = Duration::from_secs(5)).await;
    world.zone.ip("a.test", "127.0.0.1");
    assert_eq!(world.reason("known@a.test").await, (Reason::NoConnect, true));
    let mx = world.server("127.0.0.1", vec![Script::usual()]).await;
    assert_eq!(world.reason("known@a.test").await, (Reason::NoConnect, true));
    assert_eq!(mx.connections(), 0);
    world.clock.advance(5_000);
    assert_eq!(world.reason("known@a.test").await, (Reason::Accepted, false));
}

#[tokio::test]
async fn dropping_the_check_closes_the_connection_at_once() {
    let world = World::new().await;
    let hang = Script::new(|_| vec![Act::Hang]);
    let mx = world.mail("a.test", "127.0.0.1", hang).await;
    {
        let check = world.check("known@a.test");
        tokio::pin!(check);
        let _ = tokio::time::timeout(Duration::from_millis(300), &mut check).await;
        assert!(mx.wait_open(1).await);
    }
    let dropped = std::time::Instant::now();
    assert!(mx.wait_open(0).await);
    // A connection that is not closed at once stays for as long as an answer may take.
    assert!(dropped.elapsed() < Duration::from_secs(2));
}
