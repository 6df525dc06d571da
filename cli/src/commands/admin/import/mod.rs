//! `listmill admin key import`: keys from another system, by SHA-256.
//!
//! A thread reads ([`read`]); this side checks each row as the API would, and stores some at a time. Of rows that
//! cannot be taken the first [`SHOWN`] are shown, and all are counted.

mod read;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use listmill_shared::app::App;
use listmill_shared::app::key_import::{Batch, Draft, Fate};
use listmill_shared::domain::audit::Origin;
use listmill_shared::domain::key_scan::mask;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::read::{Line, Part};
use super::account;
use crate::args::ImportArgs;
use crate::commands::open_keyring;
use crate::output::{Output, Progress, complain, grouped};

/// Rows that cannot be taken and are shown.
const SHOWN: usize = 100;
/// Parts read ahead.
const AHEAD: usize = 2;
/// Characters of a file's name in the audit log.
const NAME: usize = 200;

/// What became of the rows.
#[derive(Default)]
struct Tally {
    rows: u64,
    new: u64,
    there: u64,
    bad: u64,
    shown: Vec<Value>,
    file: Option<BufWriter<File>>,
}

impl Tally {
    fn bad(&mut self, line: u64, what: &str, progress: Option<&Progress>) -> Result<()> {
        self.bad += 1;
        let object = json!({ "line": line, "error": what });
        if let Some(file) = &mut self.file {
            writeln!(file, "{object}").context("cannot write the file of errors")?;
        }
        if self.shown.len() < SHOWN {
            let text = format!("line {line}: {what}");
            match progress {
                Some(progress) => progress.around(|| complain(&text)),
                None => complain(&text),
            }
            self.shown.push(object);
        }
        Ok(())
    }
}

pub async fn run(app: &App, out: &Output, args: ImportArgs) -> Result<ExitCode> {
    let owner = account(app, &args.account).await?;
    open_keyring(app).await?;
    let stdin = args.file == Path::new("-");
    let (input, size): (Box<dyn std::io::Read + Send>, Option<u64>) = match stdin {
        true => (Box::new(std::io::stdin()), None),
        false => {
            let path = args.file.display();
            let file = File::open(&args.file).with_context(|| format!("cannot open {path}"))?;
            let about = file.metadata().with_context(|| format!("cannot look at {path}"))?;
            (Box::new(file), about.is_file().then_some(about.len()))
        }
    };
    let name = file_name(app, &args.file);
    let mut tally = Tally::default();
    if let Some(path) = &args.errors {
        let made = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        tally.file = Some(BufWriter::new(made));
    }
    let batch = Batch { account: owner, file: &name, dry_run: args.dry_run };
    let mut progress = size.map(|size| out.aside().progress("importing keys", size, "bytes"));
    let (sender, mut parts) = mpsc::channel(AHEAD);
    let format = args.format;
    let reading = tokio::task::spawn_blocking(move || read::read(input, format, sender));
    while let Some(part) = parts.recv().await {
        let read = part.read;
        store(app, batch, part, &mut tally, progress.as_ref()).await?;
        if let Some(progress) = &mut progress {
            progress.set(read);
        }
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some(file) = &mut tally.file {
        file.flush().context("cannot write the file of errors")?;
    }
    let read = reading.await.context("the reading thread failed")?;
    if let Err(error) = &read {
        complain(&format!("listmill: {name}: {error:#}"));
    }
    tell(out, &args, &name, &tally, read.is_ok())?;
    Ok(if read.is_ok() && tally.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For the audit log: no folder, and no key, should one stand in the name.
fn file_name(app: &App, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    mask(&app.settings.key_prefix, &name).chars().filter(|c| !c.is_control()).take(NAME).collect()
}

async fn store(
    app: &App,
    batch: Batch<'_>,
    part: Part,
    tally: &mut Tally,
    progress: Option<&Progress>,
) -> Result<()> {
    let mut drafts = Vec::with_capacity(part.rows.len());
    let mut faults: Vec<(u64, String)> = Vec::new();
    tally.rows += part.rows.len() as u64;
    for row in part.rows {
        match draft(row) {
            Ok(draft) => drafts.push(draft),
            Err(fault) => faults.push(fault),
        }
    }
    if !drafts.is_empty() {
        let fates = app.import_keys(batch, &drafts, &Origin::operator()).await?;
        for (draft, fate) in drafts.iter().zip(fates) {
            match fate {
                Fate::New => tally.new += 1,
                Fate::There => tally.there += 1,
                Fate::Bad(what) => faults.push((draft.line, what)),
            }
        }
    }
    faults.sort_by_key(|(line, _)| *line);
    for (line, what) in faults {
        tally.bad(line, &what, progress)?;
    }
    Ok(())
}

fn draft((line, row): Line) -> Result<Draft, (u64, String)> {
    let row = row.map_err(|what| (line, what))?;
    let fields = listmill_api::key_fields(row.rest).map_err(|what| (line, what))?;
    Ok(Draft { line, hash: row.hash, start: row.start, fields })
}

fn tell(out: &Output, args: &ImportArgs, name: &str, tally: &Tally, whole: bool) -> Result<()> {
    out.object(&json!({
        "file": name,
        "dry_run": args.dry_run,
        "whole": whole,
        "rows": tally.rows,
        "new": tally.new,
        "there": tally.there,
        "bad": tally.bad,
        "errors": tally.shown,
    }))?;
    let more = tally.bad.saturating_sub(tally.shown.len() as u64);
    if more > 0 {
        let rest = match &args.errors {
            Some(path) => format!("all are in {}", path.display()),
            None => String::from("--errors FILE writes them all"),
        };
        complain(&format!("… and {} more rows that cannot be taken; {rest}", grouped(more)));
    }
    let stored = if args.dry_run { "would become keys" } else { "are keys now" };
    out.say(format!(
        "{} rows: {} {stored}, {} were there already, {} cannot be taken",
        grouped(tally.rows),
        grouped(tally.new),
        grouped(tally.there),
        grouped(tally.bad)
    ));
    if tally.bad > 0 && !args.dry_run {
        out.say("mend those and run it again: what is there already is left as it is");
    }
    Ok(())
}
