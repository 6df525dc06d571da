//! `listmill verify` as a process of its own, against scripted mail servers and a zone on loopback.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use listmill_tests::admin::{Outcome, run};
use listmill_tests::process::{Launch, Process};
use listmill_tests::setup::binary;
use listmill_tests::{eventually, scratch, workbook};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::engine::server::{Act, Script, Server, say};
use super::engine::world::World;

pub const LIMIT: Duration = Duration::from_secs(60);

/// A world with one domain, and a folder to work in.
pub struct Desk {
    world: World,
    pub server: Server,
    pub folder: PathBuf,
}

impl Desk {
    pub async fn new() -> Self {
        Self::slow(Duration::ZERO).await
    }

    /// With a server that takes so long to answer.
    pub async fn slow(latency: Duration) -> Self {
        let world = World::new().await;
        let script = Script::new(|seen| match seen.local {
            local if local.starts_with("known") => say("250 2.1.5 Ok"),
            local if local.starts_with("hang") => vec![Act::Hang],
            "policy" => say("550 5.7.1 we know your kind"),
            _ => say("550 5.1.1 no such user here"),
        });
        let script = script.with(|script| script.latency = latency);
        let server = world.mail("shop.test", "127.0.0.1", script).await;
        let folder = scratch::folder("verify");
        std::fs::create_dir(folder.join("tmp")).expect("a folder");
        Self { world, server, folder }
    }

    pub fn launch(&self, args: &[&str]) -> Launch {
        let mut launch = Launch::new(binary(), &self.folder).args(["verify"]).args(args);
        let env = [
            ("TMPDIR", self.folder.join("tmp").display().to_string()),
            ("LISTMILL_DNS", self.world.zone.address.to_string()),
            ("LISTMILL_SMTP_PORT", self.world.port.to_string()),
            ("LISTMILL_SMTP_EHLO", "probe.test".into()),
            ("LISTMILL_RETRY_DELAYS", "100ms".into()),
            ("LISTMILL_PACE", "off".into()),
        ];
        launch.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
        launch
    }

    pub async fn verify(&self, args: &[&str]) -> Outcome {
        let outcome = run(self.launch(args), LIMIT).await;
        self.assert_nothing_left();
        assert!(!outcome.text().contains("panicked"), "{outcome:#?}");
        outcome
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(name), bytes).expect("a list");
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Neither the database nor a half-written file.
    pub fn assert_nothing_left(&self) {
        let names = |path: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(path).expect("a folder").flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&self.folder.join("tmp")), Vec::<String>::new());
        let parts = names(&self.folder).into_iter().filter(|name| name.ends_with(".part"));
        assert_eq!(parts.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

/// Rows of a results file, by column.
pub fn rows(csv: &str, delimiter: u8) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(csv.as_bytes());
    reader.deserialize().map(|row| row.expect("a row of the file's width")).collect()
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_comes_back_with_its_own_columns() {
    let desk = Desk::new().await;
    let list = "Name;Mail;Note\n\
                Anna;known1@shop.test;\"two\nlines; one cell\"\n\
                Bert;nobody@shop.test;\n\
                Again;known1@SHOP.test;dup\n\
                Blank;;x\n\
                Bad;not an address;\n\
                Nowhere;kate@nowhere.test;last\n";
    desk.write("contacts.csv", list);
    let outcome = desk.verify(&["contacts.csv", "--json"]).await.expect_success();
    let summary = outcome.json();
    let counts = &summary["counts"];
    let count = |name: &str| counts[name].as_i64().expect("a count");
    assert_eq!(
        ["submitted", "unique", "duplicates", "invalid_syntax", "deliverable", "undeliverable"]
            .map(count),
        [5, 4, 1, 1, 1, 3],
        "{summary}"
    );
    assert_eq!(summary["reasons"]["mailbox_not_found"], 1, "{summary}");
    assert_eq!(summary["output"], "contacts-results.csv", "{summary}");
    assert_eq!((&summary["provider"], &summary["interrupted"]), (&"smtp".into(), &false.into()));

    let rows = rows(&desk.read("contacts-results.csv"), b';');
    let cells: Vec<[&str; 4]> = rows
        .iter()
        .map(|row| ["Name", "Note", "listmill_reason", "listmill_smtp_code"].map(|c| &*row[c]))
        .collect();
    assert_eq!(
        cells,
        [
            ["Anna", "two\nlines; one cell", "accepted", "250"],
            ["Bert", "", "mailbox_not_found", "550"],
            ["Again", "dup", "accepted", "250"],
            ["Blank", "x", "", ""],
            ["Bad", "", "invalid_syntax", ""],
            ["Nowhere", "last", "no_domain", ""],
        ]
    );
    let asked = desk.server.recipients();
    let anna = asked.iter().filter(|asked| *asked == "known1@shop.test").count();
    assert_eq!(anna, 1, "asked once, though it is there twice: {asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_read_however_they_are_written() {
    let desk = Desk::new().await;
    let ndjson = "\"known1@shop.test\"\n{\"email\": \"nobody@shop.test\"}\n";
    let lists: [(&str, Vec<u8>, &str); 7] = [
        ("a.tsv", "who\tmail\nA\tknown1@shop.test\nB\tnobody@shop.test\n".into(), "mail"),
        ("b.txt", "known1@shop.test\nnobody@shop.test\n".into(), "email"),
        ("c.ndjson", ndjson.into(), "email"),
        ("d.json", r#"{"emails": ["known1@shop.test", "nobody@shop.test"]}"#.into(), "email"),
        ("e.csv.gz", packed("mail\nknown1@shop.test\nnobody@shop.test\n"), "mail"),
        ("f", "known1@shop.test\nnobody@shop.test\n".into(), "email"),
        ("g", packed("x,mail\n1,known1@shop.test\n2,nobody@shop.test\n"), "mail"),
    ];
    for (name, list, column) in lists {
        desk.write(name, list);
        desk.verify(&[name]).await.expect_success();
        let stem = name.split('.').next().expect("a name");
        let delimiter = if name.ends_with(".tsv") { b'\t' } else { b',' };
        let rows = rows(&desk.read(&format!("{stem}-results.csv")), delimiter);
        let found: Vec<(&str, &str)> =
            rows.iter().map(|row| (&*row[column], &*row["listmill_status"])).collect();
        let want = [("known1@shop.test", "deliverable"), ("nobody@shop.test", "undeliverable")];
        assert_eq!(found, want, "{name}");
    }
    desk.write("two.csv", "old,new\nnobody@shop.test,known7@shop.test\n");
    let args = ["two.csv", "--column", "new", "--output", "two.ndjson.gz"];
    desk.verify(&args).await.expect_success();
    let mut text = String::new();
    let file = std::fs::File::open(desk.folder.join("two.ndjson.gz")).expect("a file");
    MultiGzDecoder::new(file).read_to_string(&mut text).expect("packed");
    let row: Value = serde_json::from_str(text.trim_end()).expect("one line of JSON");
    assert_eq!((&row["email"], &row["reason"]), (&"known7@shop.test".into(), &"accepted".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_from_stdin_to_stdout() {
    let desk = Desk::new().await;
    let launch = desk.launch(&["-", "--output", "-"]);
    let mut command = tokio::process::Command::from(launch.command());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"mail,n\nknown1@shop.test,1\n").await.expect("it reads");
    stdin.write_all(b"nobody@shop.test,2\n").await.expect("it reads");
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("in time");
    let output = output.expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).expect("text");
    let found: Vec<String> =
        rows(&stdout, b',').iter().map(|row| row["listmill_status"].clone()).collect();
    assert_eq!(found, ["deliverable", "undeliverable"], "{stdout}");
    assert!(stderr.contains("mailbox_not_found"), "the summary stands aside: {stderr}");
    desk.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_addresses_are_told_with_their_grounds() {
    let desk = Desk::new().await;
    let all = ["known1@shop.test", "nobody@shop.test", "policy@shop.test", "kate@gmial.com"];
    let outcome = desk.verify(&all).await.expect_success();
    for words in [
        "known1@shop.test: deliverable (accepted",
        "nobody@shop.test: undeliverable (mailbox_not_found",
        "550 5.1.1 no such user here",
        "mx-127-0-0-1.shop.test [127.0.0.1]",
        "policy@shop.test: unknown (blocked",
        "we know your kind",
        "did you mean kate@gmail.com?",
    ] {
        assert!(outcome.stdout.contains(words), "{words}: {outcome:#?}");
    }
    let object = desk.verify(&["nobody@shop.test", "--json"]).await.expect_success().json();
    let result = &object["results"][0];
    assert_eq!(result["email"], "nobody@shop.test", "{object}");
    assert_eq!(result["smtp_code"], 550, "{object}");
    assert_eq!(result["evidence"]["enhanced"], "5.1.1", "{object}");
    assert_eq!(result["evidence"]["stage"], "rcpt", "{object}");
    assert_eq!(std::fs::read_dir(&desk.folder).expect("a folder").count(), 1, "no file is written");

    let args = ["known1@shop.test", "--fail-on", "undeliverable,unknown"];
    desk.verify(&args).await.expect_success();
    let args = ["nobody@shop.test", "--fail-on", "undeliverable,unknown"];
    assert_eq!(desk.verify(&args).await.code, Some(1));
    let args = ["nobody@shop.test", "--provider", "sandbox"];
    let made_up = desk.verify(&args).await.expect_success();
    assert!(made_up.stdout.contains("made up"), "{made_up:#?}");
}

/// Its rows come back as CSV, whatever it is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workbook() {
    let desk = Desk::new().await;
    let book = workbook::of_csv("name,mail\nAnna,known1@shop.test\nBert,nobody@shop.test\n");
    desk.write("people.xlsx", &book);
    desk.write("export.dat", &book);
    desk.verify(&["people.xlsx", "--column", "B"]).await.expect_success();
    let results = desk.read("people-results.csv");
    assert!(results.starts_with("name,mail,listmill_status,"), "{results}");
    assert!(results.contains("Anna,known1@shop.test,deliverable,"), "{results}");
    assert!(results.contains("Bert,nobody@shop.test,undeliverable,"), "{results}");
    let outcome = desk.verify(&["export.dat", "--sheet", "Nowhere"]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("\"Sheet1\""), "{outcome:#?}");
    desk.verify(&["export.dat", "--sheet", "sheet1"]).await.expect_success();
    assert!(std::fs::read_dir(desk.folder.join("tmp")).expect("a folder").next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do() {
    let desk = Desk::new().await;
    desk.write("list.txt", "known1@shop.test\n");
    desk.write("list-results.csv", "precious");
    desk.write("book.xlsx", b"PK\x03\x04rest");
    desk.write("empty.csv", "");
    desk.write("names.csv", "name,age\nAnna,3\nBert,4\n");
    desk.write("broken.csv.gz", b"\x1f\x8b\x08 not gzip at all");
    for (args, says) in [
        (&["nowhere.csv"][..], "no such file"),
        (&["list.txt"], "--force"),
        (&["list.txt", "--output", "tmp"], "is a folder"),
        (&["list.txt", "--output", "no/such/folder.csv"], "cannot write"),
        (&["list.txt", "book.xlsx"], "one list at a time"),
        (&["list.txt", "--column", "x", "--output", "o.csv"], "--column is for tables"),
        (&["list.txt", "--json", "--output", "-"], "stdout"),
        (&["book.xlsx"], "or as CSV"),
        (&["list.txt", "--sheet", "x", "--output", "o.csv"], "--sheet is for workbooks"),
        (&["empty.csv"], "no address"),
        (&["names.csv"], "--column"),
        (&["broken.csv.gz"], "cannot be unpacked"),
    ] {
        let outcome = desk.verify(args).await;
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        assert!(outcome.stderr.contains(says), "{says}: {outcome:#?}");
        assert_eq!(desk.read("list-results.csv"), "precious");
    }
    assert_eq!(desk.verify(&[]).await.code, Some(2));
    assert_eq!(desk.server.connections(), 0, "nobody was asked");
    desk.verify(&["list.txt", "--force"]).await.expect_success();
    assert!(desk.read("list-results.csv").contains("known1@shop.test,deliverable"));
}

/// What would make verdicts wrong is said, in a line each, before the list is begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shut_port_is_told_before_a_list_is_begun() {
    let desk = Desk::new().await;
    desk.world.zone.mx("alive.test", 10, "mx.alive.test");
    desk.world.zone.ip("mx.alive.test", "127.0.0.40");
    desk.write("list.txt", "known1@shop.test\nkate@nowhere.test\n");
    let verify = async || {
        let mut launch = desk.launch(&["list.txt", "--force"]);
        launch.env.push(("LISTMILL_DNS_CONTROL".into(), "alive.test".into()));
        let outcome = run(launch, LIMIT).await.expect_success();
        assert!(desk.read("list-results.csv").contains("kate@nowhere.test,undeliverable"));
        let said = outcome.stderr.matches("verdicts would be wrong").count();
        (said, outcome.stderr)
    };
    let (said, stderr) = verify().await;
    assert_eq!(said, 1, "{stderr}");
    assert!(stderr.contains("wrong: port: connections to port"), "{stderr}");
    let _alive = desk.world.server("127.0.0.40", vec![Script::usual()]).await;
    let (said, stderr) = verify().await;
    assert_eq!(said, 0, "{stderr}");
}

/// Starts a list with some addresses whose server goes silent, and waits until the rest is done.
async fn stuck(desk: &Desk, grace: &str) -> Process {
    let known: Vec<String> = (0..30).map(|n| format!("known{n}@shop.test")).collect();
    let list = format!("{}\nhang1@shop.test\nhang2@shop.test\n", known.join("\n"));
    desk.write("list.txt", list);
    let mut launch = desk.launch(&["list.txt"]);
    launch.env.push(("LISTMILL_SMTP_TIMEOUT".into(), "60s".into()));
    launch.env.push(("LISTMILL_SHUTDOWN_GRACE".into(), grace.into()));
    let process = Process::start("verify", launch, desk.folder.join("log"));
    eventually("everything but the silent ones is answered", LIMIT, || async {
        let asked = desk.server.recipients();
        let answered = asked.iter().filter(|asked| asked.starts_with("known")).count();
        let hanging = asked.iter().any(|asked| asked.starts_with("hang"));
        (answered >= 30 && hanging).then_some(())
    })
    .await;
    // What was answered is stored within a tenth of a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_it_writes_what_is_there() {
    let desk = Desk::new().await;
    let mut process = stuck(&desk, "1s").await;
    process.signal("INT");
    let status = process.wait_end(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(130), "{}", process.output());
    let output = process.output();
    assert!(output.contains("Interrupted: 30 of 32"), "{output}");
    let rows = rows(&desk.read("list-results.csv"), b',');
    let with = |status: &str| rows.iter().filter(|row| row["listmill_status"] == status).count();
    assert_eq!((rows.len(), with("deliverable"), with("")), (32, 30, 2));
    desk.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_twice_it_stops_and_writes_nothing() {
    let desk = Desk::new().await;
    let mut process = stuck(&desk, "60s").await;
    process.signal("TERM");
    eventually("it drains", LIMIT, || async {
        process.output().contains("Stopping: waiting").then_some(())
    })
    .await;
    process.signal("TERM");
    let status = process.wait_end(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(143), "{}", process.output());
    assert!(!desk.folder.join("list-results.csv").exists());
    assert!(desk.folder.join("list-results.csv.progress").exists(), "what it knew is kept");
    desk.assert_nothing_left();
}
