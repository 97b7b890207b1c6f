//! What the form of a budget holds: texts as they were typed, so that a form that is refused comes back
//! as it was sent.

use serde::Deserialize;
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_store::budgets::{Settings, period_name};
use toktra_store::directory::{self, Department, Organisation};
use toktra_store::roles::Reach;
use toktra_store::spend::ScopeKey;
use toktra_store::{Store, StoreError};

use super::sentence;
use crate::amount;

/// Reads an amount of a unit.
type Read = fn(&str) -> Result<u64, String>;

/// Value and words of each period.
pub(super) const PERIODS: [(&str, &str); 5] = [
    ("daily", "a day"),
    ("weekly", "a week, from Monday"),
    ("monthly", "a month"),
    ("quarterly", "a quarter"),
    ("annual", "a year"),
];

/// The form's fields; those that a form lacks are empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct Draft {
    /// Which budget is to be changed.
    pub(super) budget: String,
    pub(super) name: String,
    /// A department's identifier, or empty for the whole organisation.
    pub(super) department: String,
    /// A person's address, in place of a department.
    pub(super) user: String,
    /// `tokens` or `dollars`.
    pub(super) unit: String,
    pub(super) amount: String,
    pub(super) period: String,
    /// `on`, or absent.
    pub(super) hard: String,
    /// Percent, joined by commas.
    pub(super) thresholds: String,
    /// In the same unit as the amount; empty: none.
    pub(super) rollover: String,
    pub(super) message: String,
}

impl Draft {
    /// An empty form, with what most budgets have.
    pub(super) fn fresh() -> Self {
        Self {
            unit: "tokens".to_owned(),
            period: "monthly".to_owned(),
            thresholds: "75, 90, 100".to_owned(),
            ..Self::default()
        }
    }

    /// The form of a budget that there is.
    pub(super) fn of(id: &str, settings: &Settings) -> Self {
        let percents: Vec<_> = settings.thresholds.iter().map(u8::to_string).collect();
        Self {
            budget: id.to_owned(),
            unit: if settings.unit == Unit::Tokens { "tokens" } else { "dollars" }.to_owned(),
            amount: amount::typed(settings.amount, settings.unit),
            period: period_name(settings.period).to_owned(),
            hard: if settings.hard { "on" } else { "" }.to_owned(),
            thresholds: percents.join(", "),
            rollover: match settings.rollover_limit {
                0 => String::new(),
                limit => amount::typed(limit, settings.unit),
            },
            message: settings.message.clone(),
            ..Self::default()
        }
    }

    /// What it asks for, or what to say of it.
    pub(super) fn settings(&self) -> Result<Settings, String> {
        let (unit, read): (Unit, Read) = match self.unit.as_str() {
            "tokens" => (Unit::Tokens, amount::tokens),
            "dollars" => (Unit::Micros, amount::dollars),
            _ => return Err("Choose tokens or dollars.".to_owned()),
        };
        let read = |text: &str| {
            let digits = amount::ungrouped(text.trim().trim_start_matches('$'));
            read(&digits).map_err(sentence)
        };
        let settings = Settings {
            unit,
            amount: read(&self.amount)?,
            period: self.period().ok_or("Choose how long a period is.")?,
            hard: self.hard == "on",
            thresholds: self.thresholds()?,
            rollover_limit: if self.rollover.trim().is_empty() { 0 } else { read(&self.rollover)? },
            message: self.message.trim().to_owned(),
        };
        settings.check().map_err(sentence)?;
        Ok(settings)
    }

    /// Whose spend it is to count, or what to say of it.
    pub(super) async fn scope(
        &self,
        store: &Store,
        organisation: &Organisation,
        reach: &Reach,
    ) -> Result<Result<ScopeKey, String>, StoreError> {
        let user = self.user.trim();
        let (scope, id) = match (self.department.as_str(), user) {
            ("", "") if *reach == Reach::Organisation => (Scope::Organisation, organisation.id.clone()),
            ("", "") => return Ok(Err("Choose a department or give a person's address.".to_owned())),
            ("", email) => {
                let stranger = || format!("There is no person with the address `{email}`.");
                match directory::user(store, &organisation.id, email).await {
                    Ok(user) if reach.department(user.department_id.as_deref()) => (Scope::User, user.id),
                    Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(Err(stranger())),
                    Err(error) => return Err(error),
                }
            }
            (id, "") => {
                let departments = directory::departments(store, &organisation.id).await?;
                let reached =
                    |department: &Department| department.id == id && reach.department(Some(&department.id));
                match departments.into_iter().find(reached) {
                    Some(department) => (Scope::Department, department.id),
                    None => return Ok(Err("There is no such department any more.".to_owned())),
                }
            }
            (_, _) => return Ok(Err("Choose a department or give a person's address, not both.".to_owned())),
        };
        Ok(Ok(ScopeKey { organisation: organisation.id.as_str().into(), scope, id: id.into() }))
    }

    fn period(&self) -> Option<Period> {
        let all = [Period::Daily, Period::Weekly, Period::Monthly, Period::Quarterly, Period::Annual];
        all.into_iter().find(|period| period_name(*period) == self.period)
    }

    fn thresholds(&self) -> Result<Vec<u8>, String> {
        let read = |text: &str| {
            let number = text.trim_end_matches('%').trim_end().parse();
            number.map_err(|_| format!("`{text}` is not a number of percent, as in `75, 90, 100`."))
        };
        self.thresholds.split(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(unit: &str, amount: &str) -> Draft {
        Draft { unit: unit.to_owned(), amount: amount.to_owned(), ..Draft::fresh() }
    }

    #[test]
    fn amounts_are_read_as_people_group_them_and_a_budgets_form_reads_back() {
        for (unit, amount, number) in [
            ("tokens", "20,000,000", 20_000_000),
            ("tokens", " 20 000 000 ", 20_000_000),
            ("dollars", "$1,250.50", 1_250_500_000),
            ("dollars", "0.000001", 1),
        ] {
            let read = draft(unit, amount).settings().unwrap();
            assert_eq!(read.amount, number, "{amount}");
            assert_eq!(Draft::of("b", &read).settings().unwrap(), read);
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let complaint = |draft: Draft| draft.settings().unwrap_err();
        let fresh = || draft("tokens", "1000000");
        for (draft, words) in [
            (draft("tokens", "1.5"), "is not a number of tokens"),
            (draft("dollars", ""), "is not an amount in dollars"),
            (draft("tokens", "0"), "An amount is at least 1"),
            (draft("euros", "5"), "Choose tokens or dollars"),
            (Draft { period: "hourly".into(), ..fresh() }, "Choose how long"),
            (Draft { thresholds: "75, many".into(), ..fresh() }, "`many` is not a number of percent"),
            (Draft { thresholds: "90, 75".into(), ..fresh() }, "ascending"),
            (Draft { rollover: "-1".into(), ..fresh() }, "is not a number of tokens"),
            (Draft { message: "a\u{7}b".into(), ..fresh() }, "A message has"),
        ] {
            let complaint = complaint(draft);
            assert!(complaint.contains(words) && complaint.ends_with('.'), "{complaint}");
        }
    }

    #[test]
    fn no_thresholds_and_percent_signs_are_fine() {
        let read = |thresholds: &str| {
            let draft = Draft { thresholds: thresholds.to_owned(), ..draft("tokens", "1000000") };
            draft.settings().unwrap().thresholds
        };
        assert!(read(" ").is_empty());
        assert_eq!(read("50 %,75%, 100"), [50, 75, 100]);
    }
}
