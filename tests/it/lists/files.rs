//! A folder of lists as real programs write them, each with the addresses that are in it, in order.

use listmill_tests::{lists, workbook};

/// A list, and what is in it.
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Distinct addresses in the order of their first appearance.
    pub wanted: Vec<&'static str>,
}

const PEOPLE: [(&str, &str); 3] = [
    ("Jörg Müller", "joerg@shop.example"),
    ("Renée O'Neil", "renee.o'neil@shop.example"),
    ("Zoë", "zoe+news@mail.shop.example"),
];
const WANTED: [&str; 3] =
    ["joerg@shop.example", "renee.o'neil@shop.example", "zoe+news@mail.shop.example"];

fn file(name: &str, text: impl AsRef<[u8]>) -> File {
    let (name, bytes) = (name.to_owned(), text.as_ref().to_vec());
    File { name, bytes, wanted: WANTED.to_vec() }
}

fn of(name: &str, text: impl AsRef<[u8]>, wanted: &[&'static str]) -> File {
    File { wanted: wanted.to_vec(), ..file(name, text) }
}

/// Rows with these headers; `row` writes name and address into them.
fn table(headers: &str, delimiter: char, row: impl Fn(&str, &str) -> String) -> String {
    let mut text = headers.replace(',', &delimiter.to_string()) + "\r\n";
    for (name, address) in PEOPLE {
        text += &(row(name, address).replace(',', &delimiter.to_string()) + "\r\n");
    }
    text
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
    text.encode_utf16().flat_map(bytes).collect()
}

/// Windows-1252 of what is in Latin-1.
fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect()
}

/// Every one of them.
pub fn all() -> Vec<File> {
    [tables(), encodings(), texts(), books(), json(), packed(), workbooks()].concat_all()
}

trait ConcatAll {
    fn concat_all(self) -> Vec<File>;
}

impl<const N: usize> ConcatAll for [Vec<File>; N] {
    fn concat_all(self) -> Vec<File> {
        self.into_iter().flatten().collect()
    }
}

fn tables() -> Vec<File> {
    let outlook = table(
        "First Name,Last Name,E-mail Address,E-mail 2 Address,Mobile Phone",
        ',',
        |name, address| format!("\"{name}\",\"\",\"{address}\",\"\",\"\""),
    );
    let outlook_de = table("Vorname,Nachname,E-Mail-Adresse", ';', |n, a| format!("{n},,{a}"));
    let google = table(
        "Name,Given Name,E-mail 1 - Type,E-mail 1 - Value,Phone 1 - Value",
        ',',
        |name, address| format!("{name},{name},* ,{address},"),
    );
    let mailchimp = table("Email Address,First Name,MEMBER_RATING,OPTIN_TIME", ',', |n, a| {
        format!("{a},\"{n}\",2,\"2026-05-01 10:00:00\"")
    });
    let hubspot =
        table("\"Record ID\",\"Email\",\"Create Date\"", ',', |_, a| format!("\"1\",\"{a}\",\"\""));
    let salesforce = table("\"Contact ID\",\"Email\",\"Account Name\"", ',', |n, a| {
        format!("\"003\",\"{a}\",\"{n}\"")
    });
    let shopify = table("First Name,Last Name,Email,Accepts Email Marketing", ',', |n, a| {
        format!("{n},,{a},yes")
    });
    let stripe =
        table("id,Email,Name,Created (UTC)", ',', |n, a| format!("cus_1,{a},{n},2026-05-01"));
    let woo = table("\"Order\",\"Email (Billing)\"", ',', |_, a| format!("\"#1\",\"{a}\""));
    let named =
        |header: &'static str| table(&format!("id,{header},note"), ',', |_, a| format!("1,{a},x"));
    let plain = table("Email", ',', |_, a| a.to_owned());
    let no_header: String = PEOPLE.iter().map(|(n, a)| format!("{n},{a}\n")).collect();
    let angle = table("Name,Email", ',', |n, a| format!("{n},{n} <{a}>"));
    let exchange = table("DisplayName,proxyAddresses", ',', |n, a| format!("{n},SMTP:{a}"));
    let quoted = table("Name,Email", ';', |n, a| format!("\"{n}\",\"'{a}'\""));
    let ragged = "Name,Email,Note\r\nMüller, Jörg,joerg@shop.example,x\r\n\
        Renée,renee.o'neil@shop.example\r\nZoë,zoe+news@mail.shop.example,a,b,c\r\n";
    let several = "Name;Email\r\nAll;joerg@shop.example, renee.o'neil@shop.example / zoe+news@mail.shop.example\r\n";
    vec![
        file("outlook.csv", outlook),
        file("outlook-de.csv", outlook_de),
        file("google.csv", google),
        file("mailchimp.csv", mailchimp),
        file("hubspot.csv", hubspot),
        file("salesforce.csv", salesforce),
        file("shopify.csv", shopify),
        file("stripe.csv", stripe),
        file("woocommerce.csv", woo),
        file("french.csv", named("Adresse e-mail")),
        file("spanish.csv", named("Correo electrónico")),
        file("russian.csv", named("Электронная почта")),
        file("japanese.csv", named("メールアドレス")),
        file("chinese.csv", named("电子邮箱")),
        file("one-column.csv", plain),
        file("no-header.csv", no_header),
        file("names-in-cells.csv", angle),
        file("exchange.csv", exchange),
        file("quoted.csv", quoted),
        file("ragged.csv", ragged),
        file("several-in-a-cell.csv", several),
        file("tabs.tsv", table("Name,Email", '\t', |n, a| format!("{n},{a}"))),
        file("bars.csv", table("Name,Email", '|', |n, a| format!("{n},{a}"))),
        file(
            "excel-sep.csv",
            format!("sep=;\r\n{}", table("Name,E-Mail", ';', |n, a| format!("{n},{a}"))),
        ),
        file(
            "comment.csv",
            format!(
                "# Exported, May 2026\n{}",
                table("Name,Email", ',', |n, a| format!("{n},{a}"))
            ),
        ),
        file(
            "old-mac.csv",
            table("Name,Email", ';', |n, a| format!("{n},{a}")).replace("\r\n", "\r"),
        ),
        file(
            "results.csv",
            table("email,listmill_status,listmill_reason", ',', |_, a| {
                format!("{a},risky,catch_all")
            }),
        ),
    ]
}

fn encodings() -> Vec<File> {
    let text = table("Name,E-Mail,Straße", ';', |n, a| format!("{n},{a},Königsallee"));
    let marked = format!("\u{feff}{text}");
    let tabs = text.replace(';', "\t");
    vec![
        file("utf8.csv", &text),
        file("utf8-bom.csv", &marked),
        file("excel-ansi.csv", latin(&text)),
        file("excel-unicode-text.txt", utf16(&format!("\u{feff}{tabs}"), false)),
        file("excel-ansi-text.txt", latin(&tabs)),
        file("utf16-le.csv", utf16(&marked, false)),
        file("utf16-be.csv", utf16(&marked, true)),
        file("utf16-unmarked.csv", utf16(&text, false)),
    ]
}

fn texts() -> Vec<File> {
    let lines = WANTED.join("\n");
    vec![
        file("lines.txt", &lines),
        file("crlf.txt", WANTED.join("\r\n")),
        file("header.txt", format!("E-Mail\n{lines}\n")),
        file("commas.txt", WANTED.join(", ")),
        file("semicolons.txt", format!("{};", WANTED.join("; "))),
        file(
            "pasted-from-outlook.txt",
            "Müller, Jörg <joerg@shop.example>; 'renee.o''neil' <renee.o'neil@shop.example>; Zoë <zoe+news@mail.shop.example>",
        ),
        file(
            "pasted-from-gmail.txt",
            "Jörg Müller <joerg@shop.example>, \"O'Neil, Renée\" <renee.o'neil@shop.example>, <zoe+news@mail.shop.example>",
        ),
        file(
            "mailto.txt",
            "mailto:joerg@shop.example\nMAILTO:renee.o'neil@shop.example?subject=hi\nmailto:zoe%2Bnews@mail.shop.example\n",
        ),
        file("comments.txt", format!("# our friends\n{lines}\n-- end --\n")),
        file("dots-and-commas.txt", format!("{}.\n{},\n{};\n", WANTED[0], WANTED[1], WANTED[2])),
        file(
            "invisible.txt",
            format!("\u{200b}{}\n{}\u{a0}\n\u{202a}{}\u{202c}\n", WANTED[0], WANTED[1], WANTED[2]),
        ),
        file(
            "full-width.txt",
            "joerg＠shop．example\nrenee.o'neil@shop．example\nzoe+news＠mail.shop.example\n",
        ),
        file(
            "entities.txt",
            "joerg&#64;shop.example\n&lt;renee.o'neil@shop.example&gt;\nzoe+news&#x40;mail.shop.example\n",
        ),
        file("no-ending", &lines),
        of(
            "quoted-forms.txt",
            "\"a b\"@shop.example\n\"x@y\"@shop.example\nq&a@shop.example\n",
            &["\"a b\"@shop.example", "\"x@y\"@shop.example", "q&a@shop.example"],
        ),
    ]
}

fn books() -> Vec<File> {
    let card = |version: &str, field: &str| -> String {
        let people = PEOPLE.iter().map(|(name, address)| {
            format!("BEGIN:VCARD\r\nVERSION:{version}\r\nFN:{name}\r\n{field}:{address}\r\nEND:VCARD\r\n")
        });
        people.collect()
    };
    let quoted: String = PEOPLE.iter().map(|(_, address)| format!(
        "BEGIN:VCARD\r\nVERSION:2.1\r\nFN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B6=\r\n=72g\r\nEMAIL;HOME:{address}\r\nEND:VCARD\r\n"
    )).collect();
    let ldif: String = PEOPLE
        .iter()
        .map(|(_, address)| {
            format!("dn: cn=x,mail={address}\nobjectclass: person\ncn: x\nmail: {address}\n\n")
        })
        .collect();
    let mail = "Received: from x\r\n\tby y\r\nFrom: =?utf-8?q?J=C3=B6rg?= <joerg@shop.example>\r\n\
        To: \"O'Neil, R\" <renee.o'neil@shop.example>,\r\n Zoe <zoe+news@mail.shop.example>\r\n\
        Subject: nobody@shop.example\r\nDate: Mon, 4 May 2026 10:00:00 +0000\r\n\r\nwrite to body@shop.example\r\n";
    let mbox: String = PEOPLE.iter().map(|(_, address)| format!(
        "From {address} Mon May  4 10:00:00 2026\nFrom: <{address}>\nTo: <{}>\nDate: x\nSubject: y\n\nHello\n\n", WANTED[0]
    )).collect();
    vec![
        file("iphone.vcf", card("3.0", "EMAIL;type=INTERNET;type=HOME;type=pref")),
        file("apple.vcf", card("3.0", "item1.EMAIL;type=INTERNET")),
        file("android.vcf", card("2.1", "EMAIL;HOME")),
        file("android-quoted.vcf", quoted),
        file("google.vcf", card("4.0", "EMAIL;TYPE=work")),
        file("thunderbird.ldif", ldif),
        file("saved.eml", mail),
        file("archive.mbox", mbox),
    ]
}

fn json() -> Vec<File> {
    let texts: Vec<String> = WANTED.iter().map(|a| format!("\"{a}\"")).collect();
    let objects: Vec<String> = PEOPLE
        .iter()
        .map(|(n, a)| format!("{{\"name\":\"{n}\",\"contact_email\":\"{a}\"}}"))
        .collect();
    let emails: Vec<String> =
        WANTED.iter().map(|a| format!("{{\"id\":1,\"email\":\"{a}\",\"tags\":[1]}}")).collect();
    vec![
        file("texts.json", format!("[{}]", texts.join(","))),
        file("objects.json", format!("[{}]", objects.join(",\n"))),
        file("emails.json", format!("{{\"emails\":[{}]}}", texts.join(","))),
        file("objects-in-emails.json", format!("{{\"emails\":[{}]}}", emails.join(","))),
        file("lines.ndjson", emails.join("\n")),
        file("any-field.jsonl", objects.join("\n")),
        file("texts.ndjson", texts.join("\n")),
    ]
}

fn packed() -> Vec<File> {
    let text = table("Name,Email", ',', |n, a| format!("{n},{a}"));
    let zip = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| {
            let reader: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(text.to_string()));
            (*name, reader)
        });
        workbook::pack(files.collect())
    };
    vec![
        file("list.csv.gz", lists::gzip(text.as_bytes())),
        file("packed-without-a-name", lists::gzip(text.as_bytes())),
        file("list.csv.zst", zstd::encode_all(text.as_bytes(), 3).expect("packed")),
        file("list.zip", zip(&[("export/list.csv", &text)])),
        file(
            "from-a-mac.zip",
            zip(&[("list.csv", &text), ("__MACOSX/._list.csv", "junk"), (".DS_Store", "junk")]),
        ),
    ]
}

fn workbooks() -> Vec<File> {
    let text = table("Name,E-Mail,Note", ',', |n, a| format!("{n},{a},x"));
    vec![
        file("book.xlsx", workbook::of_csv(&text)),
        file("book-without-a-name", workbook::of_csv(&text)),
        file("called.csv", workbook::of_csv(&text)),
    ]
}
