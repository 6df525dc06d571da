//! Disposable domains, free providers, role names.
//!
//! Data: one text per list (shipped in `data/`, or a file that the settings name), one entry a line,
//! lower case, domains in ASCII form, `#` for comments; plus the sorted starts of its lines. A look-up
//! is a binary search, well under 1 µs, and costs no memory beyond text and starts. Files are read
//! again when they change.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use listmill_shared::domain::clock::{Clock, Millis};

const DISPOSABLE: &str = include_str!("../../data/disposable.txt");
const FREE: &str = include_str!("../../data/free.txt");
const ROLES: &str = include_str!("../../data/roles.txt");

/// A list that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("list {path}: {source}")]
pub struct ListError {
    path: PathBuf,
    source: std::io::Error,
}

/// Files that replace the shipped lists.
#[derive(Debug, Clone, Default)]
pub struct ListFiles {
    /// Disposable domains.
    pub disposable: Option<PathBuf>,
    /// Free providers.
    pub free: Option<PathBuf>,
    /// Role names.
    pub roles: Option<PathBuf>,
}

/// The three lists.
pub struct Lists {
    disposable: Set,
    free: Set,
    roles: Set,
}

impl Lists {
    /// The lists that come with the program.
    pub fn shipped() -> Self {
        let set = |text| Set::new(Cow::Borrowed(text));
        Self { disposable: set(DISPOSABLE), free: set(FREE), roles: set(ROLES) }
    }

    /// Shipped lists, but for those that `files` replaces.
    pub fn load(files: &ListFiles) -> Result<Self, ListError> {
        let set = |file: &Option<PathBuf>, shipped| match file {
            None => Ok(Set::new(Cow::Borrowed(shipped))),
            Some(path) => read(path).map(|text| Set::new(Cow::Owned(text))),
        };
        Ok(Self {
            disposable: set(&files.disposable, DISPOSABLE)?,
            free: set(&files.free, FREE)?,
            roles: set(&files.roles, ROLES)?,
        })
    }

    /// Is `domain` (ASCII form, lower case), or a domain above it, a throw-away provider?
    pub fn is_disposable(&self, domain: &str) -> bool {
        let mut rest = domain;
        loop {
            if self.disposable.contains(rest) {
                return true;
            }
            // A bare top-level domain is nobody's mail provider.
            match rest.split_once('.') {
                Some((_, above)) if above.contains('.') => rest = above,
                _ => return false,
            }
        }
    }

    /// Is `domain` (ASCII form, lower case) a free mailbox provider?
    pub fn is_free(&self, domain: &str) -> bool {
        self.free.contains(domain)
    }

    /// Is the local part a function's name, whatever its case and `+tag`?
    pub fn is_role(&self, local: &str) -> bool {
        let name = local.split('+').next().unwrap_or(local);
        match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => self.roles.contains(&name.to_ascii_lowercase()),
            false => self.roles.contains(name),
        }
    }
}

/// How often the files are looked at.
const LOOK_MS: Millis = 10_000;

/// The lists in use. Files are read anew when they have changed; one that cannot be read leaves the
/// lists as they are.
pub struct LiveLists {
    files: ListFiles,
    lists: RwLock<Arc<Lists>>,
    look_at: AtomicI64,
    /// Time of change and size of each file, as last read.
    seen: Mutex<Vec<Stamp>>,
}

/// A file's time of change and size; `None` = it is not there.
type Stamp = Option<(SystemTime, u64)>;

impl LiveLists {
    /// Reads the lists.
    pub fn load(files: ListFiles, now: Millis) -> Result<Arc<Self>, ListError> {
        let seen = Mutex::new(files.stamps());
        let lists = RwLock::new(Arc::new(Lists::load(&files)?));
        Ok(Arc::new(Self { files, lists, look_at: AtomicI64::new(now + LOOK_MS), seen }))
    }

    /// The lists of this moment. Now and then looks at the files, aside.
    pub fn get(self: &Arc<Self>, clock: &Clock) -> Arc<Lists> {
        let (now, due) = (clock.now(), self.look_at.load(Ordering::Relaxed));
        let (look, next) = (now >= due, now + LOOK_MS);
        if look
            && !self.files.is_empty()
            && self
                .look_at
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.look());
        }
        self.lists.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self) {
        let stamps = self.files.stamps();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamps {
            return;
        }
        *seen = stamps;
        match Lists::load(&self.files) {
            Ok(lists) => {
                *self.lists.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lists);
                tracing::info!("list files have changed; they are read anew");
            }
            Err(error) => tracing::warn!(%error, "list files have changed; going on with the old"),
        }
    }
}

impl ListFiles {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.disposable, &self.free, &self.roles].into_iter().flatten()
    }

    fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        self.all().map(stamp).collect()
    }
}

fn read(path: &Path) -> Result<String, ListError> {
    std::fs::read_to_string(path)
        .map(|text| text.to_lowercase())
        .map_err(|source| ListError { path: path.to_owned(), source })
}

struct Set {
    text: Cow<'static, str>,
    /// Where entries start and end, in the order of the entries.
    lines: Vec<(u32, u32)>,
}

impl Set {
    fn new(text: Cow<'static, str>) -> Self {
        let base = text.as_ptr().addr();
        let mut lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        lines.sort_unstable();
        let place = |line: &&str| {
            let start = line.as_ptr().addr() - base;
            // Nothing beyond 4 GiB is a list; such lines would just never match.
            (u32::try_from(start).unwrap_or(0), u32::try_from(start + line.len()).unwrap_or(0))
        };
        let lines = lines.iter().map(place).collect();
        Self { text, lines }
    }

    fn contains(&self, entry: &str) -> bool {
        self.lines.binary_search_by(|&(start, end)| self.line(start, end).cmp(entry)).is_ok()
    }

    fn line(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_usual_ones() {
        let lists = Lists::shipped();
        for domain in ["mailinator.com", "sub.mailinator.com", "guerrillamail.com", "yopmail.com"] {
            assert!(lists.is_disposable(domain), "{domain}");
            assert!(!lists.is_free(domain), "{domain}");
        }
        for domain in ["gmail.com", "gmx.de", "mail.com", "com", "example.com", ""] {
            assert!(!lists.is_disposable(domain), "{domain}");
        }
        assert!(lists.is_free("gmail.com") && lists.is_free("gmx.de") && lists.is_free("qq.com"));
        assert!(!lists.is_free("example.com") && !lists.is_free("sub.gmail.com"));
        for local in ["info", "INFO", "sales+x", "postmaster", "abuse", "no-reply"] {
            assert!(lists.is_role(local), "{local}");
        }
        assert!(!lists.is_role("kate.smith") && !lists.is_role("infos-kate"));
    }

    #[test]
    fn no_well_known_provider_is_disposable() {
        let lists = Lists::shipped();
        for domain in crate::provider::suggest::WELL_KNOWN {
            assert!(!lists.is_disposable(domain), "{domain}");
        }
    }

    #[test]
    fn a_file_replaces_a_list() {
        let path = std::env::temp_dir().join(format!("listmill-lists-{}", std::process::id()));
        std::fs::write(&path, "# ours\nzz.example\n\n  Aa.Example  \r\n").unwrap();
        let files = ListFiles { disposable: Some(path.clone()), ..ListFiles::default() };
        let lists = Lists::load(&files).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(lists.is_disposable("zz.example") && lists.is_disposable("aa.example"));
        assert!(!lists.is_disposable("mailinator.com"));
        assert!(lists.is_free("gmail.com"));
        assert!(Lists::load(&files).is_err());
    }
}
