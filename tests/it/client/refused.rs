//! What is said when it does not go, and what helps at a shell. No message shows the key.

use std::path::Path;
use std::time::Duration;

use listmill_tests::admin::{Outcome, run};
use listmill_tests::process::Launch;
use listmill_tests::setup::binary;
use listmill_tests::{Setup, Size, ports, scratch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{LIMIT, launch};

const WRONG: &str = "VEC23456789ABCDEFGHJKMNPQRSTUVWXYZ2";

async fn fails(launch: Launch, says: &[&str]) -> Outcome {
    let outcome = run(launch, LIMIT).await;
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert_eq!(outcome.stdout, "", "{outcome:#?}");
    for text in says {
        assert!(outcome.stderr.contains(text), "{text:?} is not said: {outcome:#?}");
    }
    assert!(!outcome.stderr.contains(WRONG), "the key is shown: {outcome:#?}");
    outcome
}

fn at(folder: &Path, url: &str, args: &[&str]) -> Launch {
    launch(folder, url, WRONG, args)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_why_not() {
    let app = Setup::new(Size::Embedded).start().await;
    let customer = app.customer(1).await;
    let (folder, base, key) = (app.folder(), app.apis[0].base(), &customer.key.secret);
    fails(at(folder, &base, &["status"]), &["does not take this key (401)"]).await;
    // The same as a workbook would be: the answer comes while the list is on its way.
    std::fs::write(folder.join("list.txt"), "a@shop.test\nb@shop.test\n").expect("a list");
    fails(at(folder, &base, &["submit", "list.txt"]), &["(401)"]).await;
    let own = |args: &[&str]| launch(folder, &base, key, args);
    fails(own(&["submit", "list.txt"]), &["not enough credits (402)", "--allow-partial"]).await;
    let nowhere = "task_0199c2f06c5a7a3b8d0e5f4a1b2c3d4e";
    fails(own(&["watch", nowhere]), &["(404)"]).await;
    fails(own(&["cancel", "../keys"]), &["no task's id"]).await;
    std::fs::write(folder.join("page.pdf"), "%PDF-1.7 …").expect("no list");
    fails(own(&["submit", "page.pdf"]), &["PDF", "(415)"]).await;
    let port = app.apis[0].port;
    let tls = format!("https://127.0.0.1:{port}");
    fails(at(folder, &tls, &["status"]), &["does not speak TLS"]).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_no_key_or_another_server_is_named() {
    let folder = scratch::folder("client");
    let away = format!("http://127.0.0.1:{}", ports::free_port());
    fails(at(&folder, &away, &["status"]), &["connection refused"]).await;
    fails(at(&folder, "", &["status"]), &["which server?", "LISTMILL_URL"]).await;
    fails(at(&folder, "lists.example.com", &["status"]), &["is no address of a server"]).await;
    fails(launch(&folder, &away, "", &["status"]), &["which key?", "LISTMILL_KEY"]).await;

    // One that answers with pages, and one that takes everything and says nothing.
    let pages = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = pages.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = pages.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let page =
                "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>";
            let _ = stream.write_all(page.as_bytes()).await;
        }
    });
    let url = format!("http://127.0.0.1:{port}");
    fails(at(&folder, &url, &["status"]), &["not as a Listmill does", "Is the address right?"])
        .await;
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = mute.local_addr().expect("an address").port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = mute.accept().await {
            held.push(connection);
        }
    });
    let url = format!("http://127.0.0.1:{port}");
    std::fs::write(folder.join("list.txt"), "a@shop.test\n").expect("a list");
    let silent = ["submit", "list.txt", "--timeout", "1s"];
    fails(at(&folder, &url, &silent), &["has been silent", "--idempotency-key listmill-"]).await;
    held.abort();
    scratch::remove(&folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_to_wait_is_waited_for() {
    let folder = scratch::folder("client");
    let busy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = busy.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut answers = [
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 31\r\n\r\n\
             {\"error\":\"Rate limit exceeded\"}",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 30\r\n\r\n{\"data\":[],\"next_cursor\":null}",
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 40000\r\nconnection: close\r\ncontent-length: 32\r\n\r\n\
             {\"error\":\"Daily limit exceeded\"}",
        ]
        .into_iter();
        while let Ok((mut stream, _)) = busy.accept().await {
            let Some(answer) = answers.next() else { return };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let url = format!("http://127.0.0.1:{port}");
    let waited = run(at(&folder, &url, &["status"]), LIMIT).await.expect_success();
    assert!(waited.stderr.contains("trying again in 1.0 s"), "{waited:#?}");
    let begun = std::time::Instant::now();
    fails(at(&folder, &url, &["status"]), &["again in 40000 s"]).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits for half a day");
    scratch::remove(&folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_and_manual_pages_name_every_command() {
    let folder = scratch::folder("client");
    let cli = |args: &[&str]| Launch::new(binary(), &folder).args(args.iter().copied());
    let help = run(cli(&["--help"]), LIMIT).await.expect_success().stdout;
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next());
    let names: Vec<&str> = listed
        .expect("a list of commands")
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() > 10 && names.contains(&"submit"), "{names:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(cli(&["completions", shell]), LIMIT).await.expect_success().stdout;
        for name in &names {
            assert!(script.contains(name), "{shell} does not know {name}");
        }
    }
    // A settings file that is broken is nothing to them.
    std::fs::write(folder.join("listmill.toml"), "nonsense = [").expect("a file");
    run(cli(&["man", "--output", "man"]), LIMIT).await.expect_success();
    for name in &names {
        let page = std::fs::read_to_string(folder.join(format!("man/listmill-{name}.1")));
        let page = page.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{name}: {page}");
    }
    let all = run(cli(&["man"]), LIMIT).await.expect_success().stdout;
    assert!(all.matches(".TH").count() > names.len(), "subcommands of subcommands, too");
    scratch::remove(&folder);
}
