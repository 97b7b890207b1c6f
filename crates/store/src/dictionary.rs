//! What each column of the database is for, how long its rows are kept, and who sees them: the
//! backend's half of `docs/data.md`; the device's half is `toktra_protocol::dictionary`.
//!
//! Invariants: it has exactly the tables and columns of the schema, which a test compares; how long is
//! a constant of the code that enforces it, never a number written here.

use crate::retention::{BUDGET_DAYS, ENROLMENT_DAYS, EVENTS_DAYS, SPEND_DAYS, USAGE_DAYS};

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What a row is.
    pub row: &'static str,
    /// How long a row is kept.
    pub kept: Kept,
    /// Who sees it beside whoever runs the backend, who can read everything.
    pub seen: &'static str,
    /// Name and purpose of each column, in the schema's order.
    pub columns: &'static [(&'static str, &'static str)],
}

/// How long rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// So many days after this.
    Days(u32, &'static str),
    /// So many days after this unless the organisation says otherwise, with this option of `retention set`.
    Set(u32, &'static str, &'static str),
    /// For as long as this holds.
    Good(&'static str),
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(0, after) => write!(f, "until {after}"),
            Self::Days(days, after) => write!(f, "{days} days after {after}"),
            Self::Set(days, after, option) => {
                write!(
                    f,
                    "{days} days after {after}, unless `toktra-server retention set --{option}` says otherwise"
                )
            }
            Self::Good(reason) => write!(f, "as long as {reason}"),
        }
    }
}

const NOBODY: &str = "nobody else";
const ADMINISTRATORS: &str = "the organisation's administrators, in the console; a device is told its own";
const EVENTS_SEEN: &str = "the device's users, on it: `toktra-agent records`; not in the console";
const SUMS_SEEN: &str = "the organisation's administrators, in the console: sums by provider, service, department, person, device and application";
const BUDGETS_SEEN: &str = "whoever uses a device that it applies to, on it: `toktra-agent budget`";
const DEVICES_SEEN: &str = "every device of the organisation";

const PERKS_SEEN: &str = "the organisation's administrators, in the console; a device is told its user's own";
const ADMINISTRATORS_ALONE: &str = "the organisation's administrators, in the console";

/// Every table.
pub const TABLES: &[Table] = &[
    Table {
        name: "organisations",
        row: "An organisation.",
        kept: Kept::Good("there are organisations"),
        seen: ADMINISTRATORS,
        columns: &[
            ("id", "its identifier"),
            ("name", "for display, also on its devices"),
            ("created_at", "when it was added"),
            ("time_zone", "which day a moment belongs to"),
        ],
    },
    Table {
        name: "departments",
        row: "A department.",
        kept: Kept::Good("the organisation is there"),
        seen: ADMINISTRATORS,
        columns: &[
            ("id", "its identifier"),
            ("organisation_id", "whose it is"),
            ("name", "for display, also on its devices"),
            ("created_at", "when it was added"),
            ("block_reason", "a block of its devices: why"),
            ("block_message", "what their users are told"),
            ("block_providers", "which providers"),
            ("parent_id", "the department that it is part of"),
        ],
    },
    Table {
        name: "users",
        row: "A person whose devices and budget the organisation keeps.",
        kept: Kept::Good("the organisation is there"),
        seen: ADMINISTRATORS,
        columns: &[
            ("id", "their identifier"),
            ("organisation_id", "whose they are"),
            ("department_id", "their department"),
            ("email", "telling people apart; the organisation writes it"),
            ("created_at", "when they were added"),
            ("lock_message", "a lock of their devices: what they are told"),
        ],
    },
    Table {
        name: "devices",
        row: "A device.",
        kept: Kept::Good("the organisation is there; a revoked one stays, so that it stays revoked"),
        seen: ADMINISTRATORS,
        columns: &[
            ("id", "its identifier, given at enrolment"),
            ("organisation_id", "whose it is"),
            ("department_id", "whose spend it adds to"),
            ("user_id", "whose spend it adds to"),
            ("hostname", "telling devices apart"),
            ("platform", "telling devices apart"),
            ("agent_version", "knowing what is to be updated"),
            ("state", "whether it may still report"),
            ("enrolled_at", "when it enrolled"),
            ("last_seen_at", "noticing that it is silent"),
            ("acknowledged_sequence", "counting each event once"),
            ("directive_version", "noticing that there is news for it"),
            ("directive_applied", "showing whether a change has arrived"),
            ("lock_message", "a lock: what its user is told"),
            ("block_reason", "a block: why"),
            ("block_message", "what its user is told"),
            ("block_providers", "which providers"),
            ("hardware", "a hash that a clone of the machine has too"),
            ("flag", "that it may have been cloned"),
            ("certificate_serial", "which certificate it used last"),
            ("revoked_at", "since when it is revoked"),
        ],
    },
    Table {
        name: "certificates",
        row: "A certificate of a device.",
        kept: Kept::Good("the device is there: a key is certified once, and what was revoked must stay so"),
        seen: NOBODY,
        columns: &[
            ("serial", "naming it, also in revocation lists"),
            ("device_id", "whose it is"),
            ("issuer", "which authority to ask"),
            ("not_before", "when its time begins"),
            ("not_after", "when its time ends"),
            ("der", "giving it again when an answer was lost"),
            ("public_key", "certifying a key once; a hash"),
            ("purpose", "how it came about"),
            ("chain_pem", "giving it again when an answer was lost"),
            ("root", "which root the device was told of"),
            ("issued_at", "limiting how often a device may ask"),
            ("generation", "which of a device's is the newest"),
            ("first_used_at", "ending the one before"),
            ("superseded_at", "noticing that an old one comes back"),
            ("revoked_at", "revocation lists"),
        ],
    },
    Table {
        name: "enrolment_tokens",
        row: "A token by which devices enrol.",
        kept: Kept::Days(ENROLMENT_DAYS, "the expiry"),
        seen: NOBODY,
        columns: &[
            ("hash", "knowing the token when it comes; the token itself is nowhere"),
            ("organisation_id", "where its devices belong"),
            ("department_id", "where its devices belong"),
            ("user_id", "whose its devices are"),
            ("created_at", "when it was made"),
            ("expires_at", "when it ends"),
            ("used_at", "that it was used"),
            ("used_by", "by which device"),
            ("label", "telling tokens apart"),
            ("reusable", "whether an administrator must approve"),
            ("device_limit", "for how many devices"),
            ("withdrawn_at", "that it was withdrawn"),
        ],
    },
    Table {
        name: "enrolment_requests",
        row: "A device that asks to be enrolled by a reusable token.",
        kept: Kept::Days(ENROLMENT_DAYS, "the decision (without one: after it came) and the token's expiry"),
        seen: NOBODY,
        columns: &[
            ("id", "its identifier"),
            ("organisation_id", "who decides"),
            ("token_hash", "by which token"),
            ("public_key", "knowing the device when it asks again"),
            ("hostname", "helping an administrator decide"),
            ("platform", "helping an administrator decide"),
            ("agent_version", "helping an administrator decide"),
            ("hardware", "noticing a clone"),
            ("address", "helping an administrator decide: from which IP address it asked"),
            ("state", "where it stands"),
            ("requested_at", "when it asked"),
            ("decided_at", "when it was decided"),
            ("decided_by", "by whom"),
            ("device_id", "which device it became"),
        ],
    },
    Table {
        name: "events",
        row: "A raw event, as the device sent it.",
        kept: Kept::Set(EVENTS_DAYS, "it came", "events"),
        seen: EVENTS_SEEN,
        columns: &[
            ("device_id", "which device"),
            ("sequence", "counting each event once"),
            ("received_at", "when it came, which its end is counted from"),
            ("minute", "the hour and day that it counts in"),
            ("kind", "usage, blocked or dropped"),
            ("provider", "spend by provider"),
            ("service", "which prices hold"),
            ("host", "checking which name was taken for which service"),
            ("name_source", "how sure the name is"),
            ("user_account", "whose usage it is where several share a machine"),
            ("application", "which program spends"),
            ("exchanges", "the number of requests"),
            ("bytes_out", "checking the estimates"),
            ("bytes_in", "checking the estimates"),
            ("bytes_handshake", "checking the estimates"),
            ("duration_s", "checking the estimates"),
            ("streaming", "which calibration holds"),
            ("partial", "saying that a sum is a lower bound"),
            ("tokens_in_low", "tokens sent, lower bound"),
            ("tokens_in_point", "tokens sent"),
            ("tokens_in_high", "tokens sent, upper bound"),
            ("tokens_out_low", "tokens received, lower bound"),
            ("tokens_out_point", "tokens received"),
            ("tokens_out_high", "tokens received, upper bound"),
            ("calibration", "which estimates to doubt"),
            ("reason", "why it was blocked, or where events were dropped"),
            ("cut", "whether an open connection was cut"),
            ("dropped", "how many events are missing"),
        ],
    },
    Table {
        name: "usage_hourly",
        row: "Sums of an hour by account, application and service; of older hours one sum by device and department.",
        kept: Kept::Set(USAGE_DAYS, "the hour", "usage"),
        seen: SUMS_SEEN,
        columns: &[
            ("organisation_id", "whose spend it is"),
            ("department_id", "whose spend it is"),
            ("device_id", "spend by device"),
            ("user_account", "spend by local account"),
            ("application", "spend by program"),
            ("provider", "spend by provider"),
            ("service", "spend by service"),
            ("hour", "spend over time"),
            ("events", "balancing sums against events"),
            ("blocked", "attempts that were blocked"),
            ("exchanges", "the number of requests"),
            ("bytes_out", "balancing sums against events"),
            ("bytes_in", "balancing sums against events"),
            ("tokens_in_low", "tokens sent, lower bound"),
            ("tokens_in_point", "tokens sent"),
            ("tokens_in_high", "tokens sent, upper bound"),
            ("tokens_out_low", "tokens received, lower bound"),
            ("tokens_out_point", "tokens received"),
            ("tokens_out_high", "tokens received, upper bound"),
            ("cost_low_micros", "cost, lower bound"),
            ("cost_point_micros", "cost"),
            ("cost_high_micros", "cost, upper bound"),
            ("tokens_unpriced", "tokens that no price is known for"),
        ],
    },
    Table {
        name: "usage_daily",
        row: "Sums of a day by department, user, device, service and application.",
        kept: Kept::Set(USAGE_DAYS, "the day", "usage"),
        seen: SUMS_SEEN,
        columns: &[
            ("organisation_id", "whose spend it is"),
            ("day", "spend over time"),
            ("department_id", "spend by department"),
            ("user_id", "spend by person"),
            ("device_id", "spend by device"),
            ("provider", "spend by provider"),
            ("service", "spend by service"),
            ("application", "spend by program"),
            ("blocked", "attempts that were blocked"),
            ("exchanges", "the number of requests"),
            ("tokens_in_low", "tokens sent, lower bound"),
            ("tokens_in_point", "tokens sent"),
            ("tokens_in_high", "tokens sent, upper bound"),
            ("tokens_out_low", "tokens received, lower bound"),
            ("tokens_out_point", "tokens received"),
            ("tokens_out_high", "tokens received, upper bound"),
            ("cost_low_micros", "cost, lower bound"),
            ("cost_point_micros", "cost"),
            ("cost_high_micros", "cost, upper bound"),
            ("tokens_unpriced", "tokens that no price is known for"),
        ],
    },
    Table {
        name: "usage_daily_by_service",
        row: "The same sums of a day by department, service and application.",
        kept: Kept::Set(USAGE_DAYS, "the day", "usage"),
        seen: SUMS_SEEN,
        columns: &[
            ("organisation_id", "whose spend it is"),
            ("day", "spend over time"),
            ("department_id", "spend by department"),
            ("provider", "spend by provider"),
            ("service", "spend by service"),
            ("application", "spend by program"),
            ("blocked", "attempts that were blocked"),
            ("exchanges", "the number of requests"),
            ("tokens_in_low", "tokens sent, lower bound"),
            ("tokens_in_point", "tokens sent"),
            ("tokens_in_high", "tokens sent, upper bound"),
            ("tokens_out_low", "tokens received, lower bound"),
            ("tokens_out_point", "tokens received"),
            ("tokens_out_high", "tokens received, upper bound"),
            ("cost_low_micros", "cost, lower bound"),
            ("cost_point_micros", "cost"),
            ("cost_high_micros", "cost, upper bound"),
            ("tokens_unpriced", "tokens that no price is known for"),
        ],
    },
    Table {
        name: "usage_daily_by_device",
        row: "The same sums of a day by department, user and device.",
        kept: Kept::Set(USAGE_DAYS, "the day", "usage"),
        seen: SUMS_SEEN,
        columns: &[
            ("organisation_id", "whose spend it is"),
            ("day", "spend over time"),
            ("department_id", "spend by department"),
            ("user_id", "spend by person"),
            ("device_id", "spend by device"),
            ("blocked", "attempts that were blocked"),
            ("exchanges", "the number of requests"),
            ("tokens_in_low", "tokens sent, lower bound"),
            ("tokens_in_point", "tokens sent"),
            ("tokens_in_high", "tokens sent, upper bound"),
            ("tokens_out_low", "tokens received, lower bound"),
            ("tokens_out_point", "tokens received"),
            ("tokens_out_high", "tokens received, upper bound"),
            ("cost_low_micros", "cost, lower bound"),
            ("cost_point_micros", "cost"),
            ("cost_high_micros", "cost, upper bound"),
            ("tokens_unpriced", "tokens that no price is known for"),
        ],
    },
    Table {
        name: "spend_daily",
        row: "Sums of a day for the organisation, for a department with those below it, or for a user; of older days one sum.",
        kept: Kept::Days(SPEND_DAYS, "the day"),
        seen: BUDGETS_SEEN,
        columns: &[
            ("organisation_id", "whose spend it is"),
            ("scope", "organisation, department or user"),
            ("scope_id", "which"),
            ("day", "which periods of budgets it counts in"),
            ("tokens_low", "hard caps act on it"),
            ("tokens_point", "warnings act on it"),
            ("tokens_high", "how far off the point may be"),
            ("micros_low", "hard caps act on it"),
            ("micros_point", "warnings act on it"),
            ("micros_high", "how far off the point may be"),
            ("tokens_unpriced", "tokens that no price is known for"),
        ],
    },
    Table {
        name: "pruned_events",
        row: "What was taken of a device's events when their time was over.",
        kept: Kept::Good("the device is there"),
        seen: NOBODY,
        columns: &[
            ("device_id", "which device"),
            ("events", "how many"),
            ("last_sequence", "the highest number among them"),
            ("bookable", "balancing sums against events"),
            ("bytes", "balancing sums against events"),
            ("exchanges", "balancing sums against events"),
        ],
    },
    Table {
        name: "budgets",
        row: "A budget.",
        kept: Kept::Good("it is not removed"),
        seen: BUDGETS_SEEN,
        columns: &[
            ("id", "its identifier"),
            ("organisation_id", "whose it is"),
            ("name", "for display, also on devices"),
            ("scope", "whose spend counts"),
            ("scope_id", "which of them"),
            ("unit", "what it counts"),
            ("amount", "how much of it"),
            ("period", "in which time"),
            ("hard", "whether it blocks"),
            ("thresholds", "when it warns"),
            ("rollover_limit", "what a period may leave to the next"),
            ("message", "what users are told when it blocks"),
            ("created_at", "when it was made"),
            ("updated_at", "when it was changed"),
        ],
    },
    Table {
        name: "budget_alerts",
        row: "That a budget's threshold or cap was passed.",
        kept: Kept::Days(BUDGET_DAYS, "it was noted"),
        seen: NOBODY,
        columns: &[
            ("budget_id", "which budget"),
            ("period_start", "in which period"),
            ("threshold", "which threshold"),
            ("at", "when"),
            ("spent", "how much was spent"),
            ("budget_limit", "of how much"),
        ],
    },
    Table {
        name: "exemptions",
        row: "A user's request for more of a budget, and what became of it.",
        kept: Kept::Days(BUDGET_DAYS, "it is over; one that nobody decides ends 90 days after it came"),
        seen: NOBODY,
        columns: &[
            ("id", "its identifier"),
            ("organisation_id", "who decides"),
            ("budget_id", "from which budget"),
            ("device_id", "which device asked"),
            ("user_id", "whose devices it covers"),
            ("reason", "helping an administrator decide; the user writes it"),
            ("state", "where it stands"),
            ("requested_at", "when it was asked for"),
            ("decided_at", "when it was decided"),
            ("decided_by", "by whom"),
            ("until", "when it ends"),
        ],
    },
    Table {
        name: "flags",
        row: "A feature flag of an organisation.",
        kept: Kept::Good("the organisation is there"),
        seen: DEVICES_SEEN,
        columns: &[("organisation_id", "whose it is"), ("name", "which flag"), ("value", "on or off")],
    },
    Table {
        name: "price_mix",
        row: "Which models an organisation says that it uses.",
        kept: Kept::Good("the organisation is there"),
        seen: NOBODY,
        columns: &[
            ("organisation_id", "whose it is"),
            ("service", "of which service"),
            ("model", "which model"),
            ("share_permille", "for which part of its use"),
        ],
    },
    Table {
        name: "retention",
        row: "For how long an organisation has its data kept.",
        kept: Kept::Good("the organisation is there"),
        seen: NOBODY,
        columns: &[
            ("organisation_id", "whose it is"),
            ("events_days", "raw events"),
            ("usage_days", "hourly sums"),
            ("personal_months", "sealed personal records, in the vault"),
        ],
    },
    Table {
        name: "perk_tiers",
        row: "A tier of perks.",
        kept: Kept::Good("the organisation is there"),
        seen: PERKS_SEEN,
        columns: &[
            ("id", "its identifier"),
            ("organisation_id", "whose it is"),
            ("name", "for display, also to who is in it"),
            ("removed", "whether it may still be used"),
        ],
    },
    Table {
        name: "perk_terms",
        row: "What a tier allows, from a month on.",
        kept: Kept::Good("the organisation is there"),
        seen: PERKS_SEEN,
        columns: &[
            ("tier_id", "which tier"),
            ("month", "from when on"),
            ("monthly_tokens", "the allowance"),
            ("rollover_tokens", "what a month may leave to the next"),
        ],
    },
    Table {
        name: "perk_enrolments",
        row: "That an administrator enrolled a user, from a month on; not whether they opted in.",
        kept: Kept::Good("the organisation is there"),
        seen: PERKS_SEEN,
        columns: &[
            ("user_id", "whom"),
            ("month", "from when on"),
            ("tier_id", "in which tier; none: no more"),
        ],
    },
    Table {
        name: "perk_bonuses",
        row: "Tokens that a user or a tier has besides in a month.",
        kept: Kept::Good("the organisation is there"),
        seen: PERKS_SEEN,
        columns: &[
            ("organisation_id", "whose it is"),
            ("month", "in which month"),
            ("scope", "of a user or of a tier"),
            ("scope_id", "of which"),
            ("tokens", "how many"),
        ],
    },
    Table {
        name: "perk_sums",
        row: "A copy of a sum of the vault's, over at least five people.",
        kept: Kept::Good("the organisation is there"),
        seen: ADMINISTRATORS_ALONE,
        columns: &[
            ("organisation_id", "whose it is"),
            ("month", "which month"),
            ("tier_id", "which tier; empty: none by itself"),
            ("others", "whether all tiers are in it that have no sum of their own"),
            ("tokens", "the sum"),
        ],
    },
    Table {
        name: "administrators",
        row: "Who may sign in to the console.",
        kept: Kept::Good("the organisation is there"),
        seen: NOBODY,
        columns: &[
            ("id", "their identifier"),
            ("organisation_id", "what they see"),
            ("name", "signing in, and the audit trail"),
            ("password_hash", "checking the password, which is nowhere"),
            ("created_at", "when they were added"),
            ("failed_attempts", "ending attempts to guess"),
            ("locked_until", "ending attempts to guess"),
            ("role", "what they may do"),
            ("disabled_at", "signing nobody in as them any more"),
        ],
    },
    Table {
        name: "administrator_departments",
        row: "A department whose budgets and people are a budget owner's to keep.",
        kept: Kept::Good("the account has that role"),
        seen: ADMINISTRATORS_ALONE,
        columns: &[
            ("administrator_id", "whose it is"),
            ("department_id", "which; those below it are theirs, too"),
        ],
    },
    Table {
        name: "sessions",
        row: "An administrator who is signed in.",
        kept: Kept::Days(0, "it expires"),
        seen: NOBODY,
        columns: &[
            ("hash", "knowing the cookie when it comes; the cookie itself is nowhere"),
            ("administrator_id", "whose it is"),
            ("created_at", "ending it after twelve hours"),
            ("expires_at", "ending it after an hour unused"),
        ],
    },
    Table {
        name: "audit",
        row: "What was done to whom, when, by whom.",
        kept: Kept::Good("the database is there: each row is chained to the one before it"),
        seen: NOBODY,
        columns: &[
            ("id", "its place in the chain"),
            ("at", "when"),
            ("organisation_id", "in which organisation"),
            ("actor", "who: an administrator, a device, an address"),
            ("action", "what"),
            ("subject", "to whom"),
            ("detail", "in words"),
            ("hash", "proving that nothing was changed"),
        ],
    },
    Table {
        name: "changes",
        row: "One counter, so that running servers notice changes.",
        kept: Kept::Good("the database is there"),
        seen: NOBODY,
        columns: &[("id", "always 1"), ("counter", "how many changes there were")],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::house::house;

    #[tokio::test]
    async fn it_has_exactly_the_tables_and_columns_of_the_schema() {
        let house = house().await;
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations'",
        )
        .fetch_all(house.store.reader())
        .await
        .unwrap();
        let mut schema: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (table, column) in &rows {
            schema.entry(table).or_default().insert(column);
        }
        let mut dictionary: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for table in TABLES {
            let columns = table.columns.iter().map(|(column, _)| *column).collect();
            assert!(dictionary.insert(table.name, columns).is_none(), "{} is there twice", table.name);
        }
        assert_eq!(dictionary, schema, "say in store/src/dictionary.rs what each column is for");
    }
}
