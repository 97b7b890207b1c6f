//! What each column of the vault's database is for, how long its rows are kept, and who sees them: a
//! part of `docs/data.md`, as `toktra_store::dictionary` is of the ledger.
//!
//! Invariants: it has exactly the tables and columns of the schema, which a test compares.

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What a row is.
    pub row: &'static str,
    /// How long a row is kept.
    pub kept: &'static str,
    /// Who sees it beside whoever runs the backend.
    pub seen: &'static str,
    /// Name and purpose of each column, in the schema's order.
    pub columns: &'static [(&'static str, &'static str)],
}

const NOBODY: &str =
    "nobody else; whoever runs the backend sees whose hash it is of, but not whose hash that is";
const OWN: &str = "the member, on their own devices, with their own key; nobody else can open it";
const ORGANISATION: &str = "in which organisation";
const MEMBER: &str = "whose it is: SHA-256 of a secret that only the user's devices have";

/// Every table.
pub const TABLES: &[Table] = &[
    Table {
        name: "vault_members",
        row: "A member: a key in personal mode, without a name.",
        kept: "until the member leaves",
        seen: NOBODY,
        columns: &[
            ("organisation_id", ORGANISATION),
            ("member", MEMBER),
            ("person", "counting people for the least number of a sum; 0: a second key of somebody"),
            ("last_place", "the order of the member's records"),
            ("records", "the limit for a member"),
            ("bytes", "the limit for a member"),
        ],
    },
    Table {
        name: "vault_slots",
        row: "One of a member's devices, without a name.",
        kept: "until the member leaves",
        seen: NOBODY,
        columns: &[
            ("organisation_id", ORGANISATION),
            ("member", MEMBER),
            ("slot", "telling the member's devices apart: made from the user's key"),
            ("acknowledged", "keeping every record once"),
        ],
    },
    Table {
        name: "sealed_records",
        row: "A record of personal use, sealed on the device to the user's key.",
        kept: "until the member leaves, and no longer than 13 months after the month in which it came, unless `toktra-server retention set --personal` says otherwise",
        seen: OWN,
        columns: &[
            ("organisation_id", ORGANISATION),
            ("member", MEMBER),
            ("place", "the order of the member's records"),
            ("slot", "which of the member's devices sent it"),
            ("number", "keeping every record once"),
            ("month", "ending it in time: the month in which it came"),
            ("sealed", "showing the user their own ledger"),
        ],
    },
    Table {
        name: "monthly_totals",
        row: "A device's tokens in a month.",
        kept: "until the month after the next one begins and the sums were made; of a member who left, under a random name",
        seen: "the member, on their own devices: the sum of the others",
        columns: &[
            ("organisation_id", ORGANISATION),
            ("month", "which month"),
            ("member", MEMBER),
            ("slot", "adding up the member's devices"),
            ("tokens", "the allowance, and the sums"),
        ],
    },
    Table {
        name: "monthly_members",
        row: "What a member counts for in a month's sums.",
        kept: "as `monthly_totals`",
        seen: NOBODY,
        columns: &[
            ("organisation_id", ORGANISATION),
            ("month", "which month"),
            ("member", MEMBER),
            ("tier_id", "sums by tier; empty where fewer than five people are enrolled in it"),
            ("person", "as in `vault_members`"),
        ],
    },
    Table {
        name: "closed_months",
        row: "A month whose sums were made.",
        kept: "as long as the organisation is there",
        seen: NOBODY,
        columns: &[("organisation_id", ORGANISATION), ("month", "which month")],
    },
    Table {
        name: "month_sums",
        row: "A sum over at least five people, made once, a week after the month.",
        kept: "as long as the organisation is there",
        seen: "the organisation's administrators, in the console, from the copy in `perk_sums`",
        columns: &[
            ("organisation_id", ORGANISATION),
            ("month", "which month"),
            ("tier_id", "which tier; empty: none by itself"),
            ("others", "whether all tiers are in it that have no sum of their own"),
            ("tokens", "the sum"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::VaultStore;

    #[tokio::test]
    async fn it_has_exactly_the_tables_and_columns_of_the_schema() {
        let directory = tempfile::tempdir().unwrap();
        let vault = VaultStore::open(&directory.path().join("vault.db")).await.unwrap();
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations'",
        )
        .fetch_all(vault.reader())
        .await
        .unwrap();
        let mut schema: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (table, column) in &rows {
            schema.entry(table).or_default().insert(column);
        }
        let dictionary: BTreeMap<&str, BTreeSet<&str>> = TABLES
            .iter()
            .map(|table| (table.name, table.columns.iter().map(|(column, _)| *column).collect()))
            .collect();
        assert_eq!(dictionary, schema, "say in vault-store/src/dictionary.rs what each column is for");
        assert_eq!(dictionary.len(), TABLES.len());
    }
}
