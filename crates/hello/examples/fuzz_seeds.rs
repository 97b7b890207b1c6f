//! Writes the first inputs of the fuzz targets into `fuzz/corpus`; to be run when the formats of
//! inputs change: `cargo run -p toktra-hello --example fuzz_seeds`.

use std::path::Path;
use std::{fs, io};

#[path = "../tests/hello/support/mod.rs"]
#[allow(dead_code, clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "shared with the tests")]
mod support;

use support::initial::{Initial, crypto, opaque};
use support::message::Hello;
use support::record::{record, records_cut_at};

fn main() -> io::Result<()> {
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
        write("stream", name, stream)?;
        write("split_stream", name, &[&[3, 0, 20, 0, 101, 0, 240], &stream[..]].concat())?;
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
        write("quic_flow", name, &framed.collect::<Vec<u8>>())?;
    }
    Ok(())
}

fn write(target: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&corpus)?;
    fs::write(corpus.join(name), input)
}
