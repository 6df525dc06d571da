//! Free ports for servers that must come back on the same port after a restart.
//!
//! They are taken from below the kernel's range for outgoing connections: a port from inside
//! that range could be lent to some client while our server is down.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::random::Random;

const LOWEST: u32 = 12_000;

pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let highest = outgoing_from().clamp(LOWEST + 4_000, 60_000);
    let span = highest - LOWEST;
    // Two test processes at once start at different places.
    let next = NEXT.get_or_init(|| {
        let start = Random::fresh().below(u64::from(span));
        AtomicU32::new(u32::try_from(start).expect("below the span"))
    });
    for _ in 0..span {
        let port = LOWEST + next.fetch_add(1, Ordering::Relaxed) % span;
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {LOWEST} and {highest}");
}

fn outgoing_from() -> u32 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}
