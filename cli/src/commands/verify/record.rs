//! What a run that can be gone on with remembers of its list.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use listmill_shared::settings::{ProviderKind, Settings};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::input::Subject;
use crate::args::VerifyArgs;

/// What was to be verified, and how; and what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The list's name, for people.
    pub name: String,
    /// Of its bytes, in hex; none where they come but once (stdin, a pipe).
    pub sha256: Option<String>,
    /// As it was said.
    pub input_format: Option<String>,
    pub column: Option<String>,
    pub sheet: Option<String>,
    /// Who verifies.
    pub provider: String,
    /// What is in the results' place may be replaced.
    pub force: bool,
    /// Half-written results that are not in the folder.
    pub part: Option<PathBuf>,
    /// Results of ours, of what was there.
    pub written: Option<Mark>,
}

/// By what a file is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Mark {
    pub fn of(found: &Metadata) -> Self {
        let modified = (found.mtime(), found.mtime_nsec());
        Self { inode: found.ino(), bytes: found.len(), modified }
    }
}

impl Record {
    /// Of what the arguments name; reads the list once.
    pub async fn of(subject: &Subject, args: &VerifyArgs, settings: &Settings) -> Result<Self> {
        let sha256 = match subject {
            Subject::File(path) if path.is_file() => {
                let file = path.clone();
                let summing = tokio::task::spawn_blocking(move || sum(&file));
                let sum = summing.await?;
                Some(sum.with_context(|| format!("cannot read {}", path.display()))?)
            }
            _ => None,
        };
        let provider = args.provider.map_or(settings.provider, ProviderKind::from);
        Ok(Self {
            name: subject.name(),
            sha256,
            input_format: args.input_format.map(|format| format.to_string()),
            column: args.column.clone(),
            sheet: args.sheet.clone(),
            provider: name_of(provider).to_owned(),
            force: args.force,
            part: None,
            written: None,
        })
    }

    /// Is `wanted` the same list, to be verified in the same way? What is not said is as it was.
    pub fn fits(&self, wanted: &Self) -> Result<()> {
        if self.sha256 != wanted.sha256 {
            let (began, now) = (&self.name, &wanted.name);
            match self.sha256.is_some() && began == now {
                true => bail!("{now} has changed since it began. --restart begins anew"),
                false => bail!("it began with another list ({began}). --restart begins anew"),
            }
        }
        for (option, before, now) in [
            ("--input-format", &self.input_format, &wanted.input_format),
            ("--column", &self.column, &wanted.column),
            ("--sheet", &self.sheet, &wanted.sheet),
        ] {
            let said = before.as_deref().unwrap_or("none");
            ensure!(
                now.is_none() || before == now,
                "it began with {option}: {said}. --restart begins anew"
            );
        }
        let before = &self.provider;
        ensure!(
            *before == wanted.provider,
            "it began with the provider {before}, and this is {}: --provider {before}, or --restart, which \
             begins anew",
            wanted.provider
        );
        Ok(())
    }

    /// May what is at this path be replaced?
    pub fn may_replace(&self, path: &Path) -> bool {
        let found = || std::fs::metadata(path).ok().map(|found| Mark::of(&found));
        self.force || (self.written.is_some() && self.written == found())
    }
}

fn name_of(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::Smtp => "smtp",
        ProviderKind::Http => "http",
        ProviderKind::Sandbox => "sandbox",
    }
}

fn sum(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => hash.update(piece.get(..read).unwrap_or_default()),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_list_in_the_same_way() {
        let began = Record {
            name: "a.csv".into(),
            sha256: Some("1".into()),
            column: Some("mail".into()),
            provider: "smtp".into(),
            ..Record::default()
        };
        assert!(began.fits(&began).is_ok());
        assert!(began.fits(&Record { column: None, ..began.clone() }).is_ok(), "as it was");
        let other = |change: fn(&mut Record)| {
            let mut wanted = began.clone();
            change(&mut wanted);
            began.fits(&wanted).unwrap_err().to_string()
        };
        for (change, says) in [
            ((|now| now.sha256 = Some("2".into())) as fn(&mut Record), "a.csv has changed"),
            (|now| now.sha256 = None, "a.csv has changed"),
            (|now| (now.name, now.sha256) = ("b".into(), Some("2".into())), "another list (a.csv)"),
            (|now| now.column = Some("x".into()), "--column: mail"),
            (|now| now.sheet = Some("x".into()), "--sheet: none"),
            (|now| now.provider = "sandbox".into(), "--provider smtp"),
        ] {
            let error = other(change);
            assert!(error.contains(says) && error.contains("--restart"), "{says}: {error}");
        }
    }

    #[test]
    fn a_list_is_known_by_its_bytes_and_results_by_who_wrote_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-4's example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sum(&path).unwrap(), abc);
        let mut record = Record::default();
        assert!(!record.may_replace(&path));
        record.written = Some(Mark::of(&std::fs::metadata(&path).unwrap()));
        assert!(record.may_replace(&path));
        std::fs::write(&path, "theirs").unwrap();
        assert!(!record.may_replace(&path));
        assert!(Record { force: true, ..record }.may_replace(&path));
    }
}
