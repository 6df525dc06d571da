//! What the demo found: verdicts from the results themselves, credits from the ledger.
//!
//! Results are counted one by one, not taken from the task's counters, so that the two can be held
//! against each other.

use std::collections::BTreeMap;

use anyhow::Result;
use listmill_shared::domain::ledger::Books;
use serde_json::{Value, json};

use super::Checks;
use crate::client::{Client, TaskView};
use crate::commands::admin::show_books;
use crate::output::{Output, grouped, signed};

/// Ledger entries and results asked for at once.
const PAGE: u32 = 1_000;
const RESULTS_PAGE: u32 = 10_000;
/// Ledger entries shown.
const SHOWN: usize = 4;

pub struct Report {
    /// (status, reason, credit) → how many.
    verdicts: BTreeMap<(String, String, String), u64>,
    /// Newest first.
    ledger: Vec<Value>,
}

impl Report {
    /// Reads every result and every ledger entry through the API.
    pub async fn gather(client: &Client, task: &TaskView, key: &str) -> Result<Self> {
        let results = format!("/v1/tasks/{}/results", task.id);
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or("?").to_owned();
        let mut verdicts = BTreeMap::new();
        for row in client.pages(&results, RESULTS_PAGE, key).await? {
            let verdict = (text(&row, "status"), text(&row, "reason"), text(&row, "credit"));
            *verdicts.entry(verdict).or_default() += 1;
        }
        let ledger = client.pages("/v1/ledger", PAGE, key).await?;
        Ok(Self { verdicts, ledger })
    }

    /// Holds results, task and ledger against each other.
    pub fn check(&self, task: &TaskView, checks: &mut Checks) {
        let results: u64 = self.verdicts.values().sum();
        checks.claim(
            format!("one result for each of {} distinct addresses", grouped(task.counts.unique)),
            results == task.counts.unique && task.counts.processed == task.counts.unique,
        );
        let definitive = self.definitive();
        let charged = self.sum("charge");
        checks.claim(
            format!("{} definitive verdicts, as many credits charged", grouped(definitive)),
            task.credits.charged == definitive as i64 && charged == definitive as i64,
        );
        checks.claim(
            "every other credit that was held came back",
            self.sum("hold") == charged + self.sum("refund"),
        );
    }

    /// Neither unknown nor free.
    fn definitive(&self) -> u64 {
        let definitive =
            |status: &str, reason: &str| status != "unknown" && reason != "invalid_syntax";
        self.verdicts.iter().filter(|((s, r, _), _)| definitive(s, r)).map(|(_, n)| n).sum()
    }

    fn sum(&self, entry: &str) -> i64 {
        let of_type = self.ledger.iter().filter(|row| row["type"] == entry);
        of_type.filter_map(|row| number(row, "amount")).map(i64::abs).sum()
    }

    /// Everything, for people.
    pub fn show(&self, out: &Output, books: &[Books], checks: &Checks) {
        out.say("Verdicts (made up by the sandbox provider)");
        let mut rows = vec![["STATUS", "REASON", "CREDIT", "ADDRESSES"].map(String::from).to_vec()];
        rows.extend(self.verdicts.iter().map(|((status, reason, credit), n)| {
            vec![status.clone(), reason.clone(), credit.clone(), grouped(*n)]
        }));
        out.table("  ", 3, &rows);

        out.say("\nLedger, by type");
        let mut rows = vec![["TYPE", "ENTRIES", "CREDITS"].map(String::from).to_vec()];
        for entry in ["grant", "hold", "charge", "refund"] {
            let count = self.ledger.iter().filter(|row| row["type"] == entry).count();
            rows.push(vec![entry.to_owned(), grouped(count as u64), signed(self.sum(entry))]);
        }
        out.table("  ", 1, &rows);

        out.say("\nLedger, its last entries (newest first)");
        let head = ["AT", "TYPE", "CREDITS", "BALANCE AFTER"];
        let mut rows = vec![head.map(String::from).to_vec()];
        rows.extend(self.ledger.iter().take(SHOWN).map(|row| {
            let number = |field: &str| number(row, field).map_or_else(|| String::from("?"), signed);
            let text = |field: &str| row[field].as_str().unwrap_or("?").to_owned();
            vec![text("created_at"), text("type"), number("amount"), number("balance_after")]
        }));
        out.table("  ", 2, &rows);

        out.say("\nReconciliation");
        show_books(out, books);

        out.say("\nWhat had to hold");
        for (what, holds) in &checks.0 {
            out.say(format!("  {}  {what}", if *holds { "ok  " } else { "FAIL" }));
        }
    }

    /// Verdicts, for programs.
    pub fn verdicts_object(&self) -> Vec<Value> {
        let row = |((status, reason, credit), n): (&(String, String, String), &u64)| json!({ "status": status, "reason": reason, "credit": credit, "addresses": n });
        self.verdicts.iter().map(row).collect()
    }

    /// Sums of the ledger, for programs.
    pub fn ledger_object(&self) -> Value {
        json!({
            "entries": self.ledger.len(),
            "granted": self.sum("grant"),
            "held": self.sum("hold"),
            "charged": self.sum("charge"),
            "refunded": self.sum("refund"),
        })
    }
}

/// A whole number, also when written as `5.0`.
fn number(row: &Value, field: &str) -> Option<i64> {
    row[field].as_f64().map(|number| number as i64)
}
