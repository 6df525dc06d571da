//! The fields of a key's limits: as they are, as a form says, as they are to be.

use listmill_shared::domain::clock::Millis;
use listmill_shared::domain::key::fields::{CreditDraft, Fields, RefillDraft};
use listmill_shared::domain::key::{Interval, Key};
use listmill_shared::domain::network::parse_network;

use super::{Choice, Said, said};
use crate::dashboard::page::Page;

/// What the dialog shows.
pub struct Limits {
    pub rate: String,
    pub credits: String,
    pub credits_hint: String,
    pub refills: Vec<Choice>,
    pub amount: String,
    pub day: String,
    pub allow: String,
    pub named: Vec<String>,
    pub test: bool,
}

impl Limits {
    /// As they are.
    pub fn of(page: &Page, key: &Key, now: Millis) -> Self {
        let credit = key.credit_limit.map(|limit| limit.at(now));
        let refill = credit.and_then(|limit| limit.refill);
        let hint = match credit {
            None => page.t("key_limit.credits_hint_none").to_owned(),
            Some(limit) => {
                let shared = key.budget != key.family;
                let name =
                    if shared { "key_limit.credits_hint_shared" } else { "key_limit.credits_hint" };
                page.tf(name, &[("used", &page.n(limit.used))])
            }
        };
        let named = key.limits.iter().map(|limit| {
            let (most, seconds) = (page.n(limit.limit), page.n(limit.window_seconds));
            let with = [("name", limit.name.as_str()), ("limit", &most), ("seconds", &seconds)];
            page.tf("key_limit.named_line", &with)
        });
        let text =
            |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
        let monthly = refill.filter(|refill| refill.interval == Interval::Monthly);
        let networks: Vec<String> = key.allow.iter().map(ToString::to_string).collect();
        Self {
            rate: text(key.rate_limit),
            credits: text(credit.map(|limit| limit.limit)),
            credits_hint: hint,
            refills: refills(page, refill.map_or("", |refill| refill.interval.as_str())),
            amount: text(refill.map(|refill| refill.amount)),
            day: text(monthly.map(|refill| i64::from(refill.day))),
            allow: networks.join("\n"),
            named: named.collect(),
            test: key.is_test(),
        }
    }

    /// As a form says that was not taken.
    pub fn said(self, page: &Page, form: &Said) -> Self {
        let text = |name| said(form, name).to_owned();
        Self {
            rate: text("rate"),
            credits: text("credits"),
            refills: refills(page, said(form, "refill")),
            amount: text("amount"),
            day: text("day"),
            allow: text("allow"),
            ..self
        }
    }
}

fn refills(page: &Page, chosen: &str) -> Vec<Choice> {
    let choice =
        |(value, name)| Choice { value, text: page.t(name).to_owned(), chosen: value == chosen };
    let all = [
        ("", "key_limit.refill_none"),
        ("daily", "key_limit.refill_daily"),
        ("monthly", "key_limit.refill_monthly"),
    ];
    all.into_iter().map(choice).collect()
}

/// Reads the form; `Err`: what is wrong with it.
pub fn read(page: &Page, form: &Said, test: bool) -> Result<Fields, String> {
    let number = |name: &str, called: &str| match said(form, name).trim() {
        "" => Ok(None),
        text => text
            .parse::<i64>()
            .map(Some)
            .map_err(|_| page.tf("keys.bad_number", &[("field", page.t(called))])),
    };
    let refill = match Interval::parse(said(form, "refill")) {
        None => None,
        Some(interval) => {
            let amount = number("amount", "key_limit.amount")?;
            let amount = amount.ok_or_else(|| page.t("keys.no_amount").to_owned())?;
            let monthly = interval == Interval::Monthly;
            let day = if monthly { number("day", "key_limit.day")? } else { None };
            Some(RefillDraft { interval, amount, day })
        }
    };
    let credits = number("credits", "key_limit.credits")?;
    let draft = credits.map(|limit| CreditDraft { limit, used: None, refill });
    let network = |text: &str| match parse_network(text) {
        Some(network) => Ok(network.trunc()),
        None => Err(page.tf("keys.bad_network", &[("text", text)])),
    };
    let written = said(form, "allow").split(|sign: char| sign == ',' || sign.is_whitespace());
    let allow = written.filter(|text| !text.is_empty()).map(network).collect::<Result<_, _>>()?;
    Ok(Fields {
        rate_limit: Some(number("rate", "key_limit.rate")?),
        credit_limit: (!test).then_some(draft),
        allow: Some(allow),
        ..Fields::default()
    })
}
