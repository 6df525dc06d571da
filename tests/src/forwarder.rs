//! A TCP address that stays, before a server that may change: what a floating address is in production.

use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::ports;

#[derive(Debug)]
pub struct Forwarder {
    pub port: u16,
    target: watch::Sender<u16>,
    _task: AbortOnDropHandle<()>,
}

impl Forwarder {
    /// Leads to a port of this machine.
    pub async fn start(target: u16) -> Self {
        let port = ports::free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        let (target, seen) = watch::channel(target);
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, seen)));
        Self { port, target, _task: task }
    }

    /// From now on it leads there; every connection is cut.
    pub fn lead_to(&self, port: u16) {
        self.target.send_replace(port);
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<u16>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(forward(stream, target.clone()));
        // Those that have ended are let go.
        while connections.try_join_next().is_some() {}
    }
}

/// Returns, and so cuts the connection, when either side ends it or the target changes.
async fn forward(mut near: TcpStream, mut target: watch::Receiver<u16>) {
    let port = *target.borrow_and_update();
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    tokio::select! {
        // An error of one side ends both: that is all there is to do about it.
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = target.changed() => {}
    }
}
