//! A wire that can go dead: a TCP proxy between the product and one of its servers.
//!
//! Data structures:
//! - [`Proxy`]: a port of ours before a server's port
//! - one [`watch`] switch for each connection, and one for those that come
//!
//! Invariants:
//! - A dead connection stays open on both sides and nothing is read from it or written to it, an
//!   end of it included: no error ever comes, only time passes.
//! - What was sent meanwhile arrives when the wire goes on, as after lost packets.
//! - While all is dead, connections are taken and the server hears nothing of them.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wires: Arc<Wires>,
    accepting: JoinHandle<()>,
}

/// Switches: `true` is dead.
#[derive(Debug)]
struct Wires {
    target: u16,
    /// Whether a connection that comes is dead from the start.
    coming: watch::Sender<bool>,
    current: Mutex<Vec<watch::Sender<bool>>>,
}

impl Proxy {
    /// Before the server on `target` of this machine.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("the proxy's address").port();
        let coming = watch::Sender::new(false);
        let wires = Arc::new(Wires { target, coming, current: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&wires)));
        Self { port, wires, accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that neither side has ended.
    pub fn connections(&self) -> usize {
        self.wires.alive().len()
    }

    /// Every connection is dead, and each that comes.
    pub fn blackhole(&self) {
        self.wires.coming.send_replace(true);
        for wire in self.wires.alive() {
            wire.send_replace(true);
        }
    }

    /// Every second connection is dead; those that come are not. Says how many.
    pub fn blackhole_half(&self) -> usize {
        let half: Vec<_> = self.wires.alive().into_iter().step_by(2).collect();
        for wire in &half {
            wire.send_replace(true);
        }
        half.len()
    }

    /// Whoever connects anew is heard; what is dead stays so, as behind a router that has
    /// forgotten its connections.
    pub fn let_new_ones_through(&self) {
        self.wires.coming.send_replace(false);
    }

    /// Everything flows again.
    pub fn go_on(&self) {
        self.wires.coming.send_replace(false);
        for wire in self.wires.alive() {
            wire.send_replace(false);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // Sides that wait at a dead wire see the end of each other.
        self.go_on();
    }
}

impl Wires {
    fn alive(&self) -> Vec<watch::Sender<bool>> {
        let mut current = self.current.lock().expect("not poisoned");
        current.retain(|wire| !wire.is_closed());
        current.clone()
    }

    /// A switch for one more connection, in the state of those that come.
    fn add(&self) -> watch::Receiver<bool> {
        let mut current = self.current.lock().expect("not poisoned");
        let (wire, end) = watch::channel(*self.coming.borrow());
        current.retain(|wire| !wire.is_closed());
        current.push(wire);
        end
    }
}

async fn accept(listener: TcpListener, wires: Arc<Wires>) {
    while let Ok((stream, _)) = listener.accept().await {
        let wire = wires.add();
        tokio::spawn(connect(stream, wires.target, wire));
    }
}

async fn connect(near: TcpStream, target: u16, mut wire: watch::Receiver<bool>) {
    if !flows(&mut wire).await {
        return;
    }
    // A server that is away shows as a connection that ends.
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let prompt = near.set_nodelay(true).and(far.set_nodelay(true));
    prompt.expect("a socket takes the option");
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(pump(near_in, far_out, wire.clone()), pump(far_in, near_out, wire));
}

/// One direction, to its end; the end is passed on like everything else.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<bool>) {
    let mut buffer = vec![0; 32 * 1024];
    while flows(&mut wire).await {
        let read = tokio::select! {
            biased;
            _ = wire.changed() => continue,
            read = from.read(&mut buffer) => read,
        };
        let Ok(length @ 1..) = read else { break };
        // What was read as the wire went dead is on its way until it flows again.
        if !flows(&mut wire).await || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits until the wire is alive; `false` when the proxy is gone.
async fn flows(wire: &mut watch::Receiver<bool>) -> bool {
    wire.wait_for(|dead| !dead).await.is_ok()
}
