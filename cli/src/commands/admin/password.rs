//! A password that is not an argument, where everybody could see it: asked for on a terminal, or read from stdin.
//!
//! While it is typed, the terminal shows nothing. It is as it was again when the asking ends, by a signal too.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, ensure};

use crate::output::ask;

/// Bytes of a line that are read.
const LONGEST: u64 = 4_096;

/// Asks for a new password twice, or reads the first line of stdin.
pub async fn read() -> Result<String> {
    if !std::io::stdin().is_terminal() {
        let password = line().await?;
        ensure!(!password.is_empty(), "stdin holds no password; or give --password");
        return Ok(password);
    }
    let _quiet = quiet::Quiet::begin()?;
    ask("new password: ");
    let first = line().await?;
    ask("\nthe same again: ");
    let second = line().await?;
    ask("\n");
    ensure!(first == second, "these were two different passwords; nothing is changed");
    Ok(first)
}

/// A line of stdin, without its end.
pub async fn line() -> Result<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().take(LONGEST).read_line(&mut line).map(|_| line)
    });
    let line = read.await?.context("cannot read stdin")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(unix)]
mod quiet {
    //! A terminal that shows nothing of what is typed.

    use anyhow::{Context as _, Result};
    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

    /// Until it is dropped.
    pub struct Quiet(Termios);

    impl Quiet {
        pub fn begin() -> Result<Self> {
            let before = tcgetattr(std::io::stdin()).context("cannot ask on this terminal")?;
            let mut now = before.clone();
            now.local_modes.remove(LocalModes::ECHO);
            tcsetattr(std::io::stdin(), OptionalActions::Flush, &now)
                .context("cannot hide what is typed")?;
            Ok(Self(before))
        }
    }

    impl Drop for Quiet {
        fn drop(&mut self) {
            // Nothing more can be done about a terminal that is gone.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
        }
    }
}

#[cfg(not(unix))]
mod quiet {
    //! No way to hide what is typed is known here.

    pub struct Quiet;

    impl Quiet {
        pub fn begin() -> anyhow::Result<Self> {
            anyhow::bail!("a password cannot be asked for here; give it on stdin")
        }
    }
}
