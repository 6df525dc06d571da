//! A connection for what the server says of us, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::{Connection, Features, Setup, connect};
use crate::provider::smtp::reply::{Parser, Reply};
use crate::provider::smtp::{Fault, FaultKind, Stage};

/// Who answers QUIT later than this is left standing.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a server says to who comes in.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Its first words.
    pub banner: Reply,
    /// Its answer to EHLO.
    pub ehlo: Reply,
}

/// Connects, reads the banner, says EHLO and leaves. A refusal is [`FaultKind::Refused`].
pub async fn greet(setup: &Setup, address: SocketAddr) -> Result<Greeting, Fault> {
    let stream = match timeout(setup.connect_timeout, connect(setup, address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return Err(Fault::new(Stage::Connect, FaultKind::Io(e))),
        Err(_) => return Err(Fault::new(Stage::Connect, FaultKind::Timeout)),
    };
    let mut connection = Connection {
        stream: Box::new(stream),
        parser: Parser::default(),
        features: Features::default(),
        reply_timeout: setup.reply_timeout,
        tls: false,
    };
    let banner = connection.reply(Stage::Banner).await?;
    if !banner.is_positive() {
        return Err(Fault::new(Stage::Banner, FaultKind::Refused(banner)));
    }
    let ehlo = connection.command(&format!("EHLO {}\r\n", setup.ehlo), Stage::Ehlo).await?;
    if !ehlo.is_positive() {
        return Err(Fault::new(Stage::Ehlo, FaultKind::Refused(ehlo)));
    }
    connection.quit(GOODBYE).await;
    Ok(Greeting { banner, ehlo })
}
