//! A way to a server that breaks where a test wants it to, and remembers what was sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use listmill_tests::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a connection.
#[derive(Clone, Copy)]
pub enum Fate {
    Whole,
    /// The request arrives; of the answer, not a byte.
    AnswerLost,
    /// It ends after so long.
    CutAfter(Duration),
}

pub struct Wire {
    pub port: u16,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    /// To this port; the fates of the first connections, those that follow stay whole.
    pub async fn start(target: u16, fates: Vec<Fate>) -> Self {
        let port = ports::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        let seen = sent.clone();
        tokio::spawn(async move {
            let mut fates = fates.into_iter();
            while let Ok((client, _)) = listener.accept().await {
                let fate = fates.next().unwrap_or(Fate::Whole);
                let seen = seen.clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", target)).await.expect("it is up");
                    carry(client, server, fate, seen).await;
                });
            }
        });
        Self { port, sent }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that clients have sent, as text.
    pub fn sent(&self) -> String {
        String::from_utf8_lossy(&self.sent.lock().expect("not poisoned")).into_owned()
    }
}

async fn carry(client: TcpStream, server: TcpStream, fate: Fate, seen: Arc<Mutex<Vec<u8>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        let mut piece = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut piece).await {
            seen.lock().expect("not poisoned").extend_from_slice(&piece[..read]);
            if to_server.write_all(&piece[..read]).await.is_err() {
                break;
            }
        }
    };
    let down = async move {
        match fate {
            Fate::AnswerLost => {
                let _ = from_server.read(&mut [0; 1]).await;
            }
            Fate::Whole => {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            }
            Fate::CutAfter(time) => {
                let copying = tokio::io::copy(&mut from_server, &mut to_client);
                let _ = tokio::time::timeout(time, copying).await;
            }
        }
    };
    // Whichever ends takes the other along.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
