//! A private Postfix: its own configuration, queue and data in a temporary folder; never the
//! system's. It only listens: there is nothing in its `master.cf` that could send mail on.
//!
//! Postfix's `master` starts as root and nothing else, and its daemons run as the user `postfix`,
//! which its package makes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::poll::eventually;
use crate::process::{Launch, Process};
use crate::scratch;

const DAEMONS: &str = "/usr/lib/postfix/sbin";
/// `master` changes its user back and forth, which costs it the death signal; this shell keeps it
/// and hands it on. It has a session of its own, so that what kills the tests' process group does not
/// kill it as well.
const KEEPER: &str = r#"
"$@" &
trap 'kill -TERM "$!"' TERM
wait "$!"
wait "$!"
"#;

/// One listening `smtpd`.
#[derive(Debug, Clone)]
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// What differs for it from `main.cf`: `name=value`, without spaces.
    pub options: Vec<String>,
}

/// What it serves.
#[derive(Debug, Clone, Default)]
pub struct Site {
    pub services: Vec<Service>,
    /// Domains that it takes mail for.
    pub domains: Vec<String>,
    /// Mailboxes: `kate@a.test`, or `@a.test` for all of a domain.
    pub mailboxes: Vec<String>,
    /// Recipients that an access map answers for: address, then its words, code first.
    pub access: Vec<(String, String)>,
    /// Certificate and key, PEM; STARTTLS is offered when there is one.
    pub certificate: Option<String>,
}

#[derive(Debug)]
pub struct Postfix {
    process: Process,
    folder: PathBuf,
}

impl Postfix {
    pub async fn start(site: &Site) -> Self {
        let postfix = user("postfix");
        let folder = scratch::folder("postfix");
        write_queue(&folder, postfix);
        write_settings(&folder, site);
        let launch = Launch::new("setsid", &folder).args(["sh", "-c", KEEPER, "keeper"]);
        // `-s`: in the foreground, head of a process group, which it takes with it when it ends.
        let launch = launch.args([Path::new(DAEMONS).join("master")]).args(["-s", "-c"]);
        let mut launch = launch.args([folder.join("etc")]);
        launch.death_signal = "TERM";
        let process = Process::start("postfix", launch, folder.join("postfix.log"));
        let server = Self { process, folder };
        for service in &site.services {
            eventually("Postfix listens", Duration::from_secs(20), || async {
                tokio::net::TcpStream::connect(service.address).await.ok()
            })
            .await;
        }
        server
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("mail.log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.process.end_politely();
        scratch::remove(&self.folder);
    }
}

/// User and group of a package's account; only root can start anything as somebody else.
pub(crate) fn user(name: &str) -> (u32, u32) {
    let id = |args: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(args).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    assert_eq!(
        id(&["-u"]),
        Some(0),
        "tests against Postfix need root (or leave them out: --skip engine::servers)"
    );
    let found = id(&["-u", name]).zip(id(&["-g", name]));
    found.unwrap_or_else(|| panic!("there is no user {name}: install the package {name}"))
}

fn write_queue(folder: &Path, postfix: (u32, u32)) {
    let make = |path: &Path, mode: u32, owner: Option<(u32, u32)>| {
        std::fs::create_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        if let Some((uid, gid)) = owner {
            chown(path, Some(uid), Some(gid)).expect("root can give a folder away");
        }
    };
    make(&folder.join("etc"), 0o755, None);
    make(&folder.join("data"), 0o700, Some(postfix));
    let queue = folder.join("queue");
    make(&queue, 0o755, None);
    make(&queue.join("pid"), 0o755, None);
    for name in ["public", "maildrop"] {
        make(&queue.join(name), 0o710, Some(postfix));
    }
    for name in ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold"] {
        make(&queue.join(name), 0o700, Some(postfix));
    }
    for name in ["incoming", "private", "saved", "trace"] {
        make(&queue.join(name), 0o700, Some(postfix));
    }
}

fn write_settings(folder: &Path, site: &Site) {
    let shown = folder.display();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join("etc").join(name), text).expect("a file");
    };
    write("mailboxes", &site.mailboxes.iter().map(|m| format!("{m} here\n")).collect::<String>());
    write(
        "access",
        &site.access.iter().map(|(who, what)| format!("{who} {what}\n")).collect::<String>(),
    );
    // All tests come from one address, and at once: no limits on that.
    let mut main = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {shown}/queue\n\
         data_directory = {shown}/data\n\
         daemon_directory = {DAEMONS}\n\
         maillog_file_prefixes = {shown}\n\
         maillog_file = {shown}/mail.log\n\
         myhostname = mx.test\n\
         mydestination =\n\
         mynetworks =\n\
         alias_maps =\n\
         local_recipient_maps =\n\
         virtual_mailbox_domains = {domains}\n\
         virtual_mailbox_maps = texthash:{shown}/etc/mailboxes\n\
         smtpd_relay_restrictions = reject_unauth_destination\n\
         smtpd_recipient_restrictions = check_recipient_access texthash:{shown}/etc/access\n\
         smtpd_peername_lookup = no\n\
         default_process_limit = 400\n\
         smtpd_client_connection_count_limit = 0\n",
        domains = site.domains.join(", ")
    );
    if let Some(certificate) = &site.certificate {
        write("certificate.pem", certificate);
        let _ = write!(
            main,
            "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {shown}/etc/certificate.pem\n"
        );
    }
    write("main.cf", &main);
    let mut services = String::new();
    for Service { address, options } in &site.services {
        let _ = writeln!(services, "{address} inet n - n - - smtpd");
        for option in options {
            let _ = writeln!(services, "  -o {option}");
        }
    }
    // What an smtpd asks while it listens; no `smtp`, no `qmgr`: nothing leaves.
    services += "postlog unix-dgram n - n - 1 postlogd\n\
                 rewrite unix - - n - - trivial-rewrite\n\
                 cleanup unix n - n - 0 cleanup\n\
                 anvil unix - - n - 1 anvil\n\
                 tlsmgr unix - - n 1000? 1 tlsmgr\n\
                 proxymap unix - - n - - proxymap\n";
    write("master.cf", &services);
}
