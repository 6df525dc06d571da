//! One connection to one mail server, up to the point where recipients can be named: banner, EHLO
//! (HELO where that is refused, RFC 5321, 3.2), STARTTLS (RFC 3207).
//!
//! Invariants: every read and write has a time limit, input is bounded by [`Parser`], and dropping a
//! [`Connection`] closes it at once. After a [`Fault`] it is of no further use.

mod greet;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_socks::tcp::Socks5Stream;

use super::reply::{Parser, Reply};
use super::{Fault, FaultKind, Stage};
pub use greet::{Greeting, greet};

/// How connections are made; the same for all of them.
pub struct Setup {
    /// Our name in EHLO.
    pub ehlo: String,
    /// For a connection to be made, and for everything else that is waited for.
    pub connect_timeout: Duration,
    /// For one reply.
    pub reply_timeout: Duration,
    /// The address that we come from.
    pub source_ip: Option<IpAddr>,
    /// Go through this SOCKS5 proxy (`host:port`).
    pub socks5: Option<String>,
    /// `None`: never STARTTLS.
    pub tls: Option<TlsConnector>,
}

/// What a server offers in its answer to EHLO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// See the module.
pub struct Connection {
    stream: Box<dyn Stream>,
    parser: Parser,
    features: Features,
    reply_timeout: Duration,
    tls: bool,
}

/// A TLS client that takes any certificate.
///
/// Nothing secret crosses a probe: it says which mailbox it asks about to whoever the MX record
/// names. Most mail servers' certificates would not pass anyway, and a server that is turned away
/// for its certificate gives no verdict. Signatures are still checked: it is a working TLS session.
pub fn accept_any_certificate() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Connection {
    /// Connects, and introduces us. `name` is the mail host's, for TLS; `tls`: whether to try.
    /// `stage`
    /// shows how far it got. A failed handshake is [`Stage::Tls`]: the caller comes again without.
    pub async fn open(
        setup: &Setup,
        address: SocketAddr,
        name: &str,
        tls: bool,
        stage: &mut Stage,
    ) -> Result<Self, Fault> {
        let (mut connection, _) = Self::greeted(setup, address, stage).await?;
        connection.introduce(&setup.ehlo).await?;
        match &setup.tls {
            Some(connector) if tls && connection.features.starttls => {
                connection.start_tls(connector, address, name, &setup.ehlo).await
            }
            _ => Ok(connection),
        }
    }

    /// Connects, and reads the banner of a server that takes us.
    async fn greeted(
        setup: &Setup,
        address: SocketAddr,
        stage: &mut Stage,
    ) -> Result<(Self, Reply), Fault> {
        *stage = Stage::Connect;
        let stream = reach(setup, address).await?;
        *stage = Stage::Banner;
        // Commands are small and each waits for its answer: nothing to gather.
        let _ = stream.set_nodelay(true);
        let mut connection = Self {
            stream: Box::new(stream),
            parser: Parser::default(),
            features: Features::default(),
            reply_timeout: setup.reply_timeout,
            tls: false,
        };
        let banner = connection.reply(Stage::Banner).await?;
        match banner.is_positive() {
            true => Ok((connection, banner)),
            false => Err(Fault::new(Stage::Banner, FaultKind::Refused(banner))),
        }
    }

    /// What the server offers.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Is it encrypted?
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Sends `commands` in one write and reads one reply for each of `stages`. Fewer replies come
    /// back only when the server hung up after turning one of them away.
    pub async fn exchange(
        &mut self,
        commands: &str,
        stages: &[Stage],
    ) -> Result<Vec<Reply>, Fault> {
        let first = stages.first().copied().unwrap_or(Stage::Rcpt);
        self.write(commands, first).await?;
        let mut replies = Vec::with_capacity(stages.len());
        for &stage in stages {
            match self.reply(stage).await {
                Ok(reply) => replies.push(reply),
                // "421 Goodbye" to the first of several commands says more than the end after it.
                Err(_) if replies.iter().any(|reply: &Reply| !reply.is_positive()) => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(replies)
    }

    /// Says goodbye; who does not answer within `patience` is left standing.
    pub async fn quit(mut self, patience: Duration) {
        let goodbye = async {
            self.write("QUIT\r\n", Stage::Rcpt).await?;
            self.reply(Stage::Rcpt).await
        };
        let _ = timeout(patience, goodbye).await;
    }

    async fn introduce(&mut self, ehlo: &str) -> Result<(), Fault> {
        let reply = self.command(&format!("EHLO {ehlo}\r\n"), Stage::Ehlo).await?;
        if reply.is_positive() {
            self.features = read_features(&reply);
            return Ok(());
        }
        // 5xx: a server of before 1995, or a proxy that plays one. 4xx is a refusal to talk now.
        let reply = match reply.code / 100 {
            5 => self.command(&format!("HELO {ehlo}\r\n"), Stage::Ehlo).await?,
            _ => reply,
        };
        match reply.is_positive() {
            true => Ok(()),
            false => Err(Fault::new(Stage::Ehlo, FaultKind::Refused(reply))),
        }
    }

    async fn start_tls(
        mut self,
        connector: &TlsConnector,
        address: SocketAddr,
        name: &str,
        ehlo: &str,
    ) -> Result<Self, Fault> {
        let reply = self.command("STARTTLS\r\n", Stage::Tls).await?;
        if !reply.is_positive() {
            // Offered, but not now: go on in clear text, nothing is lost.
            return Ok(self);
        }
        self.parser.clear();
        let name = match ServerName::try_from(name.to_owned()) {
            Ok(name) => name,
            Err(_) => ServerName::IpAddress(address.ip().into()),
        };
        let handshake = connector.connect(name, self.stream);
        let stream = match timeout(self.reply_timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(Fault::new(Stage::Tls, FaultKind::Io(e))),
            Err(_) => return Err(Fault::new(Stage::Tls, FaultKind::Timeout)),
        };
        let mut encrypted = Self {
            stream: Box::new(stream),
            parser: self.parser,
            features: Features::default(),
            reply_timeout: self.reply_timeout,
            tls: true,
        };
        encrypted.introduce(ehlo).await?;
        Ok(encrypted)
    }

    async fn command(&mut self, command: &str, stage: Stage) -> Result<Reply, Fault> {
        self.write(command, stage).await?;
        self.reply(stage).await
    }

    async fn write(&mut self, commands: &str, stage: Stage) -> Result<(), Fault> {
        let write = async {
            self.stream.write_all(commands.as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(self.reply_timeout, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Fault::new(stage, FaultKind::Io(e))),
            Err(_) => Err(Fault::new(stage, FaultKind::Timeout)),
        }
    }

    async fn reply(&mut self, stage: Stage) -> Result<Reply, Fault> {
        let kind = match timeout(self.reply_timeout, self.read_reply()).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(kind)) => kind,
            Err(_) => FaultKind::Timeout,
        };
        Err(Fault::new(stage, kind))
    }

    async fn read_reply(&mut self) -> Result<Reply, FaultKind> {
        let mut chunk = [0; 1024];
        loop {
            if let Some(reply) = self.parser.next().map_err(FaultKind::Garbled)? {
                return Ok(reply);
            }
            match self.stream.read(&mut chunk).await.map_err(FaultKind::Io)? {
                0 => return Err(FaultKind::Closed),
                octets => self.parser.feed(&chunk[..octets]),
            }
        }
    }
}

/// Connects, and says nothing yet.
pub async fn reach(setup: &Setup, address: SocketAddr) -> Result<TcpStream, Fault> {
    match timeout(setup.connect_timeout, connect(setup, address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(Fault::new(Stage::Connect, FaultKind::Io(e))),
        Err(_) => Err(Fault::new(Stage::Connect, FaultKind::Timeout)),
    }
}

async fn connect(setup: &Setup, address: SocketAddr) -> std::io::Result<TcpStream> {
    if let Some(proxy) = &setup.socks5 {
        return Socks5Stream::connect(proxy.as_str(), address)
            .await
            .map(Socks5Stream::into_inner)
            .map_err(std::io::Error::other);
    }
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = setup.source_ip {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

fn read_features(reply: &Reply) -> Features {
    let mut features = Features::default();
    // The first line is the server's name.
    for line in reply.text.lines().skip(1) {
        let word = line.split_whitespace().next().unwrap_or("");
        features.pipelining |= word.eq_ignore_ascii_case("PIPELINING");
        features.smtputf8 |= word.eq_ignore_ascii_case("SMTPUTF8");
        features.starttls |= word.eq_ignore_ascii_case("STARTTLS");
    }
    features
}

/// See [`accept_any_certificate`].
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
