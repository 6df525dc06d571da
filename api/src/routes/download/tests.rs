use super::*;
use listmill_shared::domain::id::{AccountId, Ids};
use listmill_shared::domain::payload::RowsEncoder;
use listmill_shared::domain::task::{Submitted, Tally, TaskStatus};
use listmill_shared::domain::verdict::Flags;

fn found(seq: i64, reason: Reason) -> Found {
    Found {
        seq,
        address: format!("a{seq}@example.com"),
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

fn chunk(rows: &[(Option<u64>, &str)], found: Vec<Found>) -> Chunk {
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
fn rows_get_the_verdict_of_their_address() {
    let mut table = Table { delimiter: b';', next: 0, reasons: None };
    let head = String::from_utf8(table.head(b"id;mail".to_vec())).unwrap();
    assert!(head.starts_with("id;mail;listmill_status;listmill_reason;"), "{head}");
    let rows = [
        (Some(0), "1;a0@example.com"),
        (None, "2;"),
        (Some(0), "3;a0@example.com"),
        (Some(1), "\"4\";a1@example.com"),
    ];
    let block = table.block(&chunk(&rows, vec![found(0, Reason::Accepted)]));
    let text = String::from_utf8(block).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let stamp = "1970-01-01T00:00:00.000Z";
    let verdict = "deliverable;accepted;98;true;;;;;\"mx;1.example\";250";
    assert_eq!(lines[0], format!("1;a0@example.com;{verdict};charged;{stamp}"));
    assert_eq!(lines[1], format!("2;{}", ";".repeat(COLUMNS.len())));
    // A duplicate: the same verdict, and it cost nothing.
    assert_eq!(lines[2], format!("3;a0@example.com;{verdict};free;{stamp}"));
    // No result yet.
    assert_eq!(lines[3], format!("\"4\";a1@example.com{}", ";".repeat(COLUMNS.len())));
    // The next block knows what was seen before.
    let block = table.block(&chunk(&[(Some(1), "5;x")], vec![found(1, Reason::Accepted)]));
    assert!(String::from_utf8(block).unwrap().contains(";free;"));
}

#[test]
fn a_row_that_is_nothing_but_its_address_reads_like_any_other() {
    let mut table = Table { delimiter: b',', next: 0, reasons: None };
    let rows =
        [(Some(0), "a0@example.com"), (Some(1), "a1@example.com"), (Some(0), "A0@example.com")];
    let block = table.block(&chunk(&rows, vec![found(0, Reason::Accepted)]));
    let text = String::from_utf8(block).unwrap();
    let first: Vec<&str> = text.lines().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(first, ["a0@example.com", "a1@example.com", "A0@example.com"]);
}

#[test]
fn filters_drop_whole_rows() {
    let mut table = Table { delimiter: b',', next: 0, reasons: Some(vec![Reason::NoMx]) };
    let rows = [(Some(0), "a"), (None, "b"), (Some(1), "c"), (Some(2), "d")];
    let block =
        table.block(&chunk(&rows, vec![found(0, Reason::Accepted), found(1, Reason::NoMx)]));
    let text = String::from_utf8(block).unwrap();
    assert!(text.starts_with("c,undeliverable,no_mx,"), "{text}");
    assert_eq!(text.matches("\r\n").count(), 1);
}

#[test]
fn a_list_without_a_header_gets_one() {
    assert_eq!(made_header(b"a@example.com", b','), b"email");
    assert_eq!(made_header(b"", b','), b"email");
    assert_eq!(made_header(b"\"a,b\"@example.com", b';'), b"email");
    assert_eq!(made_header(b"1;\"x;y\";a@example.com", b';'), b"column_1;column_2;column_3");
}

#[test]
fn new_addresses_are_read_as_one_range() {
    assert_eq!(last_run(&[]), 0);
    assert_eq!(last_run(&[7]), 1);
    assert_eq!(last_run(&[1, 2, 5, 6, 7]), 3);
    assert_eq!(last_run(&[5, 6, 7]), 3);
}

#[test]
fn file_names_are_safe() {
    let of = |name| file_name(&task(name), "csv");
    assert_eq!(of(Some("Spring list.csv")), "Spring_list-results.csv");
    assert_eq!(of(Some("../../etc/passwd\"\r\n")), "etc_passwd-results.csv");
    assert!(of(Some("名单")).starts_with("task_"));
    assert!(of(None).starts_with("task_"));
}
