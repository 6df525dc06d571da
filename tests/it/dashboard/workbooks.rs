//! Files in a browser: a workbook in and out, and a list that is dropped on the form.

use std::time::Duration;

use listmill_tests::{Size, archive, lists, workbook};
use serde_json::json;

use super::{WORK, browsed, task_when};

/// The sheet is chosen, the list runs to its end, and comes back as a workbook.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workbook_in_and_out() {
    let app = browsed(Size::Embedded).start().await;
    let login = app.person(5_000).await;
    let browser = login.browse(&app).await;
    let rows = |count: usize| {
        let people = lists::people(count).into_iter().map(|mail| vec![String::from("007"), mail]);
        let head = vec![String::from("id"), String::from("email")];
        std::iter::once(head).chain(people).collect::<Vec<_>>()
    };
    let book = workbook::of_texts(&[("First", rows(3)), ("Second", rows(1_000))]);
    let file = browser.file("two sheets.xlsx", book);
    browser.file_field("List file").choose_file(&file).await;
    browser.wait_for("What this list comes to").await;
    browser.wait_for("person1@example.com").await;
    browser.assert_accessible("a workbook before it starts").await;
    browser.field("Sheet that was read").choose("Second").await;
    browser.wait_for("1,000").await;
    browser.button("Start verification").click().await;
    browser.row("two sheets").wait_long_for("completed", WORK).await;
    let task = task_when(&app, &login, "completed", |t| t["status"] == "completed").await;
    assert_eq!(task["counts"]["deliverable"], 1_000, "{task}");

    let folder = browser.folder().join("downloads");
    std::fs::create_dir(&folder).expect("a folder");
    let to = json!({ "behavior": "allow", "downloadPath": folder });
    browser.cdp("Browser.setDownloadBehavior", to).await;
    browser.row("two sheets").link("two sheets").click().await;
    browser.heading("two sheets").wait().await;
    browser.link("Download XLSX").click().await;
    let got = browser
        .eventually("the download", Duration::from_secs(30), async || {
            let files = std::fs::read_dir(&folder).ok()?.flatten().map(|file| file.path());
            let mut whole = files.filter(|path| path.extension().is_some_and(|end| end == "xlsx"));
            std::fs::read(whole.next()?).ok().filter(|bytes| !bytes.is_empty())
        })
        .await;
    let sheets = archive::sheets(&got);
    assert_eq!(sheets[0].len(), 1_001);
    assert_eq!(sheets[0][0][..3], ["id", "email", "listmill_status"]);
    assert_eq!(sheets[0][1_000][0], "007", "it is a text still");
    assert_eq!(sheets[0][1_000][2], "deliverable");
    browser.finish().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_dropped() {
    let app = browsed(Size::Embedded).start().await;
    let login = app.person(1_000).await;
    let browser = login.browse(&app).await;
    let text = format!("email\n{}\n", lists::people(200).join("\n"));
    let drop = "const files = new DataTransfer();
        files.items.add(new File([arguments[0]], 'dropped.csv', { type: 'text/csv' }));
        const zone = document.querySelector('form[data-upload] h2');
        const taken = ['dragenter', 'dragover', 'drop'].map((kind) => {
          const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: files });
          zone.dispatchEvent(event);
          return event.defaultPrevented;
        });
        return taken.slice(1).every(Boolean);";
    let taken = browser.script(drop, vec![json!(text)]).await;
    assert_eq!(taken, true, "the browser would have opened the file");
    browser.wait_for("What this list comes to").await;
    browser.wait_for("200").await;
    browser.button("Start verification").click().await;
    browser.row("dropped").wait_long_for("completed", WORK).await;
    let task = task_when(&app, &login, "completed", |t| t["status"] == "completed").await;
    assert_eq!(task["counts"]["deliverable"], 200, "{task}");
    browser.finish().await;
    app.finish().await;
}

/// How a list was read is seen before it starts; one that is probably the wrong file is doubted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_understood_before_it_starts() {
    let app = browsed(Size::Embedded).start().await;
    let login = app.person(1_000).await;
    let browser = login.browse(&app).await;
    let rows: String = (1..=20).map(|no| format!("Jörg {no};J <person{no}@Shop.test>\n")).collect();
    let list = format!("Email;Contact\n{rows}");
    let bytes: Vec<u8> =
        list.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
    let file = browser.file("contacts.csv", bytes);
    browser.file_field("List file").choose_file(&file).await;
    browser.wait_for("write Contact into the field Column").await;
    browser.wait_for("encoding windows-1252").await;
    browser.assert_accessible("a list that is doubted").await;
    browser.field("Column").fill("Contact").await;
    browser.button("Count and price").click().await;
    browser.wait_for("J <person1@Shop.test>").await;
    browser.wait_for("person1@shop.test").await;
    browser.assert_accessible("a list before it starts").await;
    browser.button("Start verification").click().await;
    browser.row("contacts").wait_long_for("completed", WORK).await;
    let task = task_when(&app, &login, "completed", |t| t["status"] == "completed").await;
    assert_eq!(task["counts"]["deliverable"], 20, "{task}");
    browser.finish().await;
    app.finish().await;
}
