//! Holds the promise of X10: nothing that leaves a device, or waits on it to leave, has room for a
//! sequence of sizes or times, or for a time of usage finer than a minute; and every field of it is
//! in the dictionary, which has no other.
//!
//! How it is complete: each type is written out field by field, so that a new field does not
//! compile until it is here; every `Option` has a value, so that nothing hides; and whatever is an
//! object must be one of the dictionary's structures, so that no map can stand in for one.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use toktra_protocol::budget::ExemptionRequest;
use toktra_protocol::dictionary::{MESSAGES, Structure};
use toktra_protocol::directive::DirectivePoll;
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, RenewRequest};
use toktra_protocol::event::{Blocked, Dropped, TEXT_LIMIT};
use toktra_protocol::local::{FromExtension, Health, Record};
use toktra_protocol::personal::local::{PersonalEstimate, PersonalMode, PersonalRecord, PersonalUsage};
use toktra_protocol::personal::wire::SEALED_HEAD;
use toktra_protocol::personal::{
    Member, Month, PersonalBatch, PersonalLeave, PersonalQuery, PersonalTotal, Sealed, Slot,
};
use toktra_protocol::{
    Batch, BlockReason, DeviceId, Estimate, Event, EventBody, Minute, NameSource, UnixSeconds, Usage,
};

/// One of each kind; another kind does not compile until it is here.
fn bodies() -> Vec<EventBody> {
    let estimate = Estimate { low: 1, point: 2, high: 3 };
    let usage = Usage {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        name_source: NameSource::Sni,
        user_account: Some("ada".into()),
        application: Some("python3".into()),
        exchanges: 1,
        bytes_out: 2,
        bytes_in: 3,
        bytes_handshake: 4,
        duration_s: 5,
        streaming: true,
        partial: false,
        tokens_in: estimate,
        tokens_out: estimate,
        calibration: "openai-api-stream-2026-03".into(),
    };
    let blocked = Blocked {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        name_source: NameSource::Sni,
        user_account: Some("ada".into()),
        application: Some("python3".into()),
        reason: BlockReason::Budget,
        cut: false,
    };
    let dropped = Dropped { events: 1, place: "spool".into() };
    let bodies = vec![EventBody::Usage(usage), EventBody::Blocked(blocked), EventBody::Dropped(dropped)];
    for body in &bodies {
        match body {
            EventBody::Usage(_) | EventBody::Blocked(_) | EventBody::Dropped(_) => {}
        }
    }
    bodies
}

fn events() -> Vec<Event> {
    let event = |(body, sequence)| Event { sequence, minute: Minute(29_000_000), body };
    bodies().into_iter().zip(1..).map(event).collect()
}

fn description() -> DeviceDescription {
    DeviceDescription {
        hostname: "ada-laptop".into(),
        platform: "linux".into(),
        agent_version: "0.1.0".into(),
        hardware: Some("00".into()),
    }
}

fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// A value of every message that leaves a device, by its name in the dictionary.
fn messages() -> Vec<(&'static str, &'static str, Value)> {
    let enrol = EnrolRequest { token: "secret".into(), csr: "MIIB".into(), device: description() };
    let renew = RenewRequest { csr: "MIIB".into(), device: description() };
    let exemption = ExemptionRequest { budget: "b-7".into(), reason: "A deadline.".into() };
    vec![
        ("Events", "Batch", json(Batch { events: events() })),
        ("Enrolment", "EnrolRequest", json(enrol)),
        ("Renewal", "RenewRequest", json(renew)),
        ("Directive poll", "DirectivePoll", json(DirectivePoll { after: 1, applied: Some(1) })),
        ("Request for an exemption", "ExemptionRequest", json(exemption)),
        ("Personal records", "PersonalBatch", json(personal_batch())),
        ("Personal total", "PersonalTotal", json(personal_total())),
        ("Request for personal records", "PersonalQuery", json(PersonalQuery { member: member(), after: 1 })),
        ("Leaving personal mode", "PersonalLeave", json(PersonalLeave { member: member() })),
    ]
}

fn member() -> Member {
    Member::new([1; 32])
}

fn personal_batch() -> PersonalBatch {
    let records = vec![Sealed::new(SEALED_HEAD.to_vec()).unwrap()];
    PersonalBatch { member: member(), slot: Slot::new([2; 16]), first: 1, records }
}

fn personal_total() -> PersonalTotal {
    PersonalTotal {
        member: member(),
        slot: Slot::new([2; 16]),
        month: Month::new(2026, 11).unwrap(),
        tokens: 1,
    }
}

/// Everything the extension can say; another kind does not compile until it is here.
fn from_extension() -> Vec<FromExtension> {
    let hello =
        FromExtension::Hello { version: 1, run: DeviceId::from_u128(7), extension_version: "0.1.0".into() };
    let record = |body| FromExtension::Record(Record { number: 1, minute: Minute(29_000_000), body });
    let health = Health {
        degraded: vec!["QUIC is not seen".into()],
        flows_seen: 1,
        flows_metered: 1,
        flows_blocked: 1,
        hellos_lost: 1,
        records_dropped: 1,
        flows_unread: 1,
        flows_unattributed: 1,
        records_lost: 1,
    };
    let mut said = vec![hello, FromExtension::Health(health), FromExtension::Personal(personal())];
    said.push(FromExtension::PersonalInForce { mode: Some(personal_mode()) });
    said.extend(bodies().into_iter().map(record));
    for one in &said {
        match one {
            FromExtension::Hello { .. }
            | FromExtension::Record(_)
            | FromExtension::Personal(_)
            | FromExtension::PersonalInForce { .. }
            | FromExtension::Health(_) => {}
        }
    }
    said
}

fn personal_mode() -> PersonalMode {
    PersonalMode { account: "ada".into(), until: Some(UnixSeconds(1_795_392_000)), stopped: true }
}

fn personal() -> PersonalRecord {
    let estimate = PersonalEstimate { low: 1, point: 2, high: 3 };
    let usage = PersonalUsage {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        application: Some("python3".into()),
        exchanges: 1,
        bytes_out: 2,
        bytes_in: 3,
        bytes_handshake: 4,
        duration_s: 5,
        streaming: true,
        partial: false,
        tokens_in: estimate,
        tokens_out: estimate,
        calibration: "openai-api-stream-2026-03".into(),
    };
    PersonalRecord { number: 1, minute: Minute(29_000_000), lost: 1, usage }
}

/// A value somewhere in a message.
struct Leaf<'a> {
    path: String,
    value: &'a Value,
}

/// Every value below `value`. An array must be at one of the paths `sequences`, and hold no numbers.
fn leaves<'a>(path: &str, value: &'a Value, sequences: &[&str], found: &mut Vec<Leaf<'a>>) {
    match value {
        Value::Null => panic!("{path} hides what it may hold; give it a value here"),
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(&format!("{path}.{name}"), value, sequences, found);
            }
        }
        Value::Array(items) => {
            assert!(sequences.contains(&path), "{path} is a sequence");
            assert!(!items.is_empty(), "{path} hides what it may hold; give it a value here");
            for item in items {
                assert!(!item.is_number() && !item.is_array(), "{path} is a sequence of numbers");
                leaves(path, item, sequences, found);
            }
        }
        _ => found.push(Leaf { path: path.to_owned(), value }),
    }
}

/// Whether a path's last name speaks of a time.
fn is_time(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap();
    ["time", "date", "minute", "second", "hour", "day", "month", "since", "until", "when", "stamp"]
        .iter()
        .any(|word| name.contains(word))
        || ["_at", "_ms", "_us", "_ns", "_s"].iter().any(|end| name.ends_with(end))
}

#[test]
fn no_message_holds_a_sequence_of_numbers_and_its_only_time_is_a_minute() {
    for (name, _, message) in messages() {
        let mut found = Vec::new();
        leaves(name, &message, &["Events.events", "Personal records.records"], &mut found);
        let times: BTreeSet<_> = found.iter().map(|leaf| &*leaf.path).filter(|path| is_time(path)).collect();
        // How long is a total, in whole seconds, and no point in time.
        let expected: &[&str] = match name {
            "Events" => &["Events.events.body.usage.duration_s", "Events.events.minute"],
            "Personal total" => &["Personal total.month"],
            _ => &[],
        };
        assert_eq!(times.into_iter().collect::<Vec<_>>(), expected, "{name}");
        for leaf in &found {
            assert!(!leaf.value.is_f64(), "{} can be of any precision", leaf.path);
        }
    }
}

#[test]
fn nothing_that_the_extension_says_holds_a_sequence_of_numbers_or_a_finer_time() {
    for said in from_extension() {
        let said = json(said);
        let mut found = Vec::new();
        leaves("", &said, &[".health.degraded"], &mut found);
        for leaf in found.iter().filter(|leaf| is_time(&leaf.path)) {
            // The end of personal mode is the user's choice and no time of use.
            let may = [".minute", ".usage.duration_s", ".personal_in_force.mode.until"];
            assert!(may.iter().any(|end| leaf.path.ends_with(end)), "{}", leaf.path);
        }
    }
}

#[test]
fn a_personal_record_names_no_account_and_is_read_as_no_other() {
    let record = json(personal());
    let mut found = Vec::new();
    leaves("", &record, &[], &mut found);
    assert!(!found.iter().any(|leaf| leaf.path.contains("account") || leaf.path.contains("user")));
    assert!(serde_json::from_value::<Usage>(record["usage"].clone()).is_err());
    assert!(serde_json::from_value::<Record>(record).is_err());
    for body in bodies() {
        let record = json(Record { number: 1, minute: Minute(29_000_000), body });
        assert!(serde_json::from_value::<PersonalRecord>(record.clone()).is_err());
        assert!(serde_json::from_value::<PersonalUsage>(record["body"]["usage"].clone()).is_err());
    }
}

#[test]
fn a_time_of_usage_is_a_whole_number_of_minutes_on_the_wire() {
    let mut event = json(&events()[0]);
    assert_eq!(event["minute"], 29_000_000);
    for finer in [json(29_000_000.5), json("29000000:30"), json([29_000_000, 30]), json(-1)] {
        event["minute"] = finer;
        assert!(serde_json::from_value::<Event>(event.clone()).is_err(), "{}", event["minute"]);
    }
}

#[test]
fn a_text_has_no_room_for_a_sequence_of_any_length() {
    for event in events() {
        event.check().unwrap();
        let value = json(&event);
        let mut found = Vec::new();
        leaves("", &value, &[], &mut found);
        let texts = found.iter().filter(|leaf| leaf.value.is_string());
        for path in texts.map(|leaf| leaf.path.trim_start_matches('.').replace('.', "/")) {
            let mut long = value.clone();
            *long.pointer_mut(&format!("/{path}")).unwrap() = "x".repeat(TEXT_LIMIT + 1).into();
            let refused = serde_json::from_value::<Event>(long).map_or(true, |event| event.check().is_err());
            assert!(refused, "{path} takes any text");
        }
    }
}

#[test]
fn the_dictionary_has_exactly_the_fields_that_leave_a_device() {
    let structures: Vec<&Structure> = MESSAGES.iter().flat_map(|message| message.structures).collect();
    let mut met = BTreeSet::new();
    for (name, root, message) in messages() {
        let of_message = MESSAGES.iter().find(|message| message.name == name).unwrap();
        assert_eq!(of_message.structures[0].name, root);
        meet(root, &message, &structures, &mut met);
    }
    assert_eq!(messages().len(), MESSAGES.len());
    let known: BTreeSet<_> = structures.iter().map(|structure| structure.name).collect();
    assert_eq!(met, known, "a structure of the dictionary leaves no device");
}

/// Finds each object among the structures, by its fields; an object of one field that names a variant
/// only holds what follows.
fn meet<'a>(path: &str, value: &Value, structures: &[&'a Structure], met: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            let names: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
            let has = |structure: &&&Structure| {
                structure.fields.iter().map(|field| field.name).collect::<BTreeSet<_>>() == names
            };
            let mut same = structures.iter().filter(has).map(|structure| structure.name).peekable();
            let variant = path.ends_with(".body") && names.len() == 1;
            assert!(variant || same.peek().is_some(), "{path} is in no dictionary: {names:?}");
            met.extend(same);
            for (name, value) in fields {
                meet(&format!("{path}.{name}"), value, structures, met);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| meet(path, item, structures, met)),
        _ => {}
    }
}

#[test]
fn a_record_on_the_local_socket_holds_no_more_than_an_event() {
    for (body, event) in bodies().into_iter().zip(events()) {
        let record = json(Record { number: 1, minute: event.minute, body });
        let event = json(event);
        assert_eq!(record["body"], event["body"]);
        assert_eq!(record["minute"], event["minute"]);
        assert_eq!(record.as_object().unwrap().len(), event.as_object().unwrap().len());
    }
}

#[test]
fn a_field_that_no_version_declared_is_refused() {
    let refuses = |mut message: Value, path: &str, read: fn(Value) -> bool| {
        message.pointer_mut(path).unwrap()["prompt"] = "never".into();
        assert!(!read(message), "{path}");
    };
    fn reads<T: serde::de::DeserializeOwned>(message: Value) -> bool {
        serde_json::from_value::<T>(message).is_ok()
    }
    for (event, body) in events().iter().zip(["usage", "blocked", "dropped"]) {
        refuses(json(event), "", reads::<Event>);
        refuses(json(event), &format!("/body/{body}"), reads::<Event>);
    }
    refuses(json(&events()[0]), "/body/usage/tokens_in", reads::<Event>);
    refuses(json(personal()), "", reads::<PersonalRecord>);
    refuses(json(personal()), "/usage", reads::<PersonalRecord>);
    refuses(json(personal()), "/usage/tokens_in", reads::<PersonalRecord>);
    let [(_, _, batch), (_, _, enrol), (_, _, renew), _, (_, _, exemption), personal @ ..] =
        <[_; 9]>::try_from(messages()).unwrap();
    let [(_, _, records), (_, _, total), (_, _, query), (_, _, leave)] = personal;
    refuses(batch, "", reads::<Batch>);
    refuses(enrol.clone(), "", reads::<EnrolRequest>);
    refuses(enrol, "/device", reads::<EnrolRequest>);
    refuses(renew, "", reads::<RenewRequest>);
    refuses(exemption, "", reads::<ExemptionRequest>);
    refuses(records, "", reads::<PersonalBatch>);
    refuses(total, "", reads::<PersonalTotal>);
    refuses(query, "", reads::<PersonalQuery>);
    refuses(leave, "", reads::<PersonalLeave>);
}
