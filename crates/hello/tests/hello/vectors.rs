//! The sample packets of RFC 9001 (A.2) and RFC 9369 (A.2): a client's first Initial of `example.com`.

use toktra_hello::QuicFlow;

use crate::support::initial::Initial;
use crate::support::name;

const ID: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
/// The CRYPTO frame; PADDING fills the packet up to 1200 bytes.
const FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a\
    00080006001d0017001800100007000504616c706e000500050100000000003300260024001d00209370b2c9caa47fba\
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306030203080408\
    050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
    75300901100f088394c8f03e51570806048000ffff";

/// The packet that the RFC protects, whose first bytes and tag are compared with what it prints.
fn sample(version: u32, begins: &str, ends: &str) -> Vec<u8> {
    let packet = Initial { version, number: 2, ..Initial::new(ID, hex(FRAME)) }.padded_to(1200).seal();
    assert_eq!(packet.len(), 1200);
    assert!(packet.starts_with(&hex(begins)));
    assert!(packet.ends_with(&hex(ends)));
    packet
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn the_sample_packet_of_rfc_9001_is_opened() {
    let begins =
        "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c";
    let packet = sample(1, begins, "e221af44860018ab0856972e194cd934");
    assert_eq!(QuicFlow::new().push(&packet), name("example.com"));
}

#[test]
fn the_sample_packet_of_rfc_9369_is_opened() {
    let begins =
        "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071bf03dceebfa162e75d6c";
    let packet = sample(0x6b33_43cf, begins, "2faa745b6fe189cf772a9f84cbfc");
    assert_eq!(QuicFlow::new().push(&packet), name("example.com"));
}
