//! A ClientHello on the wire, and how `tls-parser` reads its name: the peer of both benchmarks.

use tls_parser::{SNIType, TlsExtension, TlsMessage, TlsMessageHandshake};

/// One record of a handshake (RFC 8446, 5.1).
pub fn record(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a message fits one record").to_be_bytes();
    [&[22, 3, 1][..], &length, message].concat()
}

/// The length of the name in a record; 0 without one.
pub fn by_tls_parser(stream: &[u8]) -> usize {
    let (_, record) = tls_parser::parse_tls_plaintext(stream).expect("tls-parser reads the record");
    name_in(record.msg.first())
}

/// The length of the name in a ClientHello; 0 without one.
pub fn name_in(message: Option<&TlsMessage<'_>>) -> usize {
    let Some(TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello))) = message else { return 0 };
    let (_, extensions) =
        tls_parser::parse_tls_extensions(hello.ext.unwrap_or_default()).expect("extensions");
    let names = extensions.iter().filter_map(|extension| match extension {
        TlsExtension::SNI(names) => Some(names),
        _ => None,
    });
    names.flatten().find(|(kind, _)| *kind == SNIType::HostName).map_or(0, |(_, name)| name.len())
}
