//! Signals: the first SIGTERM or SIGINT drains, the second stops at once.
//!
//! [`Shutdown::drain`] is cancelled by the first signal, and in a worker's process by an operator who drains it;
//! everything that runs holds it or a child of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::output::complain;

/// What interrupted us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// From a service manager.
    Terminate,
}

impl Signal {
    /// 128 + the signal's number, as a shell would say it.
    pub fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        }
    }
}

/// The process's way out.
#[derive(Clone)]
pub struct Shutdown {
    /// See the module.
    pub drain: CancellationToken,
    /// Exit code of the first signal; 0 = none came.
    first: Arc<AtomicU8>,
    /// Removed when the second signal stops the process, which drops nothing.
    temporary: Arc<Mutex<Vec<PathBuf>>>,
}

impl Shutdown {
    /// Listens from now on. `grace`: how long a role may drain; `None` for one-shot commands.
    pub fn watch(grace: Option<Duration>) -> io::Result<Self> {
        let shutdown = Self {
            drain: CancellationToken::new(),
            first: Arc::new(AtomicU8::new(0)),
            temporary: Arc::default(),
        };
        let mut signals = Signals::listen()?;
        let watched = shutdown.clone();
        tokio::spawn(async move {
            let Some(signal) = signals.next().await else { return };
            complain(&match grace {
                Some(grace) => format!(
                    "{}: draining, for {} s at most; the same again stops at once",
                    signal.name(),
                    grace.as_secs_f64()
                ),
                None => format!("{}: stopping; the same again stops at once", signal.name()),
            });
            watched.first.store(signal.exit_code(), Ordering::SeqCst);
            watched.drain.cancel();
            let Some(signal) = signals.next().await else { return };
            complain(&format!("{} again: stopped at once", signal.name()));
            watched.remove_temporary();
            std::process::exit(signal.exit_code().into());
        });
        Ok(shutdown)
    }

    /// The first signal, if one came.
    pub fn interrupted(&self) -> Option<Signal> {
        match self.first.load(Ordering::SeqCst) {
            0 => None,
            130 => Some(Signal::Interrupt),
            _ => Some(Signal::Terminate),
        }
    }

    /// A file or folder that must not stay behind, even when the second signal stops us.
    pub fn remove_when_stopped(&self, path: &Path) {
        self.temporary.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
    }

    fn remove_temporary(&self) {
        for path in self.temporary.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // What is gone already needs no removal.
            let _ = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
        }
    }

    /// Waits for `work`, or ends with an error when a signal comes first.
    pub async fn or_interrupted<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            done = work => done,
            () = self.drain.cancelled() => Err(anyhow::anyhow!("interrupted")),
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            came = self.interrupt.recv() => came.map(|()| Signal::Interrupt),
            came = self.terminate.recv() => came.map(|()| Signal::Terminate),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::signal::ctrl_c().await.ok().map(|()| Signal::Interrupt)
    }
}
