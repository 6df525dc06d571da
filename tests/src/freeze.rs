//! Processes that are stopped and go on: a paused machine, a stalled disk, an operator's Ctrl-Z.
//!
//! Invariants:
//! - Whatever was stopped here goes on when its [`Frozen`] is dropped, also by a panic: a stopped
//!   child of PostgreSQL would outlive its server.
//! - A process counts as stopped *inside a transaction* only when its session still has the same
//!   transaction open, rows locked, a moment later: nobody is left who could end it.

use std::process::Command;
use std::time::Duration;

use crate::deployment::Deployment;
use crate::process::Process;
use crate::random::Random;
use crate::sessions::{Session, Sessions};

/// Stopped until it is dropped.
#[derive(Debug)]
#[must_use = "it goes on as soon as this is dropped"]
pub struct Frozen {
    pid: u32,
}

impl Frozen {
    pub fn stop(pid: u32) -> Self {
        assert!(signal("STOP", pid), "process {pid} cannot be stopped");
        Self { pid }
    }

    pub fn go_on(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Fails only when it has been killed meanwhile.
        signal("CONT", self.pid);
    }
}

fn signal(signal: &str, pid: u32) -> bool {
    let line = format!("kill -{signal} {pid} 2>/dev/null");
    Command::new("sh").args(["-c", &line]).status().expect("sh runs").success()
}

/// Stops a process in the middle of a transaction that has rows locked. `None` after so many
/// tries that it seems to have none at all; then it runs.
pub async fn stop_inside_a_transaction(
    app: &Deployment,
    process: &Process,
    random: &mut Random,
) -> Option<(Frozen, Session)> {
    const TRIES: usize = 400;
    let mut sessions = Sessions::connect(app).await;
    for _ in 0..TRIES {
        tokio::time::sleep(Duration::from_millis(random.below(20))).await;
        let frozen = Frozen::stop(process.pid());
        let first = sessions.of(process.pid()).await;
        if !first.iter().any(Session::holds_rows) {
            continue;
        }
        // What was on the wire arrives; what another process has open ends.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let second = sessions.of(process.pid()).await;
        let same = |session: &Session| {
            session.holds_rows() && first.iter().any(|before| before.same_transaction(session))
        };
        if let Some(session) = second.into_iter().find(same) {
            return Some((frozen, session));
        }
    }
    None
}

/// Stops one process of PostgreSQL that serves the product, at a moment when it waits for its
/// client: it has no part of the server's own locked, at most rows.
pub async fn stop_a_backend(app: &Deployment, random: &mut Random) -> Frozen {
    const TRIES: usize = 400;
    for _ in 0..TRIES {
        let mut sessions = Sessions::connect(app).await;
        let mut waiting = sessions.all().await;
        waiting.retain(Session::waits_for_client);
        if waiting.is_empty() {
            continue;
        }
        let chosen = waiting.swap_remove(random.index(waiting.len()));
        let frozen = Frozen::stop(chosen.backend);
        if still_waits(&mut sessions, &chosen).await {
            return frozen;
        }
    }
    panic!("no session was found waiting for its client in {TRIES} tries");
}

/// A backend that was stopped while it wrote its own line in the server's table could keep a reader
/// of that table busy for ever.
pub async fn still_waits(sessions: &mut Sessions, chosen: &Session) -> bool {
    let now = tokio::time::timeout(Duration::from_secs(2), sessions.all()).await;
    let now = now.unwrap_or_default();
    now.iter().any(|session| session.backend == chosen.backend && session.waits_for_client())
}
