//! The rules in use, by a file that may change.
//!
//! Data: a [`Classifier`], replaced as a whole. Invariant: a file that is gone or broken leaves the
//! rules as they are; each change, good or bad, is told once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use listmill_shared::domain::clock::{Clock, Millis};

use super::SetupError;
use super::classify::Classifier;
use super::classify::own::OwnRules;

/// How often the file is looked at.
const LOOK_MS: Millis = 5_000;

/// See the module.
pub struct LiveRules {
    /// `None`: the shipped rules alone.
    path: Option<PathBuf>,
    current: RwLock<Arc<Classifier>>,
    look_at: AtomicI64,
    /// Time of change and size, as last read.
    seen: Mutex<Stamp>,
}

/// `None` = the file is not there.
type Stamp = Option<(SystemTime, u64)>;

impl LiveRules {
    /// Reads the file, if there is one.
    pub fn load(path: Option<PathBuf>, now: Millis) -> Result<Arc<Self>, SetupError> {
        let seen = Mutex::new(path.as_deref().and_then(stamp));
        let classifier = match &path {
            None => Classifier::default(),
            Some(path) => {
                let own = OwnRules::load(path);
                let own = own.map_err(|source| SetupError::Rules { path: path.clone(), source })?;
                tracing::info!(rules = own.len(), path = %path.display(), "classify_rules is read");
                Classifier::with(own)
            }
        };
        let current = RwLock::new(Arc::new(classifier));
        Ok(Arc::new(Self { path, current, look_at: AtomicI64::new(now + LOOK_MS), seen }))
    }

    /// The rules of this moment. Now and then looks at the file, aside.
    pub fn get(self: &Arc<Self>, clock: &Clock) -> Arc<Classifier> {
        let (now, due) = (clock.now(), self.look_at.load(Ordering::Relaxed));
        let next = now + LOOK_MS;
        if now >= due
            && self.path.is_some()
            && self
                .look_at
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.look());
        }
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self) {
        let Some(path) = &self.path else { return };
        let now = stamp(path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        let path_shown = path.display();
        match OwnRules::load(path) {
            Ok(own) => {
                tracing::info!(rules = own.len(), path = %path_shown, "classify_rules has changed; it is read anew");
                let new = Arc::new(Classifier::with(own));
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
            }
            Err(error) => {
                tracing::error!(%error, path = %path_shown, "classify_rules has changed; going on with the old rules");
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const RULE: &str = "[[rule]]\nname = \"a-rule\"\nreason = \"blocked\"\n";

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("listmill-{name}-{}.toml", std::process::id()))
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let (path, clock) = (file("rules"), Clock::manual(0));
        fs::write(&path, RULE).unwrap();
        let live = LiveRules::load(Some(path.clone()), 0).unwrap();
        assert_eq!(live.get(&clock).own_rules(), 1);
        fs::write(&path, format!("{RULE}{}", RULE.replace("a-rule", "another"))).unwrap();
        live.look();
        assert_eq!(live.get(&clock).own_rules(), 2);
        fs::write(&path, "[[rule]]\nname = 1").unwrap();
        live.look();
        assert_eq!(live.get(&clock).own_rules(), 2);
        fs::remove_file(&path).unwrap();
        live.look();
        assert_eq!(live.get(&clock).own_rules(), 2);
        fs::write(&path, "").unwrap();
        live.look();
        assert_eq!(live.get(&clock).own_rules(), 0);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_broken_file_at_the_start_is_an_error_that_names_it() {
        let path = file("broken-rules");
        fs::write(&path, RULE.replace("blocked", "accepted")).unwrap();
        let error = LiveRules::load(Some(path.clone()), 0).err().map(|e| e.to_string());
        fs::remove_file(&path).unwrap();
        let error = error.unwrap_or_default();
        for part in ["classify_rules", "broken-rules", "a-rule", "reason", "mailbox_not_found"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(LiveRules::load(Some(path), 0).is_err());
        assert!(LiveRules::load(None, 0).is_ok());
    }
}
