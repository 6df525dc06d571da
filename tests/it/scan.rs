//! `listmill scan`: every key is found where it is, and none is shown.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use listmill_shared::domain::id::Ids;
use listmill_shared::domain::key::Secret;
use listmill_tests::admin::{Outcome, run, run_with_input};
use listmill_tests::process::Launch;
use listmill_tests::random::Random;
use listmill_tests::setup::binary;
use listmill_tests::{Setup, Size, eventually, for_each_size, scratch};
use serde_json::Value;

for_each_size!(found_keys_are_checked_and_reported);

fn new_key() -> String {
    Secret::generate("VEC", &Ids::system()).reveal().to_owned()
}

async fn scan(folder: &Path, args: &[&str]) -> Outcome {
    let launch = Launch::new(binary(), folder).args(["scan"]).args(args);
    run(launch, Duration::from_secs(120)).await
}

fn places(told: &Value) -> Vec<(String, u64, u64)> {
    let rows = told["found"].as_array().expect("found").iter();
    let mut places: Vec<_> = rows
        .map(|row| {
            let number = |name: &str| row[name].as_u64().expect(name);
            let path = row["path"].as_str().expect("path").to_owned();
            (path, number("line"), number("column"))
        })
        .collect();
    places.sort();
    places
}

fn assert_hidden(told: &Outcome, key: &str) {
    let shown = told.text();
    assert!(!shown.contains(&key[8..]), "a key is shown");
}

#[tokio::test]
async fn a_key_among_thousands_of_files() {
    let folder = scratch::folder("scan");
    let key = new_key();
    for number in 0..5_000 {
        let path = folder.join(format!("d{}/e{}", number % 40, number % 7));
        fs::create_dir_all(&path).expect("a folder");
        let text = format!("file {number}\nVEC is no key, nor is {}\n", &key[..34]);
        fs::write(path.join(format!("{number}.txt")), text).expect("a file");
    }
    scan(&folder, &["."]).await.expect_success();
    fs::write(folder.join("d7/.env"), format!("A=1\nKEY=\"{key}\"\n")).expect("a file");
    // UTF-16, as some shells write it; and a name that is itself a key.
    let wide: Vec<u8> = format!("{key}\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(folder.join(format!("{key}.log")), wide).expect("a file");
    // What is not followed: a link to a file and one to the folder itself.
    std::os::unix::fs::symlink("d7/.env", folder.join("link")).expect("a link");
    std::os::unix::fs::symlink(".", folder.join("d7/round")).expect("a link");
    let told = scan(&folder, &["--json", "."]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_hidden(&told, &key);
    let object = told.json();
    let name = format!("./{}….log", &key[..8]);
    let want = vec![(name, 1, 1), ("./d7/.env".to_owned(), 2, 6)];
    assert_eq!(places(&object), want);
    assert_eq!((&object["files"], &object["different"]), (&5_002.into(), &1.into()));
    let told = scan(&folder, &["."]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stdout.contains(&format!("./d7/.env:2:6  {}…", &key[..8])), "{}", told.stdout);
    assert_hidden(&told, &key);
    // A link that is named is meant; a limit leaves out what is larger.
    assert_eq!(scan(&folder, &["link"]).await.code, Some(1));
    let told =
        scan(&folder, &["--json", "--max-file-size", "10", "d7/.env"]).await.expect_success();
    assert_eq!(told.json()["skipped"], 1);
    scan(&folder, &["--prefix", "OTHER", "."]).await.expect_success();
    scratch::remove(&folder);
}

#[tokio::test]
async fn trouble_is_told_and_does_not_end_the_scan() {
    let folder = scratch::folder("trouble");
    let key = new_key();
    fs::write(folder.join("b.txt"), "nothing").expect("a file");
    let missing = scan(&folder, &["--json", "a.txt", "b.txt"]).await;
    assert_eq!(missing.code, Some(2), "{missing:?}");
    let told = missing.json();
    assert_eq!((&told["files"], &told["troubles"][0]["path"]), (&1.into(), &"a.txt".into()));
    // What is found counts for more.
    fs::write(folder.join("b.txt"), &key).expect("a file");
    let told = scan(&folder, &["a.txt", "b.txt"]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    // A pipe is not waited for.
    let made = std::process::Command::new("mkfifo").arg(folder.join("pipe")).status();
    assert!(made.expect("mkfifo").success());
    assert_eq!(scan(&folder, &["."]).await.code, Some(1));
    let launch = Launch::new(binary(), &folder).args(["scan", "-", "--json"]);
    let told = run_with_input(launch, Duration::from_secs(20), Some(&format!("a\nb {key}"))).await;
    assert_eq!(told.code, Some(1));
    assert_eq!(places(&told.json()), [("-".to_owned(), 2, 3)]);
    assert_hidden(&told, &key);
    scratch::remove(&folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_200_mb_in_flat_memory() {
    const PIECE: usize = 1 << 20;
    let folder = scratch::folder("large");
    let path = folder.join("dump.bin");
    let mut random = Random::fresh();
    let mut piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| random.number().to_le_bytes()).collect();
    let keys = [new_key(), new_key(), new_key()];
    // Over the borders of what is read in one go, and at the very end.
    let offsets = [256 * 1024 - 17, 100 * PIECE - 1, 200 * PIECE - 35];
    let mut file = fs::File::create(&path).expect("a file");
    for _ in 0..200 {
        piece.rotate_left(1_013);
        std::io::Write::write_all(&mut file, &piece).expect("a piece");
    }
    for (key, at) in keys.iter().zip(offsets) {
        std::os::unix::fs::FileExt::write_all_at(&file, key.as_bytes(), at as u64).expect("a key");
    }
    drop(file);
    let bytes = fs::read(&path).expect("the file");
    let want: Vec<_> = offsets
        .iter()
        .map(|at| {
            let line = bytes[..*at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            let start = bytes[..*at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            ("dump.bin".to_owned(), line, (at - start) as u64 + 1)
        })
        .collect();
    drop(bytes);
    let mut launch = Launch::new(binary(), &folder).args(["scan", "--json", "dump.bin"]);
    launch.death_signal = "KILL";
    let mut command = tokio::process::Command::from(launch.command());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id().expect("a pid"));
    let watch = tokio::task::spawn_blocking(move || {
        let (mut peak, mut samples) = (0, 0);
        // An ended process has no memory any more.
        while let Some(kib) = peak_kib(&status) {
            (peak, samples) = (kib.max(peak), samples + 1);
            std::thread::sleep(Duration::from_millis(1));
        }
        (peak, samples)
    });
    let output = child.wait_with_output().await.expect("it ends");
    let (peak, samples) = watch.await.expect("the watch");
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let mut want = want;
    want.sort();
    assert_eq!(places(&told), want);
    println!("peak {peak} KiB in {samples} samples");
    assert!(samples > 5 && peak < 64 * 1024, "peak {peak} KiB in {samples} samples");
    scratch::remove(&folder);
}

/// The most memory that a process ever had resident.
fn peak_kib(status: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn git(folder: &Path, args: &[&str]) {
    let mut command = std::process::Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "user.name=a", "-c", "user.email=a@example.com"]);
    // Settings of the person who runs the tests are not settings of the test.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = command.args(args).output().expect("git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_was_committed_once_is_found() {
    let folder = scratch::folder("git");
    let (old, amended, said) = (new_key(), new_key(), new_key());
    let commit = |text: &str, words: &[&str]| {
        fs::write(folder.join("config.txt"), text).expect("a file");
        git(&folder, &["add", "-A"]);
        let mut args = vec!["commit", "-q"];
        args.extend(words);
        git(&folder, &args);
    };
    git(&folder, &["init", "-q"]);
    commit(&format!("one\nkey={old}\n"), &["-m", "first"]);
    // Not in the first line, which Git also writes into its own plain log.
    commit("clean\n", &["-m", "no key here", "-m", &format!("except {said}")]);
    commit(&format!("{amended}\n"), &["-m", "oops"]);
    commit("clean again\n", &["--amend", "-m", "nothing happened"]);
    scan(&folder, &["."]).await.expect_success();
    let told = scan(&folder, &["--git", "--json", "."]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    for key in [&old, &amended, &said] {
        assert_hidden(&told, key);
    }
    let object = told.json();
    assert_eq!(object["different"], 3, "{object}");
    let places = places(&object);
    assert!(places.contains(&("config.txt".to_owned(), 2, 5)), "{places:?}");
    assert!(places.iter().any(|(path, ..)| path == "(commit message)"), "{places:?}");
    // Packed, it is the same.
    git(&folder, &["gc", "-q"]);
    assert_eq!(scan(&folder, &["--git", "--json", "."]).await.json()["different"], 3);
    let nowhere = scratch::folder("nowhere");
    let told = scan(&nowhere, &["--git", "."]).await;
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stderr.contains("git"), "{told:?}");
    let mut launch = Launch::new(binary(), &folder).args(["scan", "--git", "."]);
    // `setpriv` itself is found by this, git is not.
    let bin = nowhere.join("bin");
    fs::create_dir(&bin).expect("a folder");
    std::os::unix::fs::symlink("/usr/bin/setpriv", bin.join("setpriv")).expect("a link");
    launch.env.push(("PATH".into(), bin.display().to_string()));
    let told = run(launch, Duration::from_secs(20)).await;
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stderr.contains("git is not on this machine"), "{told:?}");
    scratch::remove(&folder);
    scratch::remove(&nowhere);
}

async fn found_keys_are_checked_and_reported(size: Size) {
    let app = Setup::new(size).start().await;
    let owner = app.customer(0).await;
    let folder = scratch::folder("leak");
    let text = format!("{}\n{}\n", owner.key.secret, new_key());
    fs::write(folder.join("a.env"), text).expect("a file");
    let path = folder.join("a.env").display().to_string();
    let told = app.cli(&["scan", "--check", "--json", &path]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_hidden(&told, &owner.key.secret);
    let found = told.json()["found"].clone();
    assert_eq!(found[0]["status"], "active", "{found}");
    assert_eq!(found[0]["key_id"], owner.key.id.as_str(), "{found}");
    assert_eq!(found[0]["account_id"], owner.account.as_str(), "{found}");
    assert_eq!(found[1]["status"], "unknown", "{found}");
    let base = app.apis[0].base();
    let told = app.cli(&["scan", "--report", "--url", &base, &path]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_hidden(&told, &owner.key.secret);
    let refused = owner.client.get("/v1/tasks").await.expect(403).json();
    assert_eq!(refused["reason"], "This key was reported as leaked");
    // Nobody there to report to: that is trouble, not success.
    let told = app.cli(&["scan", "--report", "--url", "http://127.0.0.1:1", &path]).await;
    assert_eq!(told.code, Some(2), "{told:?}");
    assert_hidden(&told, &owner.key.secret);
    eventually("the report is logged", Duration::from_secs(30), || async {
        app.apis[0].process.output().contains("listmill scan").then_some(())
    })
    .await;
    scratch::remove(&folder);
    app.finish().await;
}
