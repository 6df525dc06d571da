//! A mail server that does what a script says, one script per connection (the last one repeats),
//! and counts what it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Act {
    /// Lines, CRLF added.
    Say(String),
    /// Bytes as they are.
    Raw(Vec<u8>),
    Wait(Duration),
    /// So many octets without an end of line.
    Flood(usize),
    /// Hang up at once.
    Drop,
    /// Close our direction, go on reading.
    HalfClose,
    /// Say nothing more, keep the connection.
    Hang,
}

pub fn say(text: &str) -> Vec<Act> {
    vec![Act::Say(text.into())]
}

/// A recipient as the server sees it.
pub struct Seen<'a> {
    pub local: &'a str,
    /// From 1, in its session and in its transaction.
    pub in_session: usize,
    pub in_transaction: usize,
    /// Since the server's first recipient.
    pub since_first: Duration,
}

type Judge = Arc<dyn Fn(&Seen) -> Vec<Act> + Send + Sync>;

#[derive(Clone, Copy, PartialEq)]
pub enum Tls {
    Absent,
    Good,
    /// Says 220, then garbage.
    Broken,
}

#[derive(Clone)]
pub struct Script {
    pub banner: Vec<Act>,
    /// `None`: 502 to EHLO.
    pub ehlo: Option<Vec<&'static str>>,
    pub mail: Vec<Act>,
    pub rcpt: Judge,
    pub tls: Tls,
    /// Before every reply.
    pub latency: Duration,
}

impl Script {
    pub fn new(rcpt: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self {
            banner: say("220 mx.test ESMTP"),
            ehlo: Some(vec!["PIPELINING", "SIZE 1000", "ENHANCEDSTATUSCODES"]),
            mail: say("250 2.1.0 Ok"),
            rcpt: Arc::new(rcpt),
            tls: Tls::Absent,
            latency: Duration::ZERO,
        }
    }

    /// Accepts locals that start with `known`, and knows no other.
    pub fn usual() -> Self {
        Self::new(|seen| match seen.local.starts_with("known") {
            true => say("250 2.1.5 Ok"),
            false => say("550 5.1.1 no such user"),
        })
    }

    /// One answer for all.
    pub fn always(text: &'static str) -> Self {
        Self::new(move |_| say(text))
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

#[derive(Default)]
pub struct Counts {
    pub connections: AtomicUsize,
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    pub tls: AtomicUsize,
    /// RCPTs that were already there when MAIL was read.
    pub pipelined: AtomicUsize,
    pub quits: AtomicUsize,
    pub peers: Mutex<Vec<std::net::IpAddr>>,
    pub recipients: Mutex<Vec<String>>,
    pub commands: Mutex<Vec<String>>,
    first: OnceLock<Instant>,
}

pub struct Server {
    pub counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(address: SocketAddr, scripts: Vec<Script>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(4096).unwrap();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            // Connections end with their server.
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                shared.peers.lock().unwrap().push(peer.ip());
                let number = shared.connections.fetch_add(1, SeqCst);
                let script = scripts[number.min(scripts.len() - 1)].clone();
                let counts = Arc::clone(&shared);
                stream.set_nodelay(true).unwrap();
                serving.spawn(async move {
                    let open = counts.open.fetch_add(1, SeqCst) + 1;
                    counts.most_open.fetch_max(open, SeqCst);
                    let _ = serve(Box::new(stream), &script, &counts).await;
                    counts.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { counts, task }
    }

    pub fn connections(&self) -> usize {
        self.counts.connections.load(SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.counts.open.load(SeqCst)
    }

    pub fn recipients(&self) -> Vec<String> {
        self.counts.recipients.lock().unwrap().clone()
    }

    pub fn commands(&self) -> Vec<String> {
        self.counts.commands.lock().unwrap().clone()
    }

    /// Waits until `count` connections are open.
    pub async fn wait_open(&self, count: usize) -> bool {
        for _ in 0..200 {
            if self.counts.open.load(SeqCst) == count {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// `Err`: the connection is over.
async fn act(stream: &mut BufReader<Box<dyn Stream>>, acts: &[Act]) -> std::io::Result<()> {
    let gone = || std::io::Error::other("script's end");
    for act in acts {
        match act {
            Act::Say(text) => {
                let lines = format!("{}\r\n", text.replace('\n', "\r\n"));
                stream.write_all(lines.as_bytes()).await?;
                stream.flush().await?;
            }
            Act::Raw(bytes) => stream.write_all(bytes).await?,
            Act::Wait(time) => tokio::time::sleep(*time).await,
            Act::Flood(octets) => {
                for _ in 0..octets / 1024 {
                    stream.write_all(&[b'x'; 1024]).await?;
                }
            }
            Act::Drop => return Err(gone()),
            Act::HalfClose => stream.shutdown().await?,
            Act::Hang => {
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return Err(gone());
            }
        }
    }
    Ok(())
}

async fn serve(stream: Box<dyn Stream>, script: &Script, counts: &Counts) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut in_session, mut in_transaction, mut encrypted) = (0, 0, false);
    act(&mut stream, &script.banner).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        counts.commands.lock().unwrap().push(command.clone());
        tokio::time::sleep(script.latency).await;
        let verb = command.get(..4).unwrap_or("").to_ascii_uppercase();
        let acts = match verb.as_str() {
            "EHLO" => match &script.ehlo {
                None => say("502 5.5.2 what?"),
                Some(features) => {
                    let mut lines = vec!["mx.test"];
                    lines.extend(features);
                    if script.tls != Tls::Absent && !encrypted {
                        lines.push("STARTTLS");
                    }
                    let last = lines.len() - 1;
                    let lines: Vec<String> = lines
                        .iter()
                        .enumerate()
                        .map(|(i, l)| format!("250{}{l}", if i == last { ' ' } else { '-' }))
                        .collect();
                    say(&lines.join("\n"))
                }
            },
            "STAR" => {
                act(&mut stream, &say("220 go")).await?;
                if script.tls == Tls::Broken {
                    act(&mut stream, &[Act::Raw(b"not tls at all\r\n".to_vec())]).await?;
                    return Ok(());
                }
                let accepted = acceptor().accept(stream.into_inner()).await?;
                counts.tls.fetch_add(1, SeqCst);
                encrypted = true;
                stream = BufReader::new(Box::new(accepted));
                continue;
            }
            "MAIL" => {
                in_transaction = 0;
                if stream.buffer().starts_with(b"RCPT") {
                    counts.pipelined.fetch_add(1, SeqCst);
                }
                script.mail.clone()
            }
            "RCPT" => {
                in_session += 1;
                in_transaction += 1;
                let address = command.trim_start_matches("RCPT TO:<").trim_end_matches('>');
                counts.recipients.lock().unwrap().push(address.to_owned());
                let first = counts.first.get_or_init(Instant::now);
                let (local, _) = address.rsplit_once('@').unwrap_or((address, ""));
                let since_first = first.elapsed();
                (script.rcpt)(&Seen { local, in_session, in_transaction, since_first })
            }
            "QUIT" => {
                counts.quits.fetch_add(1, SeqCst);
                act(&mut stream, &say("221 bye")).await?;
                return Ok(());
            }
            "DATA" => panic!("a probe must never send DATA"),
            _ => say("250 2.0.0 Ok"),
        };
        act(&mut stream, &acts).await?;
    }
}

/// With a certificate that nobody vouches for.
fn acceptor() -> &'static TlsAcceptor {
    static ACCEPTOR: OnceLock<TlsAcceptor> = OnceLock::new();
    ACCEPTOR.get_or_init(|| {
        let signed = rcgen::generate_simple_self_signed(vec!["elsewhere.test".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    })
}
