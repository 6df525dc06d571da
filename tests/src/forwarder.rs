//! A TCP address that stays, before a server that may change: what a floating address is in production.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
        Self::with(target, Pace::Quick).await
    }

    /// Likewise; what the server says drips: 256 bytes, four milliseconds, 256 bytes, …
    pub async fn dripping(target: u16) -> Self {
        Self::with(target, Pace::Drips).await
    }

    async fn with(target: u16, pace: Pace) -> Self {
        let port = ports::free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        let (target, seen) = watch::channel(target);
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, seen, pace)));
        Self { port, target, _task: task }
    }

    /// From now on it leads there; every connection is cut.
    pub fn lead_to(&self, port: u16) {
        self.target.send_replace(port);
    }
}

/// How the server's bytes are passed on.
#[derive(Debug, Clone, Copy)]
enum Pace {
    Quick,
    Drips,
}

async fn accept(listener: TcpListener, target: watch::Receiver<u16>, pace: Pace) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(forward(stream, target.clone(), pace));
        // Those that have ended are let go.
        while connections.try_join_next().is_some() {}
    }
}

/// Returns, and so cuts the connection, when either side ends it or the target changes.
async fn forward(mut near: TcpStream, mut target: watch::Receiver<u16>, pace: Pace) {
    let port = *target.borrow_and_update();
    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let copied = async {
        match pace {
            Pace::Quick => tokio::io::copy_bidirectional(&mut near, &mut far).await.map(|_| ()),
            Pace::Drips => copy_in_drips(&mut near, &mut far).await,
        }
    };
    tokio::select! {
        // An error of one side ends both: that is all there is to do about it.
        _ = copied => {}
        _ = target.changed() => {}
    }
}

/// Until either side ends.
async fn copy_in_drips(near: &mut TcpStream, far: &mut TcpStream) -> std::io::Result<()> {
    let (mut near_reads, mut near_writes) = near.split();
    let (mut far_reads, mut far_writes) = far.split();
    let back = async {
        let mut piece = [0; 256];
        loop {
            match far_reads.read(&mut piece).await? {
                0 => return Ok(()),
                size => near_writes.write_all(&piece[..size]).await?,
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    };
    tokio::select! {
        copied = tokio::io::copy(&mut near_reads, &mut far_writes) => copied.map(|_| ()),
        copied = back => copied,
    }
}
