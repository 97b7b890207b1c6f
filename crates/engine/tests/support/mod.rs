//! What the engine's tests share: hellos, times, and short ways to say what a capture sees.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

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

/// A ClientHello for `chatgpt.com` over two QUIC v1 Initial packets, sealed by rustls with the
/// destination connection id 8394c8f03e515708.
pub fn quic_hello() -> [Vec<u8>; 2] {
    [QUIC_HELLO_START, QUIC_HELLO_END].map(|hex| {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    })
}

const QUIC_HELLO_START: &str = "\
    cc00000001088394c8f03e515708000040752c32cdab46b451879b7ca391c0a50dd784ca3581605252bce9125559f334\
    fd2cd86442f64e37a62c0649351b3e5507a14bacbe2fb358328d6bb9e02cfe878ad16b334e69f00a01a2a359d4e7341b\
    d77cd02fbf52aea7312eb63ca7516517bc442ba0020286ec2ff7dc41dc84a321e41b5ab3ba4d13\
    ";

const QUIC_HELLO_END: &str = "\
    c500000001088394c8f03e51570800004076b061ade86c7af6fc5a87dfcef6dd91a43a7ce021606f8e8fa2f74b0881e4\
    2751e65d04df39d9c5fa4f67b7a18119242951afff401e0ec1ce95db1143751fb10abec11d08cfb8bd2a488e801d862e\
    208050544a4b7d88bc7439e662a7ea5fe384dd14370e435f227f4f15db7b4dad675a9e4cb0ac12dd\
    ";
