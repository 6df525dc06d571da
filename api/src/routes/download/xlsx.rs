//! XLSX: the rows of the CSV as a workbook, cell by cell the same texts; the score and the reply code are
//! numbers.

use std::borrow::Cow;
use std::io::{Seek, Write};

use super::exports::MakeError;
use super::rows::{COLUMNS, Cell, Chunk, Head, Walk, cells};
use super::sheet::{Value, Workbook};
use crate::view::stamp;

/// Writes all that `blocks` gives; gives back what it wrote to.
pub fn write<W: Write + Seek>(
    out: W,
    head: &Head,
    mut walk: Walk,
    blocks: &mut dyn Iterator<Item = Chunk>,
) -> Result<W, MakeError> {
    let theirs = cells(&head.line, head.delimiter).map(|cell| text(cell).into_owned());
    let names = theirs.chain(COLUMNS.map(str::to_owned)).collect();
    let mut workbook = Workbook::new(out, names)?;
    for chunk in blocks {
        for line in walk.lines(&chunk) {
            let shaped = head.shape(line.record);
            let theirs: Vec<_> = cells(&shaped.own, head.delimiter).map(text).collect();
            let extra = shaped.extra.as_deref().map(|extra| cells(extra, head.delimiter).map(text));
            let extra: Vec<_> = extra.into_iter().flatten().collect();
            let at = line.found.map(|found| stamp(found.checked_at)).unwrap_or_default();
            let ours = line.ours().map(|cell| match cell {
                Cell::Empty => None,
                Cell::Text(text) => Some(Value::Text(text)),
                Cell::Number(number) => Some(Value::Number(i64::from(number))),
                Cell::Time(_) => Some(Value::Text(&at)),
            });
            let (theirs, extra) =
                (theirs.iter().map(|cell| value(cell)), extra.iter().map(|cell| value(cell)));
            workbook.row(theirs.chain(ours).chain(extra))?;
        }
    }
    workbook.finish()
}

fn value(cell: &str) -> Option<Value<'_>> {
    Some(Value::Text(cell)).filter(|_| !cell.is_empty())
}

/// Lists are UTF-8 when they are taken, so nothing is replaced.
fn text(cell: Cow<'_, [u8]>) -> Cow<'_, str> {
    match cell {
        Cow::Borrowed(cell) => String::from_utf8_lossy(cell),
        Cow::Owned(cell) => Cow::Owned(String::from_utf8_lossy(&cell).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use listmill_shared::domain::verdict::Reason;

    use super::*;
    use crate::routes::download::sheet::tests::read;
    use crate::routes::download::tests::{chunk, found};

    #[test]
    fn a_sheet_has_the_cells_of_the_csv() {
        let head = Head::new(b"id;=mail;note".to_vec(), b';');
        let rows = [
            (Some(0), "007;a0@example.com;\"=1;\"\"x\"\"\""),
            (None, ";;"),
            (Some(1), "2024-01-02;\"a1\";"),
            (Some(0), "a0@example.com"),
        ];
        let blocks = vec![chunk(&rows, vec![found(0, Reason::Accepted)])];
        let out = Cursor::new(Vec::new());
        let made = write(out, &head, Walk::new(None), &mut blocks.into_iter()).unwrap();
        let sheets = read(made.get_ref());
        let [sheet] = &sheets[..] else { panic!("{} sheets", sheets.len()) };
        assert_eq!(sheet[0][..4], ["id", "=mail", "note", "listmill_status"]);
        let stamp = "1970-01-01T00:00:00.000Z";
        let verdict =
            ["deliverable", "accepted", "98", "true", "", "", "", "", "mx;1.example", "250"];
        assert_eq!(sheet[1][..3], ["007", "a0@example.com", "=1;\"x\""]);
        assert_eq!(sheet[1][3..13], verdict);
        assert_eq!(sheet[1][13..], ["charged", stamp]);
        assert_eq!(sheet[2], Vec::<String>::new());
        assert_eq!(sheet[3], ["2024-01-02", "a1"], "no result yet");
        assert_eq!(sheet[4][0], "a0@example.com");
        assert_eq!(sheet[4][11..], ["free", stamp], "ours follow theirs, as in the CSV");
    }
}
