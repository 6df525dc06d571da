//! A private Redis without persistence, spoken to by inline commands over a plain socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::poll::eventually;
use crate::process::{Launch, Process};
use crate::{ports, scratch};

#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    folder: PathBuf,
}

impl Redis {
    pub async fn start() -> Self {
        let folder = scratch::folder("redis");
        let port = ports::free_port();
        let launch = Launch::new("redis-server", &folder).args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ]);
        let log = folder.join("redis.log");
        let redis = Self { process: Process::start("redis", launch, log), port, folder };
        redis.wait_up().await;
        redis
    }

    pub fn url(&self) -> String {
        url_at(self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    async fn wait_up(&self) {
        eventually("Redis answers PING", Duration::from_secs(10), || async {
            self.command("PING").ok().filter(|answer| answer.starts_with("+PONG"))
        })
        .await;
    }

    pub fn command(&self, line: &str) -> std::io::Result<String> {
        let limit = Some(Duration::from_secs(5));
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(limit)?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = [0; 256];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// How often clients have sent a command since the statistics were reset (`CONFIG RESETSTAT`).
    pub fn calls(&self, command: &str) -> u64 {
        let limit = Some(Duration::from_secs(5));
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("Redis");
        stream.set_read_timeout(limit).expect("a limit");
        stream.write_all(b"INFO commandstats\r\nQUIT\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let line = answer.lines().find_map(|line| {
            line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(":calls=")
        });
        let calls = line.and_then(|rest| rest.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }

    pub fn flush_all(&self) {
        let answer = self.command("FLUSHALL").expect("Redis answers");
        assert!(answer.starts_with("+OK"), "FLUSHALL: {answer}");
    }

    /// Everything in memory is gone: there is no persistence.
    pub fn stop(&mut self) {
        self.process.kill9();
    }

    pub async fn start_again(&mut self) {
        self.process.start_again();
        self.wait_up().await;
    }

    /// Connections stay open, nothing answers.
    pub fn stall(&self) {
        self.process.stop();
    }

    pub fn resume(&self) {
        self.process.cont();
    }
}

/// A Redis as it is reached at this port, its own or a proxy's.
pub fn url_at(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.kill9();
        scratch::remove(&self.folder);
    }
}
