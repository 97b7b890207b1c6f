//! Holds the promise of X10: nothing that leaves a device, or waits on it to leave, has
//! room for a sequence of sizes or times, or for a time finer than a minute.

use serde_json::Value;
use toktra_protocol::event::{Blocked, Dropped};
use toktra_protocol::local::{FromExtension, Record};
use toktra_protocol::{Batch, BlockReason, Estimate, Event, EventBody, Minute, NameSource, Usage};

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
    vec![EventBody::Usage(usage), EventBody::Blocked(blocked), EventBody::Dropped(dropped)]
}

/// Every path to a value below `value`, asserting that none is an array.
fn walk(path: &str, value: &Value, paths: &mut Vec<String>) {
    assert!(!value.is_array(), "{path} is a sequence");
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| walk(&format!("{path}.{name}"), value, paths));
        }
        _ => paths.push(path.to_owned()),
    }
}

#[test]
fn no_event_holds_a_sequence_and_its_only_time_is_a_minute() {
    for (sequence, body) in bodies().into_iter().enumerate() {
        let event = Event { sequence: sequence as u64 + 1, minute: Minute(29_000_000), body };
        event.check().unwrap();
        let mut paths = Vec::new();
        walk("event", &serde_json::to_value(&event).unwrap(), &mut paths);
        let times: Vec<_> = paths
            .iter()
            .filter(|path| {
                ["time", "_at", "_ms", "_us", "_ns", "date", "minute"].iter().any(|word| path.contains(word))
            })
            .collect();
        assert_eq!(times, ["event.minute"]);
    }
}

#[test]
fn a_batch_is_a_sequence_of_events_and_nothing_else() {
    let batch = Batch { events: Vec::new() };
    assert_eq!(serde_json::to_string(&batch).unwrap(), r#"{"events":[]}"#);
}

#[test]
fn a_record_on_the_local_socket_holds_no_more_than_an_event() {
    for body in bodies() {
        let record = FromExtension::Record(Record { number: 1, minute: Minute(1), body: body.clone() });
        let mut paths = Vec::new();
        walk("", &serde_json::to_value(&record).unwrap(), &mut paths);
        let event = Event { sequence: 1, minute: Minute(1), body };
        let mut of_event = Vec::new();
        walk("", &serde_json::to_value(&event).unwrap(), &mut of_event);
        assert_eq!(paths.len(), of_event.len());
    }
}

#[test]
fn a_field_that_no_version_declared_is_refused() {
    let event = Event { sequence: 1, minute: Minute(1), body: bodies().remove(0) };
    let mut value = serde_json::to_value(&event).unwrap();
    value["body"]["usage"]["prompt"] = Value::String("never".into());
    assert!(serde_json::from_value::<Event>(value).is_err());
}
