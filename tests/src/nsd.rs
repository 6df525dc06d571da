//! A private NSD: a real authoritative DNS server (UDP and TCP) for the zone `test`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::poll::eventually;
use crate::process::{Launch, Process};
use crate::{ports, scratch};

#[derive(Debug)]
pub struct Nsd {
    process: Process,
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Nsd {
    /// Serves `records`, lines of a zone file whose names are relative to `test.`.
    pub async fn start(records: &str) -> Self {
        let folder = scratch::folder("nsd");
        let port = ports::free_port();
        let zone = format!(
            "$ORIGIN test.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A \
             127.0.0.1\n{records}\n"
        );
        let config = folder.join("nsd.conf");
        std::fs::write(folder.join("test.zone"), zone).expect("a zone file");
        std::fs::write(&config, settings(&folder.display().to_string(), port)).expect("a file");
        // Debian keeps it where the path of most users does not lead.
        let debian = PathBuf::from("/usr/sbin/nsd");
        let program = if debian.is_file() { debian } else { PathBuf::from("nsd") };
        let mut launch = Launch::new(program, &folder).args(["-d", "-c"]).args([&config]);
        launch.death_signal = "TERM";
        let process = Process::start("nsd", launch, folder.join("nsd.log"));
        let nsd = Self { process, folder, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        eventually("NSD listens", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect(nsd.address).await.ok()
        })
        .await;
        nsd
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // It has children, which it ends when asked politely.
        self.process.end_politely();
        scratch::remove(&self.folder);
    }
}

fn settings(folder: &str, port: u16) -> String {
    format!(
        "server:\n ip-address: 127.0.0.1@{port}\n server-count: 1\n username: \"\"\n chroot: \"\"\n \
         zonesdir: \"{folder}\"\n pidfile: \"\"\n database: \"\"\n \
         zonelistfile: \"{folder}/zone.list\"\n xfrdfile: \"{folder}/xfrd.state\"\n\
         remote-control:\n control-enable: no\n\
         zone:\n name: \"test.\"\n zonefile: \"test.zone\"\n"
    )
}
