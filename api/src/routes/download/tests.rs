//! What the tests of each format are made of, and those of what they share.

use listmill_shared::domain::id::{AccountId, Ids, TaskId};
use listmill_shared::domain::payload::{RowsEncoder, decode_rows};
use listmill_shared::domain::task::{Submitted, Tally, TaskStatus};
use listmill_shared::domain::verdict::{Flags, Reason};
use listmill_shared::store::results::Found;

use super::rows::Chunk;
use super::*;

pub fn found(seq: i64, reason: Reason) -> Found {
    Found {
        seq,
        address: format!("a{seq}@example.com"),
        submitted: None,
        reason,
        score: reason.score(),
        flags: Flags { role: Some(true), ..Flags::default() },
        credit: reason.credit(),
        attempts: 1,
        checked_at: 0,
        smtp_code: Some(250),
        mx: Some(String::from("mx;1.example")),
        did_you_mean: None,
    }
}

pub fn chunk(rows: &[(Option<u64>, &str)], found: Vec<Found>) -> Chunk {
    let mut encoder = RowsEncoder::new().unwrap();
    let address = |seq: u64| format!("a{seq}@example.com");
    for (seq, line) in rows {
        let write = |lines: &mut Vec<u8>| lines.extend_from_slice(line.as_bytes());
        match *seq {
            Some(seq) => encoder.push(seq, &address(seq), write),
            None => encoder.push_blank(write),
        }
    }
    let rows = decode_rows(&encoder.finish().unwrap()).unwrap();
    let seqs = rows.iter().filter_map(|row| row.seq());
    let mut addresses: Vec<(i64, String)> = seqs.map(|seq| (seq as i64, address(seq))).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Chunk { rows, found, addresses }
}

fn task(name: Option<&str>) -> Task {
    let ids = Ids::seeded(1);
    Task {
        id: TaskId::new(&ids, 1),
        account: AccountId::new(&ids, 1),
        created_by_key: None,
        created_by_person: None,
        sandbox: false,
        name: name.map(str::to_owned),
        status: TaskStatus::Completed,
        pause_reason: None,
        submitted: Submitted::default(),
        tally: Tally::default(),
        held: 0,
        released: 0,
        created_at: 0,
        started_at: None,
        finished_at: None,
        batches: 0,
    }
}

#[test]
fn file_names_are_safe() {
    let of = |name| file_name(&task(name), "csv");
    assert_eq!(of(Some("Spring list.csv")), "Spring_list-results.csv");
    assert_eq!(of(Some("Spring list.xlsx")), "Spring_list-results.csv");
    assert_eq!(of(Some("../../etc/passwd\"\r\n")), "etc_passwd-results.csv");
    assert!(of(Some("名单")).starts_with("task_"));
    assert!(of(None).starts_with("task_"));
}

#[test]
fn formats_have_names() {
    for format in ALL {
        assert_eq!(Format::parse(format.name(), None).ok(), Some(format));
    }
    let of = |format, escape| Format::parse(format, Some(escape)).ok();
    assert_eq!(of("csv", "formulas"), Some(Format::Csv(Formulas::Escaped)));
    assert_eq!(of("zip", "formulas"), Some(Format::Zip(Formulas::Escaped)));
    assert_eq!(of("xlsx", "formulas"), Some(Format::Xlsx), "always so");
    assert_eq!(of("csv", "everything"), None);
    assert_eq!(of("ndjson", "formulas"), None);
    assert!(Format::parse("xls", None).is_err());
}
