//! What comes before a hello, cut at every byte.

use toktra_hello::{Answer, Prelude, Stream, read_stream};

use crate::support::message::Hello;
use crate::support::record::record;
use crate::support::{name, named};

const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\xc0\0\x01\xbb";
const MYSQL: &[u8] =
    b"\x20\0\0\x01\x85\xae\xff\x19\0\0\0\x01\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const LDAP: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const RDP: &[u8] = b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0";

/// Preludes, each whole.
const PRELUDES: &[(&[u8], Prelude)] = &[
    (b"CONNECT api.openai.com:443 HTTP/1.1\r\nHost: api.openai.com:443\r\n\r\n", Prelude::HttpConnect),
    (b"CONNECT [2001:db8::1]:443 HTTP/1.0\n\n", Prelude::HttpConnect),
    (
        b"CONNECT a:1 HTTP/1.1\r\n\r\nCONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YTpi\r\n\r\n",
        Prelude::HttpConnect,
    ),
    (b"\x04\x01\x01\xbb\xc0\x00\x02\x07user\0", Prelude::Socks4),
    (b"\x04\x01\x01\xbb\0\0\0\x01\0api.openai.com\0", Prelude::Socks4),
    (b"\x05\x01\0\x05\x01\0\x03\x0eapi.openai.com\x01\xbb", Prelude::Socks5),
    (b"\x05\x02\0\x02\x05\x01\0\x01\xc0\0\x02\x07\x01\xbb", Prelude::Socks5),
    (b"\x05\x02\0\x02\x01\x04user\x06secret\x05\x01\0\x03\x09a.example\x01\xbb", Prelude::Socks5),
    (b"\x05\x01\0\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb", Prelude::Socks5),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Prelude::ProxyProtocol),
    (b"PROXY UNKNOWN\r\n", Prelude::ProxyProtocol),
    (PROXY_V2, Prelude::ProxyProtocol),
    (b"\0\0\0\x08\x04\xd2\x16\x2f", Prelude::StartTls),
    (b"\0\0\0\x08\x04\xd2\x16\x30\0\0\0\x08\x04\xd2\x16\x2f", Prelude::StartTls),
    (MYSQL, Prelude::StartTls),
    (LDAP, Prelude::StartTls),
    (RDP, Prelude::StartTls),
    (b"EHLO client.example\r\nSTARTTLS\r\n", Prelude::StartTls),
    (b"a1 CAPABILITY\r\na2 STARTTLS\r\n", Prelude::StartTls),
    (b"CAPA\r\nSTLS\r\n", Prelude::StartTls),
    (b"AUTH TLS\r\n", Prelude::StartTls),
];

#[test]
fn the_hello_behind_every_prelude_is_found_however_it_is_cut() {
    let hello = record(&Hello::new("api.anthropic.com").message());
    for (prelude, kind) in PRELUDES {
        let bytes = [prelude, &hello[..]].concat();
        let expected = named("api.anthropic.com", false, *kind);
        assert_eq!(read_stream(&bytes), expected, "{}", prelude.escape_ascii());
        for cut in 1..prelude.len() + 10 {
            let mut stream = Stream::new();
            let at = format!("{} cut at {cut}", prelude.escape_ascii());
            assert_eq!(stream.push(0, &bytes[..cut]), Answer::NeedMore, "{at}");
            assert_eq!(stream.push(cut as u64, &bytes[cut..]), expected, "{at}");
        }
    }
}

#[test]
fn the_first_of_several_preludes_is_named() {
    let connect = b"CONNECT api.openai.com:443 HTTP/1.1\r\n\r\n";
    let hello = record(&Hello::new("api.openai.com").message());
    let bytes = [PROXY_V2, connect, &hello].concat();
    assert_eq!(read_stream(&bytes), named("api.openai.com", false, Prelude::ProxyProtocol));
}

#[test]
fn the_target_of_a_proxy_is_never_taken_for_the_name() {
    let hello = record(&Hello::without_name().message());
    for (prelude, _) in PRELUDES {
        assert!(matches!(read_stream(&[prelude, &hello[..]].concat()), Answer::NoName { .. }));
    }
}

#[test]
fn what_only_resembles_a_prelude_is_no_tls() {
    for bytes in [
        &b"CONNECTED yes\r\n"[..],
        b"CONNECT a:1 HTTP/1.1\r\n\0",
        b"CONNECT a:1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4\0",
        b"\x04\x02",
        b"\x05\0",
        b"\x05\x01\0\x05\x02\0",
        b"\x05\x01\0\x05\x01\0\x02",
        b"\x05\x01\0\x01",
        b"\r\n\r\n\0\r\nQUIT\n\x11",
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        b"\x03\0\0\x13\x0e\xd0",
        b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0",
        b"\x30\x84\xff\xff\xff\xff",
        b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n\x16\x04",
        b"LOGIN a b\r\n",
    ] {
        let more = [bytes, &[0; 40]].concat();
        assert_eq!(read_stream(&more), Answer::NotTls, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_prelude_without_end_is_given_up() {
    for start in
        [&b"CONNECT a:1 HTTP/1.1\r\n"[..], b"PROXY ", b"EHLO a\r\n", b"\x04\x01\x01\xbb\x01\x02\x03\x04"]
    {
        let bytes = [start, &b"x: y\r\n".repeat(4000)].concat();
        assert_eq!(read_stream(&bytes), Answer::NotTls, "{}", start.escape_ascii());
    }
    let ninth = b"CONNECT a:1 HTTP/1.1\r\n\r\n".repeat(9);
    assert_eq!(read_stream(&[ninth, record(&Hello::new("a.example").message())].concat()), Answer::NotTls);
}

#[test]
fn a_hello_alone_has_no_prelude() {
    assert_eq!(read_stream(&record(&Hello::new("a.example").message())), name("a.example"));
}
