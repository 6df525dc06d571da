//! A private postgrey: the greylisting that runs beside many a Postfix, with a short delay.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use crate::poll::eventually;
use crate::postfix::user;
use crate::process::{Launch, Process};
use crate::{ports, scratch};

#[derive(Debug)]
pub struct Postgrey {
    process: Process,
    folder: PathBuf,
    pub port: u16,
}

impl Postgrey {
    /// Whoever comes again after `delay` is let in.
    pub async fn start(delay: Duration) -> Self {
        let folder = scratch::folder("postgrey");
        let port = ports::free_port();
        // Its package makes it a user. It starts as that one, as a process that changes its user
        // loses its death signal.
        let account = user("postgrey");
        chown(&folder, Some(account.0), Some(account.1)).expect("root can give a folder away");
        let nobody = folder.join("nobody");
        std::fs::write(&nobody, "").expect("an empty file");
        let (folder_shown, nobody) = (folder.display(), nobody.display());
        let mut launch = Launch::new("postgrey", &folder).args([
            format!("--inet=127.0.0.1:{port}"),
            format!("--dbdir={folder_shown}"),
            format!("--delay={}", delay.as_secs()),
            "--auto-whitelist-clients=0".to_owned(),
            format!("--whitelist-clients={nobody}"),
            format!("--whitelist-recipients={nobody}"),
        ]);
        launch.user = Some(account);
        let process = Process::start("postgrey", launch, folder.join("postgrey.log"));
        eventually("postgrey listens", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self { process, folder, port }
    }
}

impl Drop for Postgrey {
    fn drop(&mut self) {
        self.process.kill9();
        scratch::remove(&self.folder);
    }
}
