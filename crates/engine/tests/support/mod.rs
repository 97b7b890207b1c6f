//! What the engine's tests share: hellos, times, and short ways to say what a capture sees.
#![allow(dead_code)] // each test binary uses a part

use std::net::SocketAddr;

use toktra_engine::{Counters, Engine, FlowEvent, FlowId, Handshake, Now, Opened, Transport, Verdict};
use toktra_protocol::{EventBody, UnixSeconds, Usage};

/// The wall clock at monotonic zero.
pub const WALL: u64 = 1_795_392_000;

pub fn at(monotonic_ms: u64) -> Now {
    Now { monotonic_ms, wall: UnixSeconds(WALL + monotonic_ms / 1000) }
}

pub fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 443))
}

pub fn opened(remote: SocketAddr) -> Opened<'static> {
    Opened {
        transport: Transport::Tcp,
        remote,
        user_account: Some("ada"),
        application: Some("curl"),
        asked_name: None,
        preexisting: false,
    }
}

/// A TLS 1.2 ClientHello in one record: `name` in server_name, and an empty ECH extension if asked.
pub fn hello(name: Option<&str>, ech: bool) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let length = name.len() as u16;
        extensions.extend([0, 0]);
        extensions.extend((length + 5).to_be_bytes());
        extensions.extend((length + 3).to_be_bytes());
        extensions.push(0);
        extensions.extend(length.to_be_bytes());
        extensions.extend(name.as_bytes());
    }
    if ech {
        // encrypted_client_hello, outer: HKDF-SHA256, AES-128-GCM, config 7, no enc, 16 bytes of payload.
        let body = [&[0, 0, 1, 0, 1, 7, 0, 0, 0, 16][..], &[0x5a; 16]].concat();
        extensions.extend([0xfe, 0x0d]);
        extensions.extend((body.len() as u16).to_be_bytes());
        extensions.extend(body);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 4, 0x13, 1, 0xc0, 0x2f]);
    body.extend([1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Opens a flow and sends a hello with this name in one piece.
pub fn connect(engine: &mut Engine, now: Now, flow: FlowId, remote: SocketAddr, name: &str) -> Verdict {
    assert_eq!(engine.handle(now, flow, FlowEvent::Opened(opened(remote))), Verdict::NeedMore);
    engine.handle(now, flow, FlowEvent::Outbound { position: 0, bytes: &hello(Some(name), false) })
}

/// Counts of a flow after so many requests, handshake included.
pub fn counters(turns: u32, sent: u64, received: u64) -> Counters {
    Counters {
        bytes_out: 600 + sent,
        bytes_in: 4_000 + received,
        turns: Some(turns),
        handshake: Some(Handshake { bytes_out: 600, bytes_in: 4_000 }),
        inbound_active_ms: Some(received / 50),
    }
}

pub fn bodies(engine: &mut Engine) -> Vec<EventBody> {
    engine.take_records().into_iter().map(|record| record.body).collect()
}

pub fn usages(engine: &mut Engine) -> Vec<Usage> {
    bodies(engine)
        .into_iter()
        .filter_map(|body| match body {
            EventBody::Usage(usage) => Some(usage),
            EventBody::Blocked(_) | EventBody::Dropped(_) => None,
        })
        .collect()
}
