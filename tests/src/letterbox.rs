//! A mail server that takes mails and keeps them: where the product sends its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::poll::eventually;

/// How long a mail may take.
const WAY: Duration = Duration::from_secs(20);

/// How a letterbox behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes everything.
    Takes,
    /// Answers the first recipients with 451, so many; then takes everything.
    Later(usize),
    /// Takes connections, and says nothing.
    Silent,
}

/// A mail as it came.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    /// As the envelope names them.
    pub to: Vec<String>,
    /// Header lines.
    pub head: String,
    /// Decoded.
    pub text: String,
}

impl Mail {
    fn read(from: String, to: Vec<String>, data: &str) -> Self {
        let (head, body) = data.split_once("\r\n\r\n").expect("a head and a body");
        let head_low = head.to_ascii_lowercase();
        let text = match head_low.contains("content-transfer-encoding: quoted-printable") {
            true => unquoted(body),
            false => body.to_owned(),
        };
        assert!(!head_low.contains("content-transfer-encoding: base64"), "not read here: {data}");
        Self { from, to, head: head.to_owned(), text: text.replace("\r\n", "\n") }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.clone().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Path of the link in the text that is used once.
    pub fn link(&self) -> String {
        let (_, rest) = self.text.split_once("/login/link/").expect("a link");
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        format!("/login/link/{}", &rest[..end])
    }
}

/// RFC 2045, 6.7.
fn unquoted(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    let mut out = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let coded = after.get(..2).filter(|_| *first == b'=');
        let coded =
            coded.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        out.push(coded.unwrap_or(*first));
        rest = if coded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(out).expect("UTF-8")
}

/// The server; it ends with this.
#[derive(Debug)]
pub struct Letterbox {
    pub address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Letterbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Letterbox {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mails, connections): (Arc<Mutex<Vec<Mail>>>, Arc<AtomicUsize>) = Default::default();
        let (kept, counted) = (Arc::clone(&mails), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let later = match manner {
                Manner::Later(times) => times,
                _ => 0,
            };
            let later = Arc::new(AtomicUsize::new(later));
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (kept, later) = (Arc::clone(&kept), Arc::clone(&later));
                serving.spawn(async move {
                    let _ = serve(stream, manner, &later, &kept).await;
                });
            }
        });
        Self { address, mails, connections, task }
    }

    /// As the setting `smtp_url` names it.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every mail so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().expect("not poisoned").clone()
    }

    /// The mail number `count` to this address, the oldest first.
    pub async fn mail(&self, to: &str, count: usize) -> Mail {
        eventually(&format!("mail {count} to {to}"), WAY, || async {
            let mut own = self.mails().into_iter().filter(|mail| mail.to == [to]);
            own.nth(count)
        })
        .await
    }
}

async fn serve(
    stream: TcpStream,
    manner: Manner,
    later: &AtomicUsize,
    kept: &Mutex<Vec<Mail>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if manner == Manner::Silent {
        stream.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    stream.write_all(b"220 letterbox.test ESMTP\r\n").await?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let place = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "EHLO" => b"250-letterbox.test\r\n250 8BITMIME\r\n",
            "MAIL" => {
                (from, to) = (place(), Vec::new());
                b"250 2.1.0 Ok\r\n"
            }
            "RCPT" => {
                let put_off = |left: usize| left.checked_sub(1);
                match later.fetch_update(Ordering::SeqCst, Ordering::SeqCst, put_off) {
                    Ok(_) => b"451 4.7.1 come back later\r\n",
                    Err(_) => {
                        to.push(place());
                        b"250 2.1.5 Ok\r\n"
                    }
                }
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let data = data(&mut stream).await?;
                let mail = Mail::read(from.clone(), to.clone(), &data);
                kept.lock().expect("not poisoned").push(mail);
                b"250 2.0.0 kept\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => b"250 2.0.0 Ok\r\n",
        };
        stream.write_all(answer).await?;
    }
}

/// Up to the line with a dot, without the dots that were doubled.
async fn data(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line == ".\r\n" {
            return Ok(all);
        }
        all.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_are_read() {
        let data = "To: a@b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC see http://x/login/link/ab=\r\ncd\r\n";
        let mail = Mail::read("f@x".into(), vec!["a@b".into()], data);
        assert_eq!(mail.header("to"), Some("a@b"));
        assert_eq!(mail.text, "ü see http://x/login/link/abcd\n");
        assert_eq!(mail.link(), "/login/link/abcd");
    }
}
