//! The one place for what people and programs read: text or one JSON object on stdout, and
//! progress.
//!
//! Text goes to stdout unless `--json` is given; then stdout holds exactly one JSON object.
//! Progress is a bar on stderr when a person watches, and a plain line every 2 s or 10 % when not.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// A plain progress line comes after this long…
const LINE_EVERY: Duration = Duration::from_secs(2);
/// …or after this share of the whole, in percent.
const LINE_SHARE: u64 = 10;

/// Writes a line to stderr; a closed stderr is no reason to fail.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Asks on stderr, and leaves the cursor behind the question.
pub fn ask(question: &str) {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

/// How to speak.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    /// Stdout holds data: text goes to stderr.
    aside: bool,
    bars: bool,
}

impl Output {
    /// `json`: for programs.
    pub fn new(json: bool) -> Self {
        let bars = std::io::stderr().is_terminal() && (json || std::io::stdout().is_terminal());
        Self { json, aside: false, bars }
    }

    /// Likewise, while stdout holds data.
    pub fn aside(self) -> Self {
        Self { aside: true, bars: std::io::stderr().is_terminal(), ..self }
    }

    /// For programs?
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people.
    pub fn say(&self, line: impl AsRef<str>) {
        match (self.json, self.aside) {
            (true, _) => {}
            (false, true) => complain(line.as_ref()),
            (false, false) => {
                // A reader that went away (`| head`) is no reason to fail.
                let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
            }
        }
    }

    /// Rows for people, their columns aligned; `right` = from which column on to the right.
    pub fn table(&self, indent: &str, right: usize, rows: &[Vec<String>]) {
        for line in align(right, rows) {
            self.say(format!("{indent}{line}"));
        }
    }

    /// The object for programs.
    pub fn object(&self, object: &impl Serialize) -> Result<()> {
        if self.json {
            let text = serde_json::to_string(object)?;
            writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")?;
        }
        Ok(())
    }

    /// Progress towards `total`, counted in `unit`.
    pub fn progress(&self, what: &str, total: u64, unit: &'static str) -> Progress {
        let bar = self.bars.then(|| {
            let template = format!(
                "{{prefix}} {{bar:30.cyan/blue}} {{percent:>3}} %  {{human_pos}}/{{human_len}} {unit}, {{eta}} left{{msg}}"
            );
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.with_prefix(what.to_owned())
        });
        Progress {
            bar,
            aside: self.json || self.aside,
            what: what.to_owned(),
            note: String::new(),
            unit,
            total,
            told: 0,
            told_at: Instant::now(),
        }
    }
}

/// See [`Output::progress`].
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Text goes to stderr.
    aside: bool,
    what: String,
    note: String,
    unit: &'static str,
    total: u64,
    told: u64,
    told_at: Instant,
}

impl Progress {
    /// `done` of the total.
    pub fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let share = (done.saturating_sub(self.told)) * 100 / self.total.max(1);
        let due = done > self.told && self.told_at.elapsed() >= LINE_EVERY;
        if due || share >= LINE_SHARE || (done == self.total && self.told != done) {
            self.told = done;
            self.told_at = Instant::now();
            let percent = done * 100 / self.total.max(1);
            self.line(&format!(
                "{}: {percent} % ({}/{} {})",
                self.what,
                grouped(done),
                grouped(self.total),
                self.unit
            ));
        }
    }

    /// Why it does not move; empty when it does.
    pub fn note(&mut self, note: &str) {
        if self.note == note {
            return;
        }
        self.note = note.to_owned();
        match (&self.bar, note.is_empty()) {
            (Some(bar), true) => bar.set_message(""),
            (Some(bar), false) => bar.set_message(format!("; {note}")),
            (None, true) => {}
            (None, false) => self.line(&format!("{}: {note}", self.what)),
        }
    }

    /// A line for people, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) if self.aside => bar.println(line),
            Some(bar) => bar.suspend(|| {
                let _ = writeln!(std::io::stdout(), "{line}");
            }),
            None => self.line(line),
        }
    }

    /// Does what prints something itself, with the bar out of its way.
    pub fn around(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Leaves the bar as it is, full or not.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }

    fn line(&self, line: &str) {
        match self.aside {
            true => complain(line),
            false => {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }
}

/// Columns padded to their widest cell, two spaces apart.
fn align(right: usize, rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                let pad = " ".repeat(widths[column] - cell.chars().count());
                match column >= right {
                    true => line.extend([pad.as_str(), cell]),
                    false => line.extend([cell.as_str(), &pad]),
                }
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// [`grouped`], with a sign.
pub fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

/// A duration as people read it: µs, ms or s.
pub fn readable(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// Milliseconds for programs, three decimals.
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Things per second.
pub fn rate(things: u64, time: Duration) -> f64 {
    things as f64 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(signed(-1_000), "-1,000");
        assert_eq!(signed(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn columns_line_up_even_with_other_scripts() {
        let rows = [["é", "1"], ["abc", "22"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(align(1, &rows), ["é     1", "abc  22"]);
        assert!(align(0, &[]).is_empty());
    }
}
