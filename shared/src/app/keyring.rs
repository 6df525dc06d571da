//! The peppers of this process, and whether they are those of the database.
//!
//! They come from the setting `key_pepper`, else from the file `key-pepper` in the folder of a SQLite database
//! or in `data_dir`. The database holds a proof of each pepper in use; a process that lacks one, or has another
//! of that name, does not start: it would refuse good keys, and nobody would know why. Whoever makes a schema
//! makes the first pepper, and wraps what was stored without one, some rows at a time; that may be interrupted
//! anywhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::App;
use crate::domain::key::pepper::BadPepper;
use crate::domain::key::{KeyHash, Pepper, Peppers, Secret};
use crate::store::{Store, StoreError};

/// Keys wrapped in one transaction.
const SOME: i64 = 1_000;
/// Bytes of the file, at most.
const LONGEST: u64 = 64 << 10;

/// Why a process cannot judge keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// None is there, though the database's keys were stored with one.
    #[error(
        "the keys of this database are stored with the pepper {id:?}, which this process does not have: set \
         LISTMILL_KEY_PEPPER, or bring the file {file:?} here from the machine that made the database"
    )]
    Missing {
        /// The pepper's id.
        id: String,
        /// Where it was looked for.
        file: PathBuf,
    },
    /// Another one of the same name.
    #[error(
        "the pepper {0:?} of this process is not the one that the keys of this database are stored with: every \
         key would be refused. Bring the right one (LISTMILL_KEY_PEPPER, or the file key-pepper)"
    )]
    DoesNotFit(String),
    /// None was ever made.
    #[error("there is no pepper yet, or keys are not stored with it: run `listmill migrate` first")]
    NotMade,
    /// The text of it.
    #[error("{from}: {error}")]
    Bad {
        /// Setting or file.
        from: String,
        /// What it should be.
        error: BadPepper,
    },
    /// The file.
    #[error("cannot read or write {file:?}, which holds the pepper of the keys: {error}")]
    File {
        /// Its path.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl App {
    /// Learns the peppers and proves them; `make`: this process has made the schema, so it makes what is not
    /// there. How many keys were wrapped.
    pub async fn open_keyring(&self, make: bool) -> Result<u64, KeyringError> {
        let file = self.pepper_file();
        let known = match self.settings.key_pepper.reveal() {
            "" => read(&file)?,
            text => Some(Peppers::parse(text).map_err(|error| KeyringError::Bad {
                from: String::from("settings: key_pepper"),
                error,
            })?),
        };
        let stored = self.store.peppers().await?;
        let peppers = match known {
            Some(known) => known,
            None => match stored.first() {
                Some((id, _)) => return Err(KeyringError::Missing { id: id.clone(), file }),
                None if make => {
                    let id = format!("p{:08x}", u32::from_le_bytes(self.ids.bytes()));
                    write(&file, &Pepper::new(id, self.ids.bytes()))?
                }
                None => return Err(KeyringError::NotMade),
            },
        };
        fits(&peppers, &stored, &file)?;
        let newest = peppers.newest();
        if !stored.iter().any(|(id, _)| id == newest.id()) {
            if stored.is_empty() && !make {
                return Err(KeyringError::NotMade);
            }
            self.store.add_pepper(&peppers, self.now()).await?;
            // Somebody else may have been faster.
            fits(&peppers, &self.store.peppers().await?, &file)?;
        }
        let wrapped = match make {
            true => wrap(&self.store, newest).await?,
            false if self.store.has_bare_keys().await? => return Err(KeyringError::NotMade),
            false => 0,
        };
        // A second time, it is the same.
        let _ = self.peppers.set(peppers);
        Ok(wrapped)
    }

    /// The peppers.
    pub fn peppers(&self) -> Result<&Peppers, StoreError> {
        self.peppers.get().ok_or(StoreError::Away)
    }

    /// What a presented key may be stored as; the likeliest first.
    pub(super) fn hashes(&self, secret: &Secret) -> Result<Vec<KeyHash>, StoreError> {
        Ok(self.peppers()?.all().map(|pepper| pepper.hash(secret)).collect())
    }

    fn pepper_file(&self) -> PathBuf {
        const NAME: &str = "key-pepper";
        match &self.store {
            Store::Lite { path, .. } => path.with_file_name(NAME),
            Store::Pg(_) => Path::new(&self.settings.data_dir).join(NAME),
        }
    }
}

/// Fails unless every pepper of the database is among these.
fn fits(peppers: &Peppers, stored: &[(String, Vec<u8>)], file: &Path) -> Result<(), KeyringError> {
    for (id, proof) in stored {
        match peppers.get(id) {
            Some(pepper) if pepper.proof()[..] == proof[..] => {}
            Some(_) => return Err(KeyringError::DoesNotFit(id.clone())),
            None => {
                return Err(KeyringError::Missing { id: id.clone(), file: file.to_owned() });
            }
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Option<Peppers>, KeyringError> {
    let trouble = |error| KeyringError::File { file: file.to_owned(), error };
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(trouble(error)),
        Ok(meta) if meta.len() > LONGEST => {
            return Err(trouble(std::io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(file).map_err(trouble)?;
    let peppers = Peppers::parse(&text);
    let from = format!("{}", file.display());
    peppers.map(Some).map_err(|error| KeyringError::Bad { from, error })
}

/// Writes the first pepper, whole or not at all; whoever comes second takes what is there.
fn write(file: &Path, pepper: &Pepper) -> Result<Peppers, KeyringError> {
    let trouble = |error| KeyringError::File { file: file.to_owned(), error };
    let folder =
        file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(trouble)?;
    let draft = file.with_file_name(format!("key-pepper.{}", pepper.id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&draft).map_err(trouble)?;
    let text = format!(
        "# Without this file no API key of the database beside it is valid. Keep a copy, apart from the\n\
         # database's own.\n{}\n",
        pepper.reveal()
    );
    let written = out.write_all(text.as_bytes()).and_then(|()| out.sync_all());
    // A link never replaces what is there.
    let linked = written.and_then(|()| std::fs::hard_link(&draft, file));
    let removed = std::fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        linked => linked.and(removed).map_err(trouble)?,
    }
    read(file)?.ok_or(KeyringError::NotMade)
}

async fn wrap(store: &Store, pepper: &Pepper) -> Result<u64, StoreError> {
    let mut wrapped = 0;
    loop {
        let bare = store.bare_keys(SOME).await?;
        if bare.is_empty() {
            return Ok(wrapped);
        }
        let hashes: Vec<_> =
            bare.into_iter().map(|(key, hash)| (key, pepper.wrap(&hash))).collect();
        store.wrap_keys(&hashes, pepper.id()).await?;
        wrapped += hashes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_write_the_file_wins_and_it_is_private() {
        let folder = std::env::temp_dir().join(format!("listmill-pepper-{}", std::process::id()));
        let file = folder.join("deep/key-pepper");
        let one = write(&file, &Pepper::new("a", [1; 32])).unwrap();
        let two = write(&file, &Pepper::new("b", [2; 32])).unwrap();
        assert_eq!((one.newest().id(), two.newest().id()), ("a", "a"));
        assert_eq!(read(&file).unwrap().unwrap().newest().proof(), one.newest().proof());
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(
            std::fs::read_dir(file.parent().unwrap()).unwrap().count(),
            1,
            "no draft is left"
        );
        std::fs::write(&file, "rubbish").unwrap();
        assert!(matches!(read(&file), Err(KeyringError::Bad { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(read(&file).unwrap().is_none());
    }
}
