//! Signals: the first of SIGTERM, SIGINT, SIGQUIT and SIGHUP drains, the second stops at once, unless it is a
//! SIGHUP: a terminal that is closed may send several. SIGQUIT and SIGHUP are ignored where they were when we
//! were started (`nohup`).
//!
//! [`Shutdown::drain`] is cancelled by the first signal, and in a worker's process by an operator who drains it;
//! everything that runs holds it or a child of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
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
    /// Ctrl-\.
    Quit,
    /// The terminal is gone.
    Hangup,
}

impl Signal {
    /// 128 + the signal's number, as a shell would say it.
    pub fn exit_code(self) -> u8 {
        128 + match self {
            Signal::Hangup => 1,
            Signal::Interrupt => 2,
            Signal::Quit => 3,
            Signal::Terminate => 15,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
            Signal::Quit => "SIGQUIT",
            Signal::Hangup => "SIGHUP",
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
            let again = match signal.name() {
                "SIGINT" => String::from("Press Ctrl-C again to quit now."),
                name => format!("Send {name} again to quit now."),
            };
            complain(&match grace {
                Some(grace) => format!(
                    "Stopping: waiting up to {} s for work in progress. {again}",
                    grace.as_secs_f64()
                ),
                None => format!("Stopping. {again}"),
            });
            watched.first.store(signal.exit_code(), Ordering::SeqCst);
            watched.drain.cancel();
            let signal = loop {
                match signals.next().await {
                    Some(Signal::Hangup) => {}
                    Some(signal) => break signal,
                    None => return,
                }
            };
            complain(&format!("{} again: stopped at once", signal.name()));
            watched.remove_temporary();
            std::process::exit(signal.exit_code().into());
        });
        Ok(shutdown)
    }

    /// The first signal, if one came.
    pub fn interrupted(&self) -> Option<Signal> {
        let first = self.first.load(Ordering::SeqCst);
        let all = [Signal::Interrupt, Signal::Terminate, Signal::Quit, Signal::Hangup];
        all.into_iter().find(|signal| signal.exit_code() == first)
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
struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut kinds = vec![
            (Signal::Interrupt, SignalKind::interrupt()),
            (Signal::Terminate, SignalKind::terminate()),
        ];
        let ignored = ignored();
        for kind in [(Signal::Quit, SignalKind::quit()), (Signal::Hangup, SignalKind::hangup())] {
            if ignored & (1 << (kind.1.as_raw_value() - 1)) == 0 {
                kinds.push(kind);
            }
        }
        let listening = kinds.into_iter().map(|(what, kind)| Ok((what, signal(kind)?)));
        listening.collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> Option<Signal> {
        std::future::poll_fn(|context| {
            for (what, signal) in &mut self.0 {
                if let Poll::Ready(came) = signal.poll_recv(context) {
                    return Poll::Ready(came.map(|()| *what));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The signals that are ignored, a bit each, as Linux tells it; elsewhere none.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
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
