//! What a bench prints: CPU and memory by process, and the books.

use anyhow::Result;
use listmill_shared::domain::ledger::Books;
use serde_json::{Value, json};

use super::process::Usage;
use crate::commands::admin::{books_object, show_books};
use crate::output::Output;

/// CPU and memory, for people; `per` = what is counted.
pub fn show_usage(out: &Output, usage: &[Usage], things: u64, per: &str) {
    if usage.is_empty() {
        out.say("\nCPU and memory are read from /proc, which is not here (not Linux?)");
        return;
    }
    out.say("");
    let head = ["PROCESS", "COUNT", "CPU", "PER", "MAX RSS"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows[0][3] = format!("PER {}", per.to_uppercase());
    let micros = |seconds: f64| format!("{:.2} µs", seconds * 1e6 / things.max(1) as f64);
    rows.extend(usage.iter().map(|usage| {
        vec![
            usage.name.clone(),
            usage.processes.to_string(),
            format!("{:.2} s", usage.cpu_seconds),
            micros(usage.cpu_seconds),
            usage.max_rss_bytes.map_or_else(String::new, |rss| format!("{} MB", rss / 1_000_000)),
        ]
    }));
    let total = serving(usage);
    rows.push(vec![
        String::from("all that serve"),
        String::new(),
        format!("{total:.2} s"),
        micros(total),
        String::new(),
    ]);
    out.table("  ", 1, &rows);
}

/// CPU seconds of all but the load itself.
fn serving(usage: &[Usage]) -> f64 {
    usage.iter().filter(|usage| !usage.client).map(|usage| usage.cpu_seconds).sum()
}

/// CPU and memory, for programs.
pub fn usage_object(usage: &[Usage], things: u64) -> Value {
    let total = serving(usage);
    json!({
        "processes": usage,
        "serving_cpu_seconds": total,
        "serving_cpu_micros_each": total * 1e6 / things.max(1) as f64,
    })
}

/// The books of the bench's accounts, for people and programs; are they exact?
pub fn reconcile(out: &Output, books: &[Books]) -> Result<(bool, Value)> {
    out.say("\nReconciliation");
    // Nobody granted or used credits of another kind here.
    let used: Vec<Books> = books.iter().filter(|b| b.kind == "email").cloned().collect();
    let ok = match used.len() {
        0..=10 => show_books(out, &used),
        many => {
            let wrong: Vec<Books> =
                used.iter().filter(|b| !b.faults().is_empty()).cloned().collect();
            out.say(format!("  {} of {many} accounts are exact", many - wrong.len()));
            wrong.is_empty() || show_books(out, &wrong)
        }
    };
    let exact = books.iter().all(|book| book.faults().is_empty());
    let accounts = used.iter().map(books_object).collect::<Result<Vec<_>>>()?;
    Ok((ok && exact, json!({ "ok": ok && exact, "accounts": accounts })))
}
