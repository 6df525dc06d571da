//! What was ever committed: every object of a Git repository, each once, also those that no branch leads to
//! any more (an amended commit, a deleted branch), since they are pushed, cloned and kept for months.
//!
//! Git itself unpacks them: `cat-file --batch` writes one after the other, `<id> <type> <size>`, a line
//! break, the content, a line break. Trees are left out: they are names.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::walk::Reader;
use super::{Event, Gone, Place, shown};

/// Bytes read in one go.
const PIECE: usize = 256 * 1024;
/// Bytes of a line before an object.
const HEAD: u64 = 4_096;
/// Objects with a key whose path and commit are looked for; each look walks the history once.
const NAMED: usize = 200;

/// Why an object was not scanned to its end.
enum Stop {
    Gone,
    Failed(anyhow::Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Stop::Gone
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Failed(anyhow::Error::new(error).context("git cat-file"))
    }
}

/// Scans the repositories at these paths.
pub fn objects(reader: &mut Reader, paths: &[PathBuf]) -> Result<(), Gone> {
    for path in paths {
        match repository(reader, path) {
            Ok(()) => {}
            Err(Stop::Gone) => return Err(Gone),
            Err(Stop::Failed(error)) => {
                let error = error.context(format!("--git {}", shown(&reader.prefixes, path)));
                return reader.events.send(Event::Failed(error));
            }
        }
    }
    Ok(())
}

fn git(path: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(path).args(words);
    // Nothing is changed, asked of a person, or fetched.
    command.env("GIT_OPTIONAL_LOCKS", "0");
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_NO_LAZY_FETCH", "1");
    command.stdin(Stdio::null());
    command
}

/// What Git answers.
fn ask(path: &Path, words: &[&str]) -> Result<String> {
    let output = git(path, words).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "git is not on this machine, and only git reads its objects: install it, or leave --git out"
        ),
        _ => anyhow::Error::new(error).context("git does not start"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("git: {}", said.lines().next().unwrap_or("it failed without a word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn repository(reader: &mut Reader, path: &Path) -> Result<(), Stop> {
    ensure_folder(path)?;
    ask(path, &["rev-parse", "--git-dir"])?;
    let counted = ask(path, &["count-objects", "-v"])?;
    let figure = |line: &str| line.split_once(": ").and_then(|(_, n)| n.parse::<u64>().ok());
    let counts = ["count:", "in-pack:"].map(|name| counted.lines().find(|l| l.starts_with(name)));
    let total = counts.into_iter().flatten().filter_map(figure).sum();
    reader.events.send(Event::Begins { what: "scanning history", total, unit: "objects" })?;

    let words = ["cat-file", "--batch", "--batch-all-objects", "--unordered", "--buffer"];
    let mut child = git(path, &words).stdout(Stdio::piped()).spawn().context("git cat-file")?;
    let stdout = child.stdout.take().context("git cat-file has no output")?;
    let scanned = every_object(reader, path, BufReader::with_capacity(PIECE, stdout));
    if scanned.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait()?;
    scanned?;
    match status.success() {
        true => Ok(()),
        false => Err(anyhow::anyhow!("git cat-file ended with {status}").into()),
    }
}

fn ensure_folder(path: &Path) -> Result<()> {
    ensure!(path != Path::new("-"), "stdin is no Git repository");
    ensure!(path.is_dir(), "it is no folder, so no Git repository");
    Ok(())
}

fn every_object(reader: &mut Reader, path: &Path, mut from: impl BufRead) -> Result<(), Stop> {
    let (mut head, mut named) = (Vec::new(), 0);
    loop {
        head.clear();
        if from.by_ref().take(HEAD).read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&head);
        let mut words = line.split_whitespace();
        let (Some(id), Some(kind)) = (words.next(), words.next()) else {
            return Err(anyhow::anyhow!("git cat-file: an object has no head").into());
        };
        // A partial clone does not have everything.
        let Some(size) = words.next().and_then(|size| size.parse::<u64>().ok()) else {
            let what = format!("git object {id} is {kind}");
            reader.events.send(Event::Trouble { path: shown(&reader.prefixes, path), what })?;
            continue;
        };
        let (id, kind) = (id.to_owned(), kind.to_owned());
        let skipped = reader.is_too_large(size);
        let mut body = from.by_ref().take(size);
        if kind == "tree" || skipped {
            io::copy(&mut body, &mut io::sink())?;
            if kind != "tree" {
                reader.events.send(Event::Skipped)?;
            }
        } else {
            object(reader, path, (&id, &kind), &mut body, &mut named)?;
        }
        if body.limit() > 0 || from.by_ref().take(1).read(&mut [0])? != 1 {
            return Err(anyhow::anyhow!("git cat-file ended within an object").into());
        }
        reader.events.send(Event::Done(1))?;
    }
}

fn object(
    reader: &mut Reader,
    path: &Path,
    (id, kind): (&str, &str),
    body: &mut impl BufRead,
    named: &mut usize,
) -> Result<(), Stop> {
    let mut place = None;
    loop {
        let piece = body.fill_buf()?;
        let count = piece.len();
        let hits = match count {
            0 => {
                reader.events.send(Event::Read(reader.scan.seen()))?;
                reader.scan.finish()
            }
            _ => reader.scan.push(piece),
        };
        body.consume(count);
        if !hits.is_empty() {
            let place = place.get_or_insert_with(|| {
                *named += 1;
                name(reader, path, (id, kind), *named <= NAMED)
            });
            reader.tell(place, hits)?;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

/// The path under which an object was first committed, and the commit.
fn name(reader: &Reader, path: &Path, (id, kind): (&str, &str), look: bool) -> Place {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let object = Some(short(id));
    if kind != "blob" {
        let commit = (kind == "commit").then(|| short(id));
        return Place { path: format!("({kind} message)"), object, commit };
    }
    let find = format!("--find-object={id}");
    let words = [
        "log",
        "--all",
        "--reverse",
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "-m",
        "--format=%H",
        "--name-only",
        &find,
    ];
    let told = if look { ask(path, &words).unwrap_or_default() } else { String::new() };
    let mut lines = told.lines().filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(commit), Some(file)) => Place {
            path: shown(&reader.prefixes, Path::new(file)),
            object,
            commit: Some(short(commit)),
        },
        // In no branch's history, or not looked for.
        _ => Place { path: shown(&reader.prefixes, path), object, commit: None },
    }
}
