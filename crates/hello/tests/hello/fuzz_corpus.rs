//! Replays the committed corpus of the fuzz targets, which `seeds_are_written` makes and fuzzing extends.

use std::fs;
use std::path::PathBuf;

use crate::bodies;
use crate::support::initial::{Initial, crypto, opaque};
use crate::support::message::Hello;
use crate::support::record::{record, records_cut_at};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, body: fn(&[u8])) {
    let mut count = 0;
    for entry in fs::read_dir(corpus(target)).unwrap() {
        body(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "fuzz/corpus/{target} is empty");
}

#[test]
fn the_corpus_of_stream_passes() {
    replay("stream", bodies::stream);
}

#[test]
fn the_corpus_of_split_stream_passes() {
    replay("split_stream", bodies::split_stream);
}

#[test]
fn the_corpus_of_quic_flow_passes() {
    replay("quic_flow", bodies::quic_flow);
}

#[test]
#[ignore = "writes into fuzz/corpus; run by hand when the formats of inputs change"]
fn seeds_are_written() {
    let hello = Hello::new("api.openai.com").message();
    let streams: [(&str, Vec<u8>); 7] = [
        ("plain", record(&hello)),
        ("browser", record(&Hello::like_a_browser("chatgpt.com").with_ech().message())),
        ("address", record(&Hello::new("192.0.2.7").message())),
        ("records", records_cut_at(&hello, &[1, 3, 60, 70])),
        ("connect", [b"CONNECT a:443 HTTP/1.1\r\n\r\n", &record(&hello)[..]].concat()),
        ("socks", [b"\x05\x01\0\x05\x01\0\x03\x01a\x01\xbb", &record(&hello)[..]].concat()),
        ("starttls", [b"EHLO a\r\nSTARTTLS\r\n", &record(&hello)[..]].concat()),
    ];
    for (name, stream) in &streams {
        write("stream", name, stream);
        write("split_stream", name, &[&[3, 0, 20, 0, 101, 0, 240], &stream[..]].concat());
    }
    let half = hello.len() / 2;
    let packets = [
        ("whole", vec![Initial::new(&[1; 8], crypto(0, &hello)).seal()]),
        (
            "version_2",
            vec![Initial { version: 0x6b33_43cf, ..Initial::new(&[1; 8], crypto(0, &hello)) }.seal()],
        ),
        (
            "halves",
            vec![
                opaque(0xd0, 1, &[1; 8], 40),
                Initial::new(&[1; 8], crypto(half, &hello[half..])).seal(),
                Initial::new(&[1; 8], crypto(0, &hello[..half])).seal(),
            ],
        ),
    ];
    for (name, datagrams) in packets {
        let framed = datagrams
            .iter()
            .flat_map(|datagram| [(datagram.len() as u16).to_be_bytes().to_vec(), datagram.clone()].concat());
        write("quic_flow", name, &framed.collect::<Vec<u8>>());
    }
}

fn write(target: &str, name: &str, input: &[u8]) {
    fs::create_dir_all(corpus(target)).unwrap();
    fs::write(corpus(target).join(name), input).unwrap();
}
