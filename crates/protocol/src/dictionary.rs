//! What each field that leaves a device is for. One table, from which `docs/data.md` and
//! `toktra-agent records --explain` are made; what a field *means* is its doc comment, read from the
//! source of its type, and how long and by whom what is stored is kept and seen, the backend's to say
//! (`toktra_store::dictionary`).
//!
//! Invariants: the table holds exactly the fields that the types serialise, which
//! `tests/schema.rs` compares.

/// A type of which values leave a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// The type's name.
    pub name: &'static str,
    /// Its fields, in the type's order.
    pub fields: &'static [Field],
}

/// A field that leaves a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, in the type and on the wire.
    pub name: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// Where the backend keeps it, `table.column`; nowhere if empty.
    pub kept: &'static [&'static str],
}

/// A message, and the types that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub name: &'static str,
    /// How and when it leaves.
    pub leaves: &'static str,
    /// Its type first, then those inside it that no message before has.
    pub structures: &'static [Structure],
}

const fn field(name: &'static str, why: &'static str, kept: &'static [&'static str]) -> Field {
    Field { name, why, kept }
}

/// Everything that leaves a device.
pub const MESSAGES: &[Message] = &[
    Message {
        name: "Events",
        leaves: "`POST /v1/events` on the ingest host, a batch of 50 or every five seconds while there are some",
        structures: EVENTS,
    },
    Message {
        name: "Enrolment",
        leaves: "`POST /v1/enroll` on the API host, once; while an administrator has yet to approve, again every few minutes",
        structures: ENROLMENT,
    },
    Message {
        name: "Renewal",
        leaves: "`POST /v1/renew` on the ingest host, about every 60 days",
        structures: RENEWAL,
    },
    Message {
        name: "Directive poll",
        leaves: "the query of `GET /v1/directive` on the ingest host, about every 25 seconds",
        structures: POLL,
    },
    Message {
        name: "Request for an exemption",
        leaves: "`POST /v1/exemptions` on the ingest host, when the user asks",
        structures: EXEMPTION,
    },
    Message {
        name: "Personal records",
        leaves: "`POST /v1/vault/records` on the ingest host, in personal mode: when 16 wait, else at most every quarter of an hour",
        structures: PERSONAL_RECORDS,
    },
    Message {
        name: "Personal total",
        leaves: "`POST /v1/vault/total` on the ingest host, in personal mode, with the records",
        structures: PERSONAL_TOTAL,
    },
    Message {
        name: "Request for personal records",
        leaves: "`POST /v1/vault/list` on the ingest host, when the user asks for their own records",
        structures: PERSONAL_QUERY,
    },
    Message {
        name: "Leaving personal mode",
        leaves: "`POST /v1/vault/leave` on the ingest host, when the user opts out",
        structures: PERSONAL_LEAVE,
    },
];

const EVENTS: &[Structure] = &[
    Structure { name: "Batch", fields: &[field("events", "one answer for many events", &[])] },
    Structure {
        name: "Event",
        fields: &[
            field("sequence", "counting every event once, and noticing a loss", &["events.sequence"]),
            field(
                "minute",
                "the hour and day that the usage counts in",
                &["events.minute", "usage_hourly.hour"],
            ),
            field("body", "one of the three that follow", &["events.kind"]),
        ],
    },
    Structure {
        name: "Usage",
        fields: &[
            field("provider", "spend by provider", &["events.provider", "usage_hourly.provider"]),
            field("service", "which prices hold", &["events.service", "usage_hourly.service"]),
            field("host", "checking which name was taken for which service", &["events.host"]),
            field("name_source", "how sure the name is", &["events.name_source"]),
            field(
                "user_account",
                "whose usage it is where several share a machine",
                &["events.user_account", "usage_hourly.user_account"],
            ),
            field("application", "which program spends", &["events.application", "usage_hourly.application"]),
            field("exchanges", "the number of requests", &["events.exchanges", "usage_hourly.exchanges"]),
            field("bytes_out", "estimating the tokens sent", &["events.bytes_out", "usage_hourly.bytes_out"]),
            field(
                "bytes_in",
                "estimating the tokens received",
                &["events.bytes_in", "usage_hourly.bytes_in"],
            ),
            field(
                "bytes_handshake",
                "checking the estimates: these bytes are no tokens",
                &["events.bytes_handshake"],
            ),
            field("duration_s", "checking the estimates: how fast tokens came", &["events.duration_s"]),
            field(
                "streaming",
                "which calibration holds: a stream has more bytes for a token",
                &["events.streaming"],
            ),
            field("partial", "saying that a sum is a lower bound", &["events.partial"]),
            field(
                "tokens_in",
                "budgets and cost",
                &[
                    "events.tokens_in_low",
                    "events.tokens_in_point",
                    "events.tokens_in_high",
                    "usage_hourly.tokens_in_point",
                    "spend_daily.tokens_point",
                ],
            ),
            field(
                "tokens_out",
                "budgets and cost",
                &[
                    "events.tokens_out_low",
                    "events.tokens_out_point",
                    "events.tokens_out_high",
                    "usage_hourly.tokens_out_point",
                    "spend_daily.tokens_point",
                ],
            ),
            field("calibration", "telling later which estimates to doubt", &["events.calibration"]),
        ],
    },
    Structure {
        name: "Blocked",
        fields: &[
            field("provider", "what was blocked", &["events.provider", "usage_hourly.provider"]),
            field("service", "what was blocked", &["events.service", "usage_hourly.service"]),
            field("host", "checking which name was taken for which service", &["events.host"]),
            field("name_source", "how sure the name is", &["events.name_source"]),
            field(
                "user_account",
                "whom the block met where several share a machine",
                &["events.user_account", "usage_hourly.user_account"],
            ),
            field(
                "application",
                "which program was blocked",
                &["events.application", "usage_hourly.application"],
            ),
            field("reason", "telling a spent budget from a lock", &["events.reason"]),
            field("cut", "telling a refused start from an end in the middle", &["events.cut"]),
        ],
    },
    Structure {
        name: "Dropped",
        fields: &[
            field("events", "saying how much the sums lack", &["events.dropped"]),
            field("place", "finding the limit that was too small", &["events.reason"]),
        ],
    },
    Structure {
        name: "Estimate",
        fields: &[
            field("low", "hard caps act on it", &["events.tokens_in_low", "events.tokens_out_low"]),
            field(
                "point",
                "reports and warnings act on it",
                &["events.tokens_in_point", "events.tokens_out_point"],
            ),
            field(
                "high",
                "saying how far off the point may be",
                &["events.tokens_in_high", "events.tokens_out_high"],
            ),
        ],
    },
];

const ENROLMENT: &[Structure] = &[
    Structure {
        name: "EnrolRequest",
        fields: &[
            field("token", "proving that an administrator wants this device", &["enrolment_tokens.hash"]),
            field(
                "csr",
                "the device's public key, signed by the private one, which never leaves; no name is in it",
                &["certificates.public_key", "certificates.der", "enrolment_requests.public_key"],
            ),
            field("device", "what an administrator tells devices apart by", &[]),
        ],
    },
    Structure {
        name: "DeviceDescription",
        fields: &[
            field("hostname", "telling devices apart", &["devices.hostname", "enrolment_requests.hostname"]),
            field("platform", "telling devices apart", &["devices.platform", "enrolment_requests.platform"]),
            field(
                "agent_version",
                "knowing what is to be updated",
                &["devices.agent_version", "enrolment_requests.agent_version"],
            ),
            field(
                "hardware",
                "noticing that a machine was cloned with its identity",
                &["devices.hardware", "enrolment_requests.hardware"],
            ),
        ],
    },
];

const RENEWAL: &[Structure] = &[Structure {
    name: "RenewRequest",
    fields: &[
        field(
            "csr",
            "the next public key, as at enrolment",
            &["certificates.public_key", "certificates.der"],
        ),
        field("device", "what changed since: a new name, a new version", &[]),
    ],
}];

const POLL: &[Structure] = &[Structure {
    name: "DirectivePoll",
    fields: &[
        field("after", "being answered when there is news, and not before", &[]),
        field(
            "applied",
            "showing administrators whether a change has arrived",
            &["devices.directive_applied"],
        ),
    ],
}];

const EXEMPTION: &[Structure] = &[Structure {
    name: "ExemptionRequest",
    fields: &[
        field("budget", "what is asked for", &["exemptions.budget_id"]),
        field("reason", "helping an administrator decide; the user writes it", &["exemptions.reason"]),
    ],
}];

const MEMBER: &str = "whose it is, without a name: the backend keeps a hash";
const KEPT_MEMBER: &[&str] = &[
    "vault_members.member",
    "vault_slots.member",
    "sealed_records.member",
    "monthly_totals.member",
    "monthly_members.member",
];

const PERSONAL_RECORDS: &[Structure] = &[Structure {
    name: "PersonalBatch",
    fields: &[
        field("member", MEMBER, KEPT_MEMBER),
        field(
            "slot",
            "numbering the records of each device, which it does not name",
            &["vault_slots.slot", "sealed_records.slot"],
        ),
        field("first", "keeping every record once", &["sealed_records.number", "vault_slots.acknowledged"]),
        field(
            "records",
            "showing the user their own ledger, on any of their devices; sealed to them",
            &["sealed_records.sealed"],
        ),
    ],
}];

const PERSONAL_TOTAL: &[Structure] = &[Structure {
    name: "PersonalTotal",
    fields: &[
        field("member", MEMBER, KEPT_MEMBER),
        field("slot", "adding up the member's devices", &["monthly_totals.slot"]),
        field(
            "month",
            "the month that the use counts in",
            &["monthly_totals.month", "monthly_members.month"],
        ),
        field(
            "tokens",
            "the allowance, and sums over at least five people",
            &["monthly_totals.tokens", "month_sums.tokens"],
        ),
    ],
}];

const PERSONAL_QUERY: &[Structure] = &[Structure {
    name: "PersonalQuery",
    fields: &[
        field("member", "whose records", &[]),
        field("after", "going on where the last answer ended", &[]),
    ],
}];

const PERSONAL_LEAVE: &[Structure] =
    &[Structure { name: "PersonalLeave", fields: &[field("member", "whom to forget", &[])] }];

/// A field's doc comment and type, as the source has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The doc comment, in one line.
    pub words: String,
    /// The type.
    pub kind: &'static str,
}

const SOURCES: [&str; 6] = [
    include_str!("codec.rs"),
    include_str!("event.rs"),
    include_str!("enrol.rs"),
    include_str!("directive.rs"),
    include_str!("budget.rs"),
    include_str!("personal/wire.rs"),
];

/// What a field of a structure means, by its doc comment.
pub fn meaning(structure: &str, field: &str) -> Option<Meaning> {
    let mut words = Vec::new();
    for line in body(structure)?.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            words.push(comment.trim());
        } else if let Some((name, kind)) = line
            .strip_prefix("pub ")
            .and_then(|line| line.strip_suffix(','))
            .and_then(|line| line.split_once(": "))
        {
            if name == field {
                let words = words.join(" ").replace("[`", "`").replace("`]", "`");
                return Some(Meaning { words, kind });
            }
            words.clear();
        }
    }
    None
}

/// What is between a structure's braces.
fn body(structure: &str) -> Option<&'static str> {
    let head = format!("pub struct {structure} {{\n");
    let after = SOURCES.iter().find_map(|source| source.split_once(&head))?.1;
    Some(after.split_once("\n}")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_meaning_from_the_source_of_its_type() {
        for structure in MESSAGES.iter().flat_map(|message| message.structures) {
            for field in structure.fields {
                let meaning = meaning(structure.name, field.name);
                let meaning = meaning.unwrap_or_else(|| panic!("{}.{}", structure.name, field.name));
                assert!(!meaning.words.is_empty() && !meaning.words.contains("[`"), "{meaning:?}");
            }
        }
        let host = meaning("Usage", "host").unwrap();
        assert_eq!((&*host.words, host.kind), ("The server name, lower case.", "String"));
        assert_eq!(meaning("Usage", "prompt"), None);
        assert_eq!(meaning("Prompt", "host"), None);
    }
}
