//! A connection for what the server says of us, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Connection, Setup};
use crate::provider::smtp::reply::Reply;
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
    let mut stage = Stage::default();
    let (mut connection, banner) = Connection::greeted(setup, address, &mut stage).await?;
    let ehlo = connection.command(&format!("EHLO {}\r\n", setup.ehlo), Stage::Ehlo).await?;
    if !ehlo.is_positive() {
        return Err(Fault::new(Stage::Ehlo, FaultKind::Refused(ehlo)));
    }
    connection.quit(GOODBYE).await;
    Ok(Greeting { banner, ehlo })
}
