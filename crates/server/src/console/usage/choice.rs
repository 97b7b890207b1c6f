//! What an address asks of usage: from when to when, told apart by what, narrowed to what, in which order.

use jiff::civil::Date;
use toktra_store::period::{Day, Days};
use toktra_store::usage::{Dimension, Order, OrderBy, Question, Share};
use toktra_store::{Store, StoreError, directory, fleet};

use super::super::failure::Failure;
use super::super::sight::Sight;
use super::super::{figures, shares};
use super::Heading;

/// The days of those who did not choose.
const USUAL_DAYS: i64 = 30;
/// Most days that are added up at once.
const DAYS_LIMIT: i64 = 3660;
/// The last page that an address may ask for.
const LAST_PAGE: u32 = 100_000;

/// The address, as it came; what is empty was not chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub(in super::super) struct Choice {
    pub(super) by: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) provider: String,
    pub(super) service: String,
    /// With those below it.
    pub(super) department: String,
    /// An address.
    pub(super) user: String,
    /// An identifier, or a host name, which several devices may have.
    pub(super) device: String,
    pub(super) application: String,
    pub(super) order: String,
    pub(super) page: String,
}

/// The same, understood.
pub(super) struct Asked {
    pub(super) choice: Choice,
    pub(super) by: Dimension,
    pub(super) question: Question,
    pub(super) order: Order,
    /// From 1.
    pub(super) page: u32,
    /// What was not understood, and what is shown instead; empty: nothing.
    pub(super) complaint: String,
}

impl Choice {
    /// Finds what is meant. What cannot be is complained of, and what is shown then says so.
    pub(super) async fn read(mut self, store: &Store, sight: &Sight) -> Result<Asked, Failure> {
        let mut complaint = String::new();
        let days = match self.days(sight) {
            Ok(days) => days,
            Err(what) => {
                complaint = format!("{what} The last {USUAL_DAYS} days are shown.");
                sight.last_days(USUAL_DAYS)
            }
        };
        let mut question = sight.question(days);
        let exact = [
            (Dimension::Provider, &self.provider),
            (Dimension::Service, &self.service),
            (Dimension::Application, &self.application),
        ];
        for (dimension, value) in exact {
            if !value.is_empty() {
                question.only.push((dimension, vec![value.clone()]));
            }
        }
        if !self.department.is_empty() {
            question.only.push((Dimension::Department, sight.with_below(&self.department)));
        }
        self.user = self.user.trim().to_owned();
        if !self.user.is_empty() {
            let found = match directory::user(store, &sight.organisation.id, &self.user).await {
                Ok(user) => vec![user.id],
                Err(StoreError::NotFound { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            if found.is_empty() {
                complaint.push_str(&format!("Nobody has the address “{}”. ", self.user));
            }
            question.only.push((Dimension::User, found));
        }
        self.device = self.device.trim().to_owned();
        if !self.device.is_empty() {
            let found = fleet::named(store, &sight.organisation.id, &self.device).await?;
            if found.is_empty() {
                complaint.push_str(&format!("No device is called “{}”. ", self.device));
            }
            question.only.push((Dimension::Device, found));
        }
        self.from = figures::machine_day(days.start.0);
        self.to = figures::machine_day(days.end.0 - 1);
        let by = Dimension::ALL.into_iter().find(|&one| shares::key(one) == self.by);
        let by = by.unwrap_or(Dimension::Service);
        self.by = shares::key(by).to_owned();
        let page = self.page.parse().unwrap_or(1).clamp(1, LAST_PAGE);
        Ok(Asked { by, question, order: order(&self.order), page, complaint, choice: self })
    }

    fn days(&self, sight: &Sight) -> Result<Days, String> {
        let read = |text: &str| match text {
            "" => Ok(None),
            text => match text.parse::<Date>() {
                Ok(date) => Ok(Some(Day::of(date))),
                Err(_) => Err(format!("“{text}” is not a date such as 2026-11-28.")),
            },
        };
        let last = read(&self.to)?.unwrap_or(sight.today).min(sight.today);
        let first = read(&self.from)?.unwrap_or(Day(last.0 + 1 - USUAL_DAYS));
        if first > last {
            return Err(format!("{} comes after {}, or is yet to come.", self.from, self.to));
        }
        if last.0 - first.0 >= DAYS_LIMIT {
            return Err("So many days are not added up at once; choose ten years at most.".to_owned());
        }
        Ok(Days { start: first, end: Day(last.0 + 1) })
    }

    pub(super) fn page(&mut self, page: u32) {
        self.page = if page == 1 { String::new() } else { page.to_string() };
    }
}

/// `cost`, `tokens`, `requests` or `name`; with `-` before it the other way round.
fn order(text: &str) -> Order {
    let (reversed, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, text),
    };
    let by = match name {
        "tokens" => OrderBy::Tokens,
        "requests" => OrderBy::Requests,
        "name" => OrderBy::Name,
        _ => OrderBy::Cost,
    };
    // Numbers fall, names rise.
    Order { by, descending: reversed == (by == OrderBy::Name) }
}

impl Asked {
    /// An address that asks the same but for this.
    pub(super) fn href(&self, path: &str, change: impl FnOnce(&mut Choice)) -> String {
        let mut choice = self.choice.clone();
        change(&mut choice);
        let fields = [
            ("by", &choice.by),
            ("from", &choice.from),
            ("to", &choice.to),
            ("provider", &choice.provider),
            ("service", &choice.service),
            ("department", &choice.department),
            ("user", &choice.user),
            ("device", &choice.device),
            ("application", &choice.application),
            ("order", &choice.order),
            ("page", &choice.page),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let fields: Vec<_> = fields.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        format!("{path}?{}", fields.join("&"))
    }

    /// An address that asks for a row alone: what it used, or of a service by whom.
    pub(super) fn narrowed(&self, share: &Share) -> String {
        let then = match self.by {
            Dimension::Provider => Dimension::Service,
            Dimension::Service | Dimension::Application => Dimension::Department,
            Dimension::Department => Dimension::User,
            Dimension::User | Dimension::Device => Dimension::Service,
        };
        self.href("/usage", |choice| {
            choice.page(1);
            choice.order.clear();
            choice.by = shares::key(then).to_owned();
            let value = match self.by {
                Dimension::User => share.name.clone().unwrap_or_default(),
                _ => share.id.clone(),
            };
            *match self.by {
                Dimension::Provider => &mut choice.provider,
                Dimension::Service => &mut choice.service,
                Dimension::Department => &mut choice.department,
                Dimension::User => &mut choice.user,
                Dimension::Device => &mut choice.device,
                Dimension::Application => &mut choice.application,
            } = value;
        })
    }

    /// Whether it tells what single persons or devices used.
    pub(super) fn is_personal(&self) -> bool {
        let personal = |dimension: Dimension| matches!(dimension, Dimension::User | Dimension::Device);
        personal(self.by) || self.question.only.iter().any(|(dimension, _)| personal(*dimension))
    }

    /// The columns to order by; the one in force leads to the other way round.
    pub(super) fn headings(&self) -> Vec<Heading> {
        let columns = [
            ("name", shares::kind(self.by), OrderBy::Name),
            ("requests", "Requests", OrderBy::Requests),
            ("tokens", "Tokens", OrderBy::Tokens),
            ("cost", "Cost", OrderBy::Cost),
        ];
        let heading = |(name, text, by): (&str, &'static str, OrderBy)| {
            let in_force = self.order.by == by;
            let usual = order(name).descending;
            let reversed = in_force && self.order.descending == usual;
            let value = if reversed { format!("-{name}") } else { name.to_owned() };
            Heading {
                text,
                href: self.href("/usage", |choice| {
                    choice.page(1);
                    choice.order = value;
                }),
                sorted: match (in_force, self.order.descending) {
                    (false, _) => "",
                    (true, true) => "descending",
                    (true, false) => "ascending",
                },
            }
        };
        columns.map(heading).into()
    }
}

/// Percent-encoded for a query (RFC 3986, 2.3: what is unreserved stays).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_and_names_rise_unless_turned_round() {
        let read = |text| (order(text).by, order(text).descending);
        assert_eq!(read(""), (OrderBy::Cost, true));
        assert_eq!(read("nonsense"), (OrderBy::Cost, true));
        assert_eq!(read("-cost"), (OrderBy::Cost, false));
        assert_eq!(read("name"), (OrderBy::Name, false));
        assert_eq!(read("-name"), (OrderBy::Name, true));
    }

    #[test]
    fn what_an_address_holds_is_encoded_to_the_byte() {
        assert_eq!(encoded("a b&c=d#é"), "a%20b%26c%3Dd%23%C3%A9");
    }
}
