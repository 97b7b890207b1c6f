//! Writes the first inputs of the messages' fuzz targets into `fuzz/corpus`; to be run when a
//! message changes: `cargo run -p toktra-protocol --example fuzz_seeds`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;
use toktra_protocol::event::{Blocked, Dropped};
use toktra_protocol::local::{self, Answer, Ask, FromExtension, Health, Record, Seed, ToExtension};
use toktra_protocol::personal::local::{PersonalEstimate, PersonalMode, PersonalRecord, PersonalUsage};
use toktra_protocol::personal::wire::{Body, SEALED_HEAD};
use toktra_protocol::personal::{
    Member, Month, Perks, PersonalBatch, PersonalLeave, PersonalPage, PersonalQuery, PersonalTotal, Sealed,
    Slot, StoredRecord,
};
use toktra_protocol::{
    Batch, Block, BlockReason, DeviceId, Directive, Estimate, Event, EventBody, Lock, Minute, NameSource,
    UnixSeconds, Usage,
};

fn main() -> Result<(), Box<dyn Error>> {
    batches()?;
    frames()?;
    directives()?;
    personal()
}

fn batches() -> Result<(), Box<dyn Error>> {
    let events = bodies().into_iter().zip(1..).map(|(body, sequence)| event(sequence, body)).collect();
    let batch = Batch { events };
    write("batch", "compressed", &batch.encode()?)?;
    write("batch", "json", &serde_json::to_vec(&batch)?)?;
    write(
        "batch",
        "gap",
        &serde_json::to_vec(&Batch { events: vec![event(2, dropped()), event(4, dropped())] })?,
    )?;
    write("batch", "empty", &Batch { events: Vec::new() }.encode()?)?;
    write("batch", "cut", &batch.encode()?[..40])?;
    Ok(())
}

fn frames() -> Result<(), Box<dyn Error>> {
    let hello =
        FromExtension::Hello { version: 1, run: uuid::Uuid::from_u128(7), extension_version: "0.1.0".into() };
    let mut session = vec![frame(&hello)?, frame(&FromExtension::Health(Health::default()))?];
    for (body, number) in bodies().into_iter().zip(1..) {
        session.push(frame(&FromExtension::Record(Record { number, minute: Minute(29_000_000), body }))?);
    }
    session.push(frame(&FromExtension::Personal(personal_record()))?);
    session.push(frame(&FromExtension::PersonalInForce { mode: Some(mode()) })?);
    write("frames", "extension", &[&[255], &session.concat()[..]].concat())?;
    write("frames", "pieces", &[&[3], &session.concat()[..]].concat())?;
    let seed = Seed { lock: Some(lock()), block: Some(block()), personal: Some(mode()), ..Seed::default() };
    let answers = [
        frame(&ToExtension::Seed(seed))?,
        frame(&ToExtension::Acknowledged { number: 9 })?,
        frame(&ToExtension::PersonalAcknowledged { number: 3 })?,
    ]
    .concat();
    write("frames", "agent", &[&[64], &answers[..]].concat())?;
    write("frames", "ask", &[&[255], &frame(&Ask::Status)?[..]].concat())?;
    write("frames", "answer", &[&[255], &frame(&Answer::Status(Box::default()))?[..]].concat())?;
    write("frames", "too_long", &[1, 0xff, 0xff, 0xff, 0xff])?;
    Ok(())
}

fn directives() -> Result<(), Box<dyn Error>> {
    let plain = Directive {
        version: 1,
        device: DeviceId::from_u128(7),
        issued_at: UnixSeconds(1_795_392_000),
        valid_until: UnixSeconds(1_795_395_600),
        lock: None,
        block: None,
        flags: BTreeMap::new(),
        budgets: Vec::new(),
        counted: 0,
        renew_before: None,
        perks: None,
    };
    write("directive", "plain", &serde_json::to_vec(&plain)?)?;
    let flags = BTreeMap::from([("FF_BUDGET_HARD_CAPS".to_owned(), true)]);
    let perks = Perks {
        tier: "Everyone".into(),
        month: Month::new(2026, 11)?,
        month_end: UnixSeconds(1_796_083_200),
        monthly_tokens: 1_000_000,
        bonus_tokens: 1,
        rollover_tokens: 250_000,
    };
    let full = Directive { lock: Some(lock()), block: Some(block()), flags, perks: Some(perks), ..plain };
    write("directive", "full", &serde_json::to_vec(&full)?)?;
    Ok(())
}

fn personal() -> Result<(), Box<dyn Error>> {
    let (member, slot) = (Member::new([1; 32]), Slot::new([2; 16]));
    let sealed = Sealed::new([SEALED_HEAD, b"-> X25519 a\nb\n--- c\nd"].concat())?;
    let records = vec![sealed.clone(), sealed.clone()];
    let batch = PersonalBatch { member: member.clone(), slot, first: 1, records };
    write("personal", "records", &batch.encode()?)?;
    write("personal", "none", &serde_json::to_vec(&PersonalBatch { records: Vec::new(), ..batch })?)?;
    let total = PersonalTotal { member: member.clone(), slot, month: Month::new(2026, 11)?, tokens: 1_000 };
    write("personal", "total", &total.encode()?)?;
    write("personal", "list", &PersonalQuery { member: member.clone(), after: 1 }.encode()?)?;
    write("personal", "leave", &PersonalLeave { member }.encode()?)?;
    let stored = StoredRecord { place: 1, slot, number: 1, sealed };
    let page = PersonalPage { records: vec![stored], next: 1, more: false };
    write("personal", "page", &serde_json::to_vec(&page)?)?;
    Ok(())
}

fn bodies() -> Vec<EventBody> {
    let (provider, service) = ("openai".to_owned(), "openai-api".to_owned());
    let (host, user_account) = ("api.openai.com".to_owned(), Some("ada".to_owned()));
    let usage = Usage {
        provider: provider.clone(),
        service: service.clone(),
        host: host.clone(),
        name_source: NameSource::QuicSni,
        user_account: user_account.clone(),
        application: None,
        exchanges: 1,
        bytes_out: 2,
        bytes_in: 3,
        bytes_handshake: 4,
        duration_s: 5,
        streaming: true,
        partial: false,
        tokens_in: Estimate::default(),
        tokens_out: Estimate { low: 1, point: 2, high: 3 },
        calibration: "none".into(),
    };
    let name_source = NameSource::Address;
    let reason = BlockReason::Budget;
    let blocked =
        Blocked { provider, service, host, name_source, user_account, application: None, reason, cut: true };
    vec![EventBody::Usage(usage), EventBody::Blocked(blocked), dropped()]
}

fn mode() -> PersonalMode {
    PersonalMode { account: "ada".into(), until: Some(UnixSeconds(1_795_395_600)), stopped: false }
}

fn personal_record() -> PersonalRecord {
    let usage = PersonalUsage {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        application: Some("curl".into()),
        exchanges: 1,
        bytes_out: 2,
        bytes_in: 3,
        bytes_handshake: 4,
        duration_s: 5,
        streaming: true,
        partial: false,
        tokens_in: PersonalEstimate::default(),
        tokens_out: PersonalEstimate { low: 1, point: 2, high: 3 },
        calibration: "none".into(),
    };
    PersonalRecord { number: 1, minute: Minute(29_000_000), lost: 0, usage }
}

fn dropped() -> EventBody {
    EventBody::Dropped(Dropped { events: 3, place: "spool".into() })
}

fn event(sequence: u64, body: EventBody) -> Event {
    Event { sequence, minute: Minute(29_000_000), body }
}

fn lock() -> Lock {
    Lock { message: "Ask Ms Lee.".into() }
}

fn block() -> Block {
    Block {
        reason: BlockReason::Provider,
        message: "Not here.".into(),
        providers: vec!["openai".into()],
        until: None,
        budget: None,
    }
}

fn frame(message: &impl Serialize) -> Result<Vec<u8>, local::FrameError> {
    local::encode(message)
}

fn write(target: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&corpus)?;
    fs::write(corpus.join(name), input)
}
