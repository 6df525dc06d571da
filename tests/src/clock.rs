//! RFC 3339 from an HTTP `Date`: the tests take the server's time, not one of their own.

const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";

/// `Fri, 20 Nov 2026 22:15:38 GMT` and 3 → `2026-11-20T22:15:41Z`.
pub fn seconds_later(date: &str, seconds: u32) -> String {
    let parts: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, _] = parts[..] else {
        panic!("not a date: {date}");
    };
    let month = MONTHS.find(month).expect("a month") / 3 + 1;
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let total = number(hour) * 3_600 + number(minute) * 60 + number(second) + seconds;
    // Past midnight the day after would need a calendar; the last second of the day will do.
    let total = total.min(86_399);
    let (hour, minute, second) = (total / 3_600, total / 60 % 60, total % 60);
    format!("{year}-{month:02}-{day}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn adds_seconds() {
        let later = super::seconds_later("Fri, 20 Nov 2026 22:59:58 GMT", 3);
        assert_eq!(later, "2026-11-20T23:00:01Z");
    }
}
