//! The text of a cell, as a person sees it in a spreadsheet whose cells have no special format.
//!
//! Numbers have the 15 digits that a spreadsheet shows; dates are written as 2026-11-28, with the time behind it
//! where there is one; a length of time is hours:minutes:seconds.

use std::fmt::Write;

use calamine::{DataRef, ExcelDateTime};

/// Beyond this a number is written with an exponent, as nobody counts the zeros.
const PLAIN_UP_TO: f64 = 1e21;
const PLAIN_FROM: f64 = 1e-9;

/// Appends it; an empty cell appends nothing.
pub(super) fn write_text(out: &mut String, cell: &DataRef<'_>) {
    match cell {
        DataRef::Empty => {}
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => {
            out.push_str(text);
        }
        DataRef::SharedString(text) => out.push_str(text),
        DataRef::Bool(true) => out.push_str("TRUE"),
        DataRef::Bool(false) => out.push_str("FALSE"),
        DataRef::Int(number) => written(write!(out, "{number}")),
        DataRef::Float(number) => write_number(out, *number),
        DataRef::DateTime(at) => write_time(out, at),
        DataRef::Error(error) => written(write!(out, "{error}")),
    }
}

/// Writing into a text cannot fail.
fn written(_: std::fmt::Result) {}

fn write_number(out: &mut String, number: f64) {
    // What a spreadsheet shows of 0.1 + 0.2 is 0.3.
    let shown = format!("{number:.14e}").parse().unwrap_or(number);
    let size = shown.abs();
    let plain = shown == 0.0 || (PLAIN_FROM..PLAIN_UP_TO).contains(&size);
    written(match plain {
        // There is no minus zero.
        true => write!(out, "{}", shown + 0.0),
        false => write!(out, "{shown:E}"),
    });
}

fn write_time(out: &mut String, at: &ExcelDateTime) {
    let days = at.as_f64();
    if at.is_duration() {
        let seconds = (days * 86_400.0).round().clamp(-1e15, 1e15) as i64;
        let sign = if seconds < 0 { "-" } else { "" };
        let seconds = seconds.unsigned_abs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        written(write!(out, "{sign}{hours}:{minutes:02}:{:02}", seconds % 60));
        return;
    }
    let (year, month, day, hour, minute, second, milli) = at.to_ymd_hms_milli();
    let has_date = days >= 1.0;
    let has_time = (hour, minute, second, milli) != (0, 0, 0, 0);
    if has_date || !has_time {
        written(write!(out, "{year:04}-{month:02}-{day:02}"));
    }
    if has_time {
        let gap = if has_date { " " } else { "" };
        written(write!(out, "{gap}{hour:02}:{minute:02}:{second:02}"));
        if milli > 0 {
            written(write!(out, ".{milli:03}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use calamine::{CellErrorType, ExcelDateTimeType};

    use super::*;

    fn text(cell: DataRef<'_>) -> String {
        let mut out = String::new();
        write_text(&mut out, &cell);
        out
    }

    #[test]
    fn numbers_are_what_a_person_sees() {
        for (number, shown) in [
            (42.0, "42"),
            (-1.5, "-1.5"),
            (0.1 + 0.2, "0.3"),
            (491_701_234_567.0, "491701234567"),
            (123_456_789_012_345.0, "123456789012345"),
            (-0.0, "0"),
            (1e20, "100000000000000000000"),
            (1e300, "1E300"),
            (1.25e-12, "1.25E-12"),
        ] {
            assert_eq!(text(DataRef::Float(number)), shown);
        }
        assert_eq!(text(DataRef::Int(-7)), "-7");
        assert_eq!(text(DataRef::Bool(true)), "TRUE");
        assert_eq!(text(DataRef::Error(CellErrorType::NA)), "#N/A");
        assert_eq!(text(DataRef::Empty), "");
    }

    #[test]
    fn dates_and_times_are_written_out() {
        let at = |days: f64, kind| text(DataRef::DateTime(ExcelDateTime::new(days, kind, false)));
        let date = |days| at(days, ExcelDateTimeType::DateTime);
        assert_eq!(date(45_943.0), "2025-10-13");
        assert_eq!(date(45_943.5), "2025-10-13 12:00:00");
        assert_eq!(date(45_943.541), "2025-10-13 12:59:02.400");
        assert_eq!(date(0.25), "06:00:00");
        let span = |days| at(days, ExcelDateTimeType::TimeDelta);
        assert_eq!(span(1.5), "36:00:00");
        assert_eq!(span(-0.5 / 24.0), "-0:30:00");
    }
}
