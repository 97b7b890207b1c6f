//! Datagrams: sealed by rustls, and the vectors of the RFCs.

use toktra_hello::{Answer, QuicFlow};

use crate::support::initial::{Initial, crypto, opaque};
use crate::support::message::Hello;
use crate::support::name;

const ID: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

#[test]
fn every_version_is_opened() {
    for version in [1, 0x6b33_43cf, 0xff00_001d, 0xff00_0020, 0xff00_0021, 0xff00_0022] {
        let frames = crypto(0, &Hello::new("api.openai.com").message());
        let packet = Initial { version, ..Initial::new(ID, frames) }.padded_to(1200).seal();
        assert_eq!(QuicFlow::new().push(&packet), name("api.openai.com"), "{version:x}");
    }
}

#[test]
fn early_data_before_the_initial_packet_is_waited_through() {
    let frames = crypto(0, &Hello::new("api.openai.com").message());
    let mut flow = QuicFlow::new();
    assert_eq!(flow.push(&opaque(0xd3, 1, ID, 1100)), Answer::NeedMore);
    assert_eq!(flow.push(&Initial::new(ID, frames).seal()), name("api.openai.com"));
}
