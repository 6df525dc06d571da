//! `listmill scan`: API keys where they do not belong.
//!
//! One thread reads ([`walk`], [`history`]) and sends [`Event`]s through a channel of bounded length; this
//! side looks keys up or reports them, and prints. Nothing that is kept grows with what is read, and of the
//! keys found only [`LISTED`] are kept for `--json`, and [`KNOWN`] so that each is looked up once.
//!
//! A key is printed as its place and its first characters. Paths are masked, since a key may stand in one.

mod history;
mod post;
mod walk;

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::domain::key::{KeyHash, Secret};
use listmill_shared::domain::key_scan::mask;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::post::Reporter;
use self::walk::Reader;
use super::bench::bound;
use super::{Context, open};
use crate::args::ScanArgs;
use crate::output::{Output, Progress, complain, grouped};

/// Nothing found, but not everything was read.
const TROUBLE: u8 = 2;
/// Events under way.
const WAITING: usize = 64;
/// Findings, and troubles, that `--json` lists.
const LISTED: usize = 10_000;
/// Different keys that are looked up or reported once each; more may be so several times.
const KNOWN: usize = 100_000;

/// A key at its place.
#[derive(Debug)]
struct Finding {
    place: Place,
    line: u64,
    column: u64,
    secret: Secret,
}

/// What was read.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Masked.
    path: String,
    /// Git's object, and the first commit that has it.
    object: Option<String>,
    commit: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.commit, &self.object) {
            (Some(commit), _) => write!(f, "{}@{commit}", self.path),
            (None, Some(object)) => write!(f, "{}@object {object}", self.path),
            (None, None) => f.write_str(&self.path),
        }
    }
}

/// What the reading thread tells.
#[derive(Debug)]
enum Event {
    /// So many bytes or objects are to be read.
    Begins { what: &'static str, total: u64, unit: &'static str },
    /// So many of them are done.
    Done(u64),
    /// A file or object, and its bytes.
    Read(u64),
    /// A key.
    Found(Finding),
    /// Something could not be read as a whole.
    Trouble { path: String, what: String },
    /// A file or object is larger than wanted.
    Skipped,
    /// The scan cannot go on.
    Failed(anyhow::Error),
}

/// Nobody listens any more.
#[derive(Debug)]
struct Gone;

/// The reading thread's end of the channel.
struct Events(mpsc::Sender<Event>);

impl Events {
    fn send(&self, event: Event) -> Result<(), Gone> {
        self.0.blocking_send(event).map_err(|_| Gone)
    }
}

pub async fn run(context: Context, args: ScanArgs) -> Result<ExitCode> {
    let shutdown = context.shutdown.clone();
    let scanned = shutdown.or_interrupted(scan(&context, args)).await;
    match scanned {
        Err(error) if shutdown.interrupted().is_none() => {
            complain(&format!("listmill: {error:#}"));
            Ok(ExitCode::from(TROUBLE))
        }
        scanned => scanned,
    }
}

async fn scan(context: &Context, args: ScanArgs) -> Result<ExitCode> {
    let settings = &context.settings;
    let prefixes = match args.prefixes.is_empty() {
        true => vec![settings.key_prefix.clone()],
        false => args.prefixes,
    };
    let judge = match (args.check, args.report) {
        (true, _) => {
            let app = open(context).await?;
            super::open_keyring(&app).await?;
            Judge::Check(Box::new(app))
        }
        (_, true) => {
            let url = args.url.unwrap_or_else(|| bound(&settings.bind));
            Judge::Report(Box::new(Reporter::new(&url)?))
        }
        _ => Judge::None,
    };
    let (sender, mut events) = mpsc::channel(WAITING);
    let (git, paths) = (args.git, args.paths);
    let mut reader = Reader::new(Events(sender), &prefixes, args.max_file_size);
    let reading = tokio::task::spawn_blocking(move || {
        let read = walk::files(&mut reader, &paths);
        if read.is_ok() && git {
            // Gone: nobody is left to be told.
            let _ = history::objects(&mut reader, &paths);
        }
    });
    let mut tally = Tally::new(context.output, judge, prefixes);
    while let Some(event) = events.recv().await {
        tally.take(event).await?;
    }
    reading.await.context("the reading thread failed")?;
    tally.finish().await
}

/// What is asked about each key.
enum Judge {
    None,
    Check(Box<App>),
    Report(Box<Reporter>),
}

impl Judge {
    /// What is known of a key now, as fields of its finding.
    async fn judge(&self, finding: &Finding) -> Result<Value> {
        match self {
            Judge::None => Ok(json!({})),
            Judge::Check(app) => {
                let found = app.find_key(Some(&finding.secret)).await?;
                Ok(found.key.map_or_else(
                    || json!({ "status": "unknown" }),
                    |key| {
                        json!({
                            "status": key.status(app.now()),
                            "key_id": key.id,
                            "label": key.label,
                            "account_id": key.account,
                        })
                    },
                ))
            }
            Judge::Report(reporter) => {
                reporter.report(&finding.secret, &finding.place.to_string()).await?;
                Ok(json!({ "status": "reported" }))
            }
        }
    }
}

/// What was seen so far.
struct Tally {
    out: Output,
    judge: Judge,
    prefixes: Vec<String>,
    progress: Option<Progress>,
    done: u64,
    known: HashMap<KeyHash, Value>,
    found: u64,
    listed: Vec<Value>,
    files: u64,
    bytes: u64,
    skipped: u64,
    troubled: u64,
    troubles: Vec<Value>,
}

impl Tally {
    fn new(out: Output, judge: Judge, prefixes: Vec<String>) -> Self {
        Self {
            out,
            judge,
            prefixes,
            progress: None,
            done: 0,
            known: HashMap::new(),
            found: 0,
            listed: Vec::new(),
            files: 0,
            bytes: 0,
            skipped: 0,
            troubled: 0,
            troubles: Vec::new(),
        }
    }

    async fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Begins { what, total, unit } => {
                self.end_progress();
                self.done = 0;
                self.progress = Some(self.out.aside().progress(what, total, unit));
            }
            Event::Done(count) => {
                self.done += count;
                if let Some(progress) = &mut self.progress {
                    progress.set(self.done);
                }
            }
            Event::Read(bytes) => {
                self.files += 1;
                self.bytes += bytes;
            }
            Event::Skipped => self.skipped += 1,
            Event::Trouble { path, what } => {
                self.troubled += 1;
                self.say_aside(&format!("{path}: {what}"));
                if self.troubles.len() < LISTED {
                    self.troubles.push(json!({ "path": path, "what": what }));
                }
            }
            Event::Found(finding) => self.found(finding).await?,
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    async fn found(&mut self, finding: Finding) -> Result<()> {
        let hash = finding.secret.hash();
        let known = match self.known.get(&hash) {
            Some(known) => known.clone(),
            None => {
                let known = self.judge.judge(&finding).await?;
                if self.known.len() < KNOWN {
                    self.known.insert(hash, known.clone());
                }
                known
            }
        };
        self.found += 1;
        let Finding { place, line, column, secret } = finding;
        let word = |name: &str| known[name].as_str().map(|word| format!("  {word}"));
        let words = ["status", "key_id", "account_id", "label"].map(word);
        let words: String = words.into_iter().flatten().collect();
        let text = format!("{place}:{line}:{column}  {}…{words}", secret.start());
        let out = self.out;
        match &self.progress {
            Some(progress) => progress.around(|| out.say(text)),
            None => out.say(text),
        }
        if self.out.is_json() && self.listed.len() < LISTED {
            let mut object = json!({
                "path": place.path,
                "line": line,
                "column": column,
                "start": secret.start(),
            });
            if let Some(fields) = object.as_object_mut() {
                fields.extend(known.as_object().cloned().unwrap_or_default());
                fields.extend(place.object.map(|object| ("object".into(), object.into())));
                fields.extend(place.commit.map(|commit| ("commit".into(), commit.into())));
            }
            self.listed.push(object);
        }
        Ok(())
    }

    fn say_aside(&self, line: &str) {
        match &self.progress {
            Some(progress) => progress.around(|| complain(line)),
            None => complain(line),
        }
    }

    fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    async fn finish(mut self) -> Result<ExitCode> {
        self.end_progress();
        if let Judge::Check(app) = &self.judge {
            app.store.close().await;
        }
        self.out.object(&json!({
            "found": self.listed,
            "count": self.found,
            "different": self.known.len(),
            "prefixes": self.prefixes,
            "files": self.files,
            "bytes": self.bytes,
            "skipped": self.skipped,
            "troubles": self.troubles,
        }))?;
        let mut line = match self.found {
            0 => String::from("no key found"),
            found => {
                format!("{} found, {} different", grouped(found), grouped(self.known.len() as u64))
            }
        };
        line += &format!(
            ", in {} files and objects ({} bytes)",
            grouped(self.files),
            grouped(self.bytes)
        );
        for (count, what) in [(self.skipped, "too large"), (self.troubled, "not read as a whole")] {
            if count > 0 {
                line += &format!("; {} {what}", grouped(count));
            }
        }
        if !self.out.is_json() {
            complain(&line);
        }
        Ok(match (self.found, self.troubled) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(TROUBLE),
            _ => ExitCode::FAILURE,
        })
    }
}

/// A path as it may be shown.
fn shown(prefixes: &[String], path: &Path) -> String {
    let mut text = path.display().to_string();
    for prefix in prefixes {
        text = mask(prefix, &text).into_owned();
    }
    // A name may hold line breaks, or what moves a terminal's cursor.
    text.chars().map(|c| if c.is_control() { '�' } else { c }).collect()
}
