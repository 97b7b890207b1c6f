//! Hellos over TCP that come in order, and what is none.

use std::borrow::Cow;

use toktra_hello::{Answer, LIMIT, Prelude, Reason, Stream, read_stream};

use crate::support::message::{Hello, handshake, server_name, vector16};
use crate::support::record::{record, record_of};
use crate::support::{name, named, no_name, refused};

/// Host names of language-model services, in whose hellos no public capture abounds.
const PROVIDERS: [&str; 8] = [
    "api.openai.com",
    "chatgpt.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "bedrock-runtime.eu-central-1.amazonaws.com",
    "my-resource.openai.azure.com",
    "api.mistral.ai",
    "openrouter.ai",
];

#[test]
fn a_whole_hello_gives_its_name_without_a_copy() {
    for provider in PROVIDERS {
        let stream = record(&Hello::like_a_browser(provider).message());
        let Answer::Name { name: Cow::Borrowed(found), .. } = read_stream(&stream) else {
            panic!("not borrowed")
        };
        assert_eq!(found, provider);
        assert!(stream.as_ptr_range().contains(&found.as_ptr()));
        let mut pushed = Stream::new();
        let Answer::Name { name: Cow::Borrowed(found), .. } = pushed.push(0, &stream) else {
            panic!("not borrowed")
        };
        assert!(stream.as_ptr_range().contains(&found.as_ptr()));
    }
}

#[test]
fn every_version_from_ssl_3_on_is_read() {
    for minor in 0..=4 {
        let mut hello = Hello::new("api.openai.com");
        hello.version = 0x0300 + u16::from(minor);
        let mut stream = record(&hello.message());
        stream[2] = minor;
        assert_eq!(read_stream(&stream), name("api.openai.com"));
    }
}

#[test]
fn a_hello_that_other_readers_reject_for_lack_of_signature_algorithms_is_read() {
    let mut hello = Hello::new("api.openai.com");
    hello.extensions.as_mut().unwrap().retain(|(kind, _)| *kind == 0);
    assert_eq!(read_stream(&record(&hello.message())), name("api.openai.com"));
}

#[test]
fn a_post_quantum_hello_with_grease_is_read_with_its_ech_flag() {
    let hello = Hello::like_a_browser("chatgpt.com").with_post_quantum_share().with_ech();
    let stream = record(&hello.message());
    assert!(stream.len() > 1460);
    assert_eq!(read_stream(&stream), named("chatgpt.com", true, Prelude::None));
}

#[test]
fn a_name_is_returned_as_sent() {
    for sent in ["API.OpenAI.com", "api.openai.com.", "under_score.example"] {
        assert_eq!(read_stream(&record(&Hello::new(sent).message())), name(sent));
    }
}

#[test]
fn a_hello_without_a_name_says_why() {
    let answer = |hello: Hello| read_stream(&record(&hello.message())).into_owned();
    assert_eq!(answer(Hello::without_name()), no_name(Reason::NoExtension));
    assert_eq!(
        answer(Hello::without_name().with_ech()),
        Answer::NoName { reason: Reason::NoExtension, ech: true, refused: None }
    );
    let ssl_3 = Hello { extensions: None, ..Hello::without_name() };
    assert_eq!(answer(ssl_3), no_name(Reason::NoExtension));
    assert_eq!(answer(Hello::new("192.0.2.7")), refused(Reason::IpLiteral, "192.0.2.7"));
    assert_eq!(answer(Hello::new("2001:db8::7")), refused(Reason::IpLiteral, "2001:db8::7"));
    assert_eq!(answer(Hello::new("server4:443")), refused(Reason::InvalidName, "server4:443"));
    assert_eq!(answer(Hello::new("api.openai.com\0.evil.example")), no_name(Reason::InvalidName));
    assert_eq!(answer(Hello::new("")), no_name(Reason::InvalidName));
    assert_eq!(answer(Hello::new(&"a.".repeat(150))), no_name(Reason::InvalidName));
}

#[test]
fn a_hello_with_two_names_gives_neither() {
    let twice = Hello::new("a.example").with_extension(0, server_name(b"b.example"));
    assert_eq!(read_stream(&record(&twice.message())), no_name(Reason::Malformed));
    let entry = |name: &[u8]| [vec![0], vector16(name.to_vec())].concat();
    let list = vector16([entry(b"a.example"), entry(b"b.example")].concat());
    let both = Hello::without_name().with_extension(0, list);
    assert_eq!(read_stream(&record(&both.message())), no_name(Reason::Malformed));
}

#[test]
fn nothing_is_read_behind_a_name_of_another_type() {
    let of_another_type = [9, 0, 3, 1, 2, 3];
    let host_name = [&[0, 0, 9][..], b"a.example"].concat();
    let read = |list: Vec<u8>| {
        let hello = Hello::without_name().with_extension(0, vector16(list));
        read_stream(&record(&hello.message())).into_owned()
    };
    assert_eq!(read([&of_another_type, &host_name[..]].concat()), no_name(Reason::Malformed));
    assert_eq!(read([&host_name[..], &of_another_type].concat()), name("a.example"));
}

#[test]
fn a_broken_structure_gives_no_name() {
    let body = Hello::new("api.openai.com").body();
    for length in 0..body.len() {
        let stream = record(&handshake(1, &body[..length]));
        let answer = read_stream(&stream);
        let cut_before_the_extensions = matches!(answer, Answer::NoName { reason: Reason::NoExtension, .. });
        assert!(answer == no_name(Reason::Malformed) || cut_before_the_extensions, "{length}: {answer:?}");
    }
    let trailing = [&body[..], b"x"].concat();
    assert_eq!(read_stream(&record(&handshake(1, &trailing))), no_name(Reason::Malformed));
    for extension in [vec![], vec![0, 0], vec![0, 3, 0, 0, 9], vec![0, 12, 0, 0, 9, b'a']] {
        let hello = Hello::without_name().with_extension(0, extension);
        assert_eq!(read_stream(&record(&hello.message())), no_name(Reason::Malformed));
    }
}

#[test]
fn more_bytes_are_needed_until_the_last_one() {
    let stream = record(&Hello::like_a_browser("api.openai.com").message());
    for length in 0..stream.len() {
        assert_eq!(read_stream(&stream[..length]), Answer::NeedMore, "{length}");
    }
}

#[test]
fn what_follows_the_hello_is_not_looked_at() {
    let message = Hello::new("api.openai.com").message();
    let further = handshake(16, &[0; 66]);
    let in_one_record = record(&[message.clone(), further.clone()].concat());
    assert_eq!(read_stream(&in_one_record), name("api.openai.com"));
    let early_data = [record(&message), record_of(20, &[1]), record_of(23, &[0xaa; 300])].concat();
    assert_eq!(read_stream(&early_data), name("api.openai.com"));
    let noise = [record(&message), vec![0xff; 70_000]].concat();
    assert_eq!(read_stream(&noise), name("api.openai.com"));
}

#[test]
fn a_warning_before_the_hello_is_passed_over() {
    let warning = record_of(21, &[1, 112]);
    let hello = record(&Hello::new("api.openai.com").message());
    assert_eq!(read_stream(&[&warning[..], &warning, &hello].concat()), name("api.openai.com"));
    assert_eq!(read_stream(&record_of(21, &[2, 40])), Answer::NotTls);
    assert_eq!(read_stream(&record_of(20, &[1])), Answer::NotTls);
    assert_eq!(read_stream(&record_of(23, &[0; 40])), Answer::NotTls);
}

#[test]
fn another_record_inside_a_hello_breaks_it() {
    let message = Hello::new("api.openai.com").message();
    let stream = [record(&message[..100]), record_of(21, &[1, 0]), record(&message[100..])].concat();
    assert_eq!(read_stream(&stream), no_name(Reason::Malformed));
}

#[test]
fn another_handshake_message_is_no_hello() {
    for kind in [0, 2, 11, 16, 20] {
        assert_eq!(read_stream(&record(&handshake(kind, &[0; 60]))), Answer::NotTls);
    }
}

#[test]
fn other_protocols_are_told_apart_by_their_first_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x13BitTorrent protocol",
        b"\x16\x04",
        b"\x16\xfe\xff",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x30\x02",
        b"\x17\x03\x03",
        b"\x14\x03\x03",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        b"\x80\x32\x01\x03\x03\x00\x09\x00\x00\x00\x20",
        b"\xff",
        b"\0\0\0\0",
    ] {
        assert_eq!(read_stream(bytes), Answer::NotTls, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_hello_longer_than_the_limit_is_given_up_by_its_header() {
    assert_eq!(read_stream(b"\x16\x03\x01\x40\x00\x01\x00\x40\x01"), no_name(Reason::TooLong));
    let fits = Hello::new("api.openai.com").padded_to(LIMIT - 5);
    assert_eq!(read_stream(&record(&fits.message())), name("api.openai.com"));
    let does_not = record(&Hello::new("api.openai.com").padded_to(LIMIT - 4).message());
    assert_eq!(read_stream(&does_not), no_name(Reason::TooLong));
    assert_eq!(Stream::new().push(0, &does_not), no_name(Reason::TooLong));
}

#[test]
fn empty_records_without_end_are_given_up() {
    let stream = record(&[]).repeat(LIMIT);
    assert_eq!(read_stream(&stream), no_name(Reason::TooLong));
}

#[test]
fn a_stream_answers_once() {
    let bytes = record(&Hello::new("api.openai.com").message());
    let mut stream = Stream::new();
    assert_eq!(stream.push(0, &bytes), name("api.openai.com"));
    assert_eq!(stream.push(0, &bytes), Answer::NotTls);
    assert_eq!(stream.push(bytes.len() as u64, &bytes), Answer::NotTls);
}
