//! Mails that Listmill itself sends: lost passwords, invitations, sign-up.
//!
//! Data: a queue of at most [`QUEUE`] letters in memory and one task that sends them, one after another. A letter
//! that is not taken is tried again after each of [`AGAIN`], as long as the process lives; one that is refused for
//! good (5yz) is given up.
//!
//! Invariants: who posts a letter never waits, whatever the server does: where there is no room, the letter is lost,
//! and counted. What is sent is text without attachments, to one recipient, and no header holds what somebody
//! wrote but the recipient's address. Neither address nor text nor password stands in the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls as Protection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{AsyncSmtpTransport, Error};
use lettre::{Address, AsyncTransport, Tokio1Executor};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::domain::clock::{Clock, Millis};
use crate::domain::id::Ids;
use crate::settings::{MailServer, Settings, Tls};

/// Letters that wait, and likewise those that wait to be tried again.
const QUEUE: usize = 256;
/// How long a letter may take on its way to the server.
const PATIENCE: Duration = Duration::from_secs(30);
/// When a letter is tried again, counted from the try before.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// Of mails that are not taken one line stands in the log in so long.
const QUIET: Duration = Duration::from_secs(600);

/// Name of the counter; the label `outcome` is `sent`, `retried`, `given_up` or `lost`.
pub const COUNTED: &str = "listmill_mails_total";

fn count(outcome: &'static str) {
    metrics::counter!(COUNTED, "outcome" => outcome).increment(1);
}

/// A mail to be sent.
#[derive(Clone)]
pub struct Letter {
    /// Whom to.
    pub to: String,
    /// One line.
    pub subject: String,
    /// Text.
    pub text: String,
}

/// Takes letters; cheap to clone.
#[derive(Clone)]
pub struct Mail(Option<Arc<Slot>>);

struct Slot {
    letters: mpsc::Sender<Letter>,
    /// It was said that there is no room.
    full: Arc<AtomicBool>,
}

/// Can mail be sent to this address?
pub fn is_address(email: &str) -> bool {
    email.parse::<Address>().is_ok()
}

impl Mail {
    /// Begins to send, if there is a server; must be called inside a runtime then.
    pub fn new(settings: &Settings, clock: Clock, ids: Ids) -> Self {
        let Some((server, from)) = settings.mail() else { return Self(None) };
        let (letters, waiting) = mpsc::channel(QUEUE);
        let full = Arc::new(AtomicBool::new(false));
        let hello = hello(settings, &from);
        let sender = Sender {
            server,
            from,
            hello,
            clock,
            ids,
            full: full.clone(),
            told: None,
            transport: None,
        };
        tokio::spawn(sender.run(waiting));
        Self(Some(Arc::new(Slot { letters, full })))
    }

    /// Is there a server?
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Puts a letter into the queue; `false`: there is no server, or no room.
    pub fn post(&self, letter: Letter) -> bool {
        let Some(to) = &self.0 else { return false };
        if to.letters.try_send(letter).is_ok() {
            return true;
        }
        count("lost");
        if !to.full.swap(true, Ordering::Relaxed) {
            tracing::warn!("mails are lost: {QUEUE} wait to be sent already");
        }
        false
    }
}

/// How we introduce ourselves.
fn hello(settings: &Settings, from: &Mailbox) -> String {
    settings.smtp_ehlo.clone().unwrap_or_else(|| from.email.domain().to_owned())
}

type Transport = AsyncSmtpTransport<Tokio1Executor>;

fn transport(server: &MailServer, hello: &str) -> Result<Transport, Error> {
    let host = || TlsParameters::new(server.host.clone());
    let tls = match server.tls {
        Tls::None => Protection::None,
        Tls::Required => Protection::Required(host()?),
        Tls::Always => Protection::Wrapper(host()?),
    };
    let mut builder = Transport::builder_dangerous(&server.host)
        .port(server.port)
        .tls(tls)
        .hello_name(ClientId::Domain(hello.to_owned()))
        .timeout(Some(PATIENCE));
    if let Some((name, password)) = &server.user {
        builder = builder.credentials(Credentials::new(name.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

/// Looks whether the server answers, and lets us in.
pub async fn try_server(settings: &Settings, patience: Duration) -> Option<Result<String, String>> {
    let (server, from) = settings.mail()?;
    let asked = async {
        let transport = transport(&server, &hello(settings, &from)).map_err(|e| why(&e))?;
        match transport.test_connection().await {
            Ok(true) => Ok(server.to_string()),
            Ok(false) => Err("it hangs up".to_owned()),
            Err(error) => Err(why(&error)),
        }
    };
    let end = timeout(patience, asked).await;
    Some(
        end.unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(|why| format!("{server}: {why}")),
    )
}

/// What went wrong, without what the server says: that may hold an address.
fn why(error: &Error) -> String {
    match error.status() {
        Some(code) => format!("it answers {code}"),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None if error.is_tls() => "the encrypted connection cannot be made".to_owned(),
        None if error.is_response() => "what it answers is not SMTP".to_owned(),
        None if error.is_client() => "it does not offer what is needed".to_owned(),
        None => "no connection".to_owned(),
    }
}

/// A letter, and how often it was tried.
struct Waiting {
    letter: Letter,
    tries: usize,
    due: Instant,
}

/// What became of a try.
enum End {
    Sent,
    /// It may go later.
    Later(String),
    /// It never will.
    Never(String),
}

struct Sender {
    server: MailServer,
    from: Mailbox,
    hello: String,
    clock: Clock,
    ids: Ids,
    full: Arc<AtomicBool>,
    /// When it was said that a mail was not taken.
    told: Option<Instant>,
    /// Made with the first letter: it reads the certificates that the system trusts.
    transport: Option<Transport>,
}

impl Sender {
    async fn run(mut self, mut letters: mpsc::Receiver<Letter>) {
        // In the order of their dues, but for a little.
        let mut again: VecDeque<Waiting> = VecDeque::new();
        loop {
            let next = again.iter().enumerate().min_by_key(|(_, one)| one.due);
            let next = next.map(|(at, one)| (at, one.due));
            let due = next.map_or_else(Instant::now, |(_, due)| due);
            let mut waiting = tokio::select! {
                Some(letter) = letters.recv(), if again.len() < QUEUE => {
                    Waiting { letter, tries: 0, due: Instant::now() }
                }
                () = sleep_until(due), if next.is_some() => {
                    let at = next.map_or(0, |(at, _)| at);
                    let Some(waiting) = again.remove(at) else { continue };
                    waiting
                }
                else => return,
            };
            if letters.is_empty() {
                self.full.store(false, Ordering::Relaxed);
            }
            let end = self.send(&waiting.letter).await;
            self.tell(&end);
            match (end, AGAIN.get(waiting.tries)) {
                (End::Sent, _) => count("sent"),
                (End::Later(_), Some(pause)) => {
                    count("retried");
                    waiting.tries += 1;
                    waiting.due = Instant::now() + *pause;
                    again.push_back(waiting);
                }
                (End::Later(_) | End::Never(_), _) => count("given_up"),
            }
        }
    }

    /// Says now and then that mails are not taken: any address may be one that its server refuses.
    fn tell(&mut self, end: &End) {
        let (End::Later(why) | End::Never(why)) = end else { return };
        if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            self.told = Some(Instant::now());
            tracing::warn!(server = %self.server, why, "a mail was not taken; others are not told of for a while");
        }
    }

    async fn send(&mut self, letter: &Letter) -> End {
        let Some(message) = self.message(letter) else {
            return End::Never("the mail cannot be written".to_owned());
        };
        let transport = match self.transport.take() {
            Some(transport) => transport,
            None => match transport(&self.server, &self.hello) {
                Ok(transport) => transport,
                Err(error) => return End::Later(why(&error)),
            },
        };
        let end = timeout(PATIENCE, transport.send(message)).await;
        self.transport = Some(transport);
        match end {
            Ok(Ok(_)) => End::Sent,
            Ok(Err(error)) if error.is_permanent() => End::Never(why(&error)),
            Ok(Err(error)) => End::Later(why(&error)),
            Err(_) => End::Later("no answer in time".to_owned()),
        }
    }

    fn message(&self, letter: &Letter) -> Option<Message> {
        let to = Mailbox::new(None, letter.to.parse().ok()?);
        let now: Millis = self.clock.now();
        let since = Duration::from_millis(u64::try_from(now).unwrap_or(0));
        let id: [u8; 16] = self.ids.bytes();
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        // RFC 3834, 5: no answer by a machine is wanted.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(letter.subject.as_str())
            .date(UNIX_EPOCH + since)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text.clone())
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        let pairs = [
            ("LISTMILL_SMTP_URL", url),
            ("LISTMILL_MAIL_FROM", "Listmill <listmill@example.com>"),
            ("LISTMILL_PUBLIC_URL", "https://listmill.example.com"),
        ];
        Settings::load(None, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .unwrap()
    }

    fn sender() -> Sender {
        let (server, from) = settings("smtp://127.0.0.1:1").mail().unwrap();
        Sender {
            server,
            from,
            hello: "example.com".to_owned(),
            clock: Clock::manual(1_795_000_000_000),
            ids: Ids::seeded(1),
            full: Arc::default(),
            told: None,
            transport: None,
        }
    }

    #[test]
    fn a_letter_is_text_to_one() {
        let letter = Letter {
            to: "ada@example.com".to_owned(),
            subject: "Your password\r\nBcc: eve@example.com".to_owned(),
            text: "Hello,\nworld: ü\n.\n".to_owned(),
        };
        let written = sender().message(&letter).unwrap();
        let text = String::from_utf8(written.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_ascii_lowercase().contains("\r\nbcc:"), "{head}");
        for line in ["To: ada@example.com", "Auto-Submitted: auto-generated", "Date: ", "From: "] {
            assert!(head.lines().any(|own| own.starts_with(line)), "{line}: {head}");
        }
        let envelope = written.envelope();
        assert_eq!(envelope.to().len(), 1);
        assert_eq!(envelope.to()[0].to_string(), "ada@example.com");
    }

    #[test]
    fn what_is_no_address_is_sent_nothing() {
        for to in ["", "ada", "ada@example.com\r\nBcc: eve@x", "a@b,c@d", "<a@b>", "a b@x.example"]
        {
            let letter = Letter { to: to.to_owned(), subject: String::new(), text: String::new() };
            assert!(sender().message(&letter).is_none(), "{to:?}");
            assert!(!is_address(to), "{to:?}");
        }
    }

    #[tokio::test]
    async fn who_posts_does_not_wait_and_what_finds_no_room_is_lost() {
        // It takes a connection, and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", silent.local_addr().unwrap());
        let mail = Mail::new(&settings(&url), Clock::manual(1_795_000_000_000), Ids::seeded(1));
        assert!(mail.is_on());
        let letter = || Letter {
            to: "ada@example.com".to_owned(),
            subject: "s".to_owned(),
            text: "t".to_owned(),
        };
        let taken = (0..QUEUE * 2).filter(|_| mail.post(letter())).count();
        assert_eq!(taken, QUEUE, "nobody was sent one meanwhile: the test has one thread");
    }
}
