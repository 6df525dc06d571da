use proptest::prelude::*;

use super::*;
use crate::domain::address::normalise;

fn addresses(text: &str) -> Vec<String> {
    let judged = |piece: Piece| normalise(&piece.address).text;
    pieces(text).into_iter().map(judged).collect()
}

/// Every one of these is the one address `ada@x.example`.
#[test]
fn spellings_of_one_address() {
    for text in [
        "ada@x.example",
        "  ada@x.example\t",
        "Ada <ada@x.example>",
        "Ada Lovelace <ada@x.example>",
        "Ada<ada@x.example>",
        "<ada@x.example>",
        "< ada@x.example >",
        "<ada@x.example>;",
        "\"ada@x.example\"",
        "'ada@x.example'",
        "\"'ada@x.example'\"",
        "`ada@x.example`",
        "\u{201c}ada@x.example\u{201d}",
        "\u{2018}ada@x.example\u{2019}",
        "\u{201e}ada@x.example\u{201c}",
        "\u{ab}ada@x.example\u{bb}",
        "[ada@x.example]",
        "(ada@x.example)",
        "\"Lovelace, Ada\" <ada@x.example>",
        "\"Lovelace; Ada\" <ada@x.example>",
        "'Ada' <ada@x.example>",
        "'ada@x.example' <ada@x.example>",
        "ada@x.example <ada@x.example>",
        "\"ada@x.example\" <ada@x.example>",
        "\"info@y.example via Y\" <ada@x.example>",
        "Ada (work) <ada@x.example>",
        "Lovelace, Ada <ada@x.example>",
        "mailto:ada@x.example",
        "MAILTO:ada@x.example?subject=x",
        "mailto:ada@x.example?subject=hello%20there&cc=b@y.example",
        "mailto:ada%40x.example",
        "<mailto:ada@x.example>",
        "Ada <mailto:ada@x.example>",
        "ada@x.example<mailto:ada@x.example>",
        "smtp:ada@x.example",
        "SMTP:ada@x.example",
        "Email: ada@x.example",
        "E-mail:ada@x.example",
        "ada@x.example (Ada)",
        "ada@x.example (Ada, home)",
        "(Ada) ada@x.example",
        "Ada Lovelace ada@x.example",
        "Ada Lovelace - ada@x.example",
        "Ada: ada@x.example",
        "Ada (ada@x.example)",
        "ada@x.example,",
        "ada@x.example;",
        "ada@x.example.",
        "ada@x.example ;",
        "ada@x.example, ",
        ", ada@x.example",
        "ada@x.example>",
        "<ada@x.example",
        "ada@x.example!",
        "ada@x.example:",
        "\u{200b}ada@x.example",
        "ada\u{200b}@x.example",
        "ada@x.\u{200b}example",
        "a\u{ad}da@x.example",
        "ada\u{feff}@x.example",
        "\u{feff}ada@x.example",
        "ada@\u{feff}x.example",
        "\u{a0}ada@x.example\u{a0}",
        "ada\u{a0}@x.example",
        "ada@\u{a0}x.example",
        "\u{202a}ada@x.example\u{202c}",
        "ada\u{200d}@x.example",
        "ada\u{ff20}x.example",
        "ada\u{ff20}x\u{ff0e}example",
        "ada@x\u{ff0e}example",
        "ada&#64;x.example",
        "ada&#x40;x.example",
        "ada&commat;x&period;example",
        "&lt;ada@x.example&gt;",
        "Ada &lt;ada@x.example&gt;",
        "&quot;ada@x.example&quot;",
        "ada@x.example&nbsp;",
        "ada%40x.example",
        "ada@x.example\r\n",
        "\"Ada\" ada@x.example",
        "undisclosed: ada@x.example;",
    ] {
        assert_eq!(addresses(text), ["ada@x.example"], "{text:?}");
        assert_eq!(pieces(text)[0].stood, text, "what stood there is kept whole");
        assert!(one(text).is_some(), "{text:?}");
    }
}

#[test]
fn several_addresses_in_one_text() {
    let three = ["a@x.example", "b@y.example", "c@z.example"];
    for text in [
        "a@x.example, b@y.example; c@z.example",
        "a@x.example,b@y.example,c@z.example",
        "a@x.example;b@y.example;c@z.example;",
        "a@x.example b@y.example\u{a0}c@z.example",
        "a@x.example|b@y.example | c@z.example",
        "a@x.example/b@y.example/c@z.example",
        "a@x.example\nb@y.example\r\nc@z.example",
        "a@x.example\tb@y.example\tc@z.example",
        "A <a@x.example>, \"B, C\" <b@y.example>; <c@z.example>",
        "A <a@x.example> B <b@y.example> <c@z.example>",
        "a@x.example and b@y.example or c@z.example",
        "\"a@x.example, b@y.example; c@z.example\"",
        "mailto:a@x.example,b@y.example,c%40z.example?subject=x",
        "'a@x.example','b@y.example','c@z.example'",
        "\"a@x.example\",\"b@y.example\",\"c@z.example\"",
        "SMTP:a@x.example;smtp:b@y.example;smtp:c@z.example",
        "[a@x.example, b@y.example, c@z.example]",
        "Friends: a@x.example, b@y.example, c@z.example;",
        "a@x.example (A), b@y.example (B), c@z.example (C)",
        "a@x.example (also b@y.example) c@z.example",
        "a@x.example <b@y.example> c@z.example",
        "a\u{ff20}x.example\u{ff0c}b@y.example\u{3001}c@z.example",
    ] {
        assert_eq!(addresses(text), three, "{text:?}");
        assert_eq!(one(text), None);
    }
    let stood = |text| -> Vec<String> {
        pieces(text).into_iter().map(|piece| piece.stood.into_owned()).collect()
    };
    assert_eq!(stood("A <a@x.example>, b@y.example."), ["A <a@x.example>", "b@y.example."]);
    assert_eq!(addresses("a@x.example, b@y..example"), ["a@x.example", "b@y..example"]);
}

/// RFC 5321 and 5322 allow more than people think.
#[test]
fn what_is_valid_stays_what_it_is() {
    for text in [
        "\"ada\"@x.example",
        "\"ada lovelace\"@x.example",
        "\"a@b\"@x.example",
        "\"a,b;c\"@x.example",
        "\"<a@b.example>\"@x.example",
        "\"(a)\"@x.example",
        "\"\\\"ada\\\"\"@x.example",
        "o'hara@x.example",
        "'ada@x.example",
        "ada'@x.example",
        "#ada@x.example",
        "//ada@x.example",
        "a/b@x.example",
        "a|b@x.example",
        "a&b@x.example",
        "a%40b@x.example",
        "a%2Bb@x.example",
        "mailto@x.example",
        "{ada}@x.example",
        "`ada`@x.example",
        "ada+tag@x.example",
        "ada?@x.example",
        "用户@例子.example",
        "ädä@x.example",
        "نام\u{200c}من@x.example",
    ] {
        let whole = Piece { stood: Cow::Borrowed(text), address: Cow::Borrowed(text) };
        assert_eq!(pieces(text), [whole]);
        assert_eq!(normalise(text).syntax, Ok(()), "{text:?}");
    }
    assert_eq!(
        addresses("\"a b\"@x.example, \"c;d\"@y.example"),
        ["\"a b\"@x.example", "\"c;d\"@y.example"]
    );
    assert_eq!(addresses("<\"a@b\"@x.example>"), ["\"a@b\"@x.example"]);
    assert_eq!(addresses("Q&amp;A <q&amp;a@x.example>"), ["q&a@x.example"]);
}

/// Nothing is invented, and its owner recognises it.
#[test]
fn what_is_broken_stays_what_it_is() {
    for text in [
        "n/a",
        "Ada Lovelace",
        "ada",
        "@x.example",
        "ada@",
        "ada@x",
        "ada@@x.example",
        "ada@y.example@x.example",
        "ada@x..example",
        "ada @x.example",
        "ada@ x.example",
        "ada at x.example",
        "call me @ home.example",
        "\"ada@x.example@",
        "Ada <ada@x>",
        "<>",
        "\"\"",
        ",",
        ";",
        "http://x.example/?to=ada",
        "ada@x_y.example",
        "ada@[192.0.2.1]",
        "&#64;",
        "%40",
        "Ada\u{a0}Lovelace",
    ] {
        assert_eq!(addresses(text), [text], "{text:?}");
        assert!(normalise(text).syntax.is_err(), "{text:?}");
    }
    // A name with a no-break space is no part of the address.
    assert_eq!(addresses("Ada\u{a0}Lovelace\u{a0}ada@x.example"), ["ada@x.example"]);
}

#[test]
fn comments_are_no_addresses() {
    for text in
        ["# Exported in May", "#", "// ada@x.example has left", "-- end --", "# a@x.example"]
    {
        assert!(is_comment(text), "{text}");
    }
    for text in
        ["#ada@x.example", "//ada@x.example", "ada@x.example # home", "ada", "", "-ada@x.example"]
    {
        assert!(!is_comment(text), "{text}");
    }
}

proptest! {
    /// The invariants, over texts that are full of what the rules look for.
    #[test]
    fn valid_stays_and_nothing_is_lost(text in prop_oneof![
        "\\PC{1,40}",
        "[ab\"'<>(),;:@. \\\\|/&#%40\u{a0}\u{200b}\u{ff20}]{1,30}",
        "[a-c\"'<(]{0,3}[ab.+]{1,4}@[a-c]{1,3}\\.example[>)'\";, .]{0,3}",
    ]) {
        let found = pieces(&text);
        if trim(&text).is_empty() {
            return Ok(());
        }
        prop_assert!(!found.is_empty());
        if is_valid(&text) {
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].address, trim(&text));
        }
        for piece in &found {
            prop_assert!(!piece.address.is_empty());
            // What came out is not taken apart once more.
            if is_valid(&piece.address) {
                prop_assert_eq!(pieces(&piece.address).len(), 1);
            }
        }
        // A list of what was found gives the same again.
        if found.iter().all(|piece| is_valid(&piece.address)) {
            let list = addresses(&text);
            prop_assert_eq!(addresses(&list.join(", ")), list);
        }
    }

    /// Whatever is around them, the addresses that were put in come out.
    #[test]
    fn wrapped_addresses_come_out(
        locals in prop::collection::vec("[a-z][a-z0-9.+_-]{0,6}[a-z0-9]", 1..5),
        wraps in prop::collection::vec(0..9_usize, 5),
        between in prop_oneof![Just(", "), Just("; "), Just(" "), Just("\n"), Just(" | ")],
    ) {
        let wanted: Vec<String> = locals.iter().filter(|local| !local.contains(".."))
            .map(|local| format!("{local}@x.example")).collect();
        let distinct: std::collections::HashSet<&String> = wanted.iter().collect();
        prop_assume!(!wanted.is_empty() && distinct.len() == wanted.len());
        let wrapped: Vec<String> = wanted.iter().zip(&wraps).map(|(address, wrap)| match wrap {
            0 => address.clone(),
            1 => format!("<{address}>"),
            2 => format!("Ada Byron <{address}>"),
            3 => format!("\"Byron, Ada\" <{address}>"),
            4 => format!("'{address}'"),
            5 => format!("\"{address}\""),
            6 => format!("{address} (Ada)"),
            7 => format!("smtp:{address}"),
            _ => format!("{address}."),
        }).collect();
        prop_assert_eq!(addresses(&wrapped.join(between)), wanted);
    }
}
