//! The reader of server names beside `tls-parser`, rustls's acceptor and `quic-parser`, on the same bytes:
//! `cargo bench -p toktra-benches --bench hello`.
#![allow(missing_docs, reason = "criterion_group! makes public functions without documentation")]
#![allow(clippy::expect_used, reason = "a peer that fails its own benchmark ends the run")]

#[path = "../../crates/hello/tests/hello/support/initial.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod initial;
#[path = "../../crates/hello/tests/hello/support/message.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod message;
#[path = "peer/tls.rs"]
mod tls;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use initial::{Initial, crypto};
use message::Hello;
use rustls::server::Acceptor;
use tls::{by_tls_parser, name_in, record};
use toktra_hello::{Answer, QuicFlow, Stream, read_stream};

const NAME: &str = "api.anthropic.com";

fn streams(criterion: &mut Criterion) {
    let plain = Hello::like_a_browser(NAME).padded_to(512);
    let post_quantum = Hello::like_a_browser(NAME).with_post_quantum_share().padded_to(1795);
    for hello in [plain, post_quantum] {
        let stream = record(&hello.message());
        let mut group = criterion.benchmark_group(format!("tls_{}_bytes", stream.len()));
        group.throughput(Throughput::Elements(1));
        group.bench_function("toktra_hello", |bencher| {
            bencher.iter(|| name_length(&read_stream(black_box(&stream))))
        });
        group.bench_function("toktra_hello_stream", |bencher| {
            bencher.iter(|| name_length(&Stream::new().push(0, black_box(&stream))));
        });
        group.bench_function("tls_parser", |bencher| {
            bencher.iter(|| assert_eq!(by_tls_parser(black_box(&stream)), NAME.len()));
        });
        group.bench_function("rustls_acceptor", |bencher| bencher.iter(|| by_rustls(black_box(&stream))));
        group.finish();
    }
}

fn datagrams(criterion: &mut Criterion) {
    let message = Hello::like_a_browser(NAME).message();
    let whole = Initial::new(&[1, 2, 3, 4, 5, 6, 7, 8], crypto(0, &message)).padded_to(1250).seal();
    let mut group = criterion.benchmark_group("quic_initial_1250_bytes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("toktra_hello", |bencher| {
        bencher.iter(|| name_length(&QuicFlow::new().push(black_box(&whole))));
    });
    group.bench_function("quic_parser_and_tls_parser", |bencher| {
        bencher.iter(|| by_quic_parser(black_box(&whole)));
    });
    group.finish();
}

fn name_length(answer: &Answer<'_>) -> usize {
    let Answer::Name { name, .. } = answer else { return 0 };
    assert_eq!(name.len(), NAME.len());
    name.len()
}

fn by_rustls(mut stream: &[u8]) -> usize {
    let mut acceptor = Acceptor::default();
    while !stream.is_empty() {
        acceptor.read_tls(&mut stream).expect("reading from memory");
    }
    let accepted = acceptor.accept().ok().flatten().expect("rustls accepts the hello");
    let length = accepted.client_hello().server_name().map_or(0, str::len);
    assert_eq!(length, NAME.len());
    length
}

fn by_quic_parser(datagram: &[u8]) -> usize {
    let header = quic_parser::parse_initial(datagram).expect("header");
    let frames = quic_parser::decrypt_initial(&header).expect("keys");
    let frames = quic_parser::parse_crypto_frames(&frames).expect("frames");
    let stream = quic_parser::reassemble_crypto_stream(&frames);
    let (_, message) =
        tls_parser::parse_tls_message_handshake(&stream).expect("tls-parser reads the message");
    let length = name_in(Some(&message));
    assert_eq!(length, NAME.len());
    length
}

criterion_group!(benches, streams, datagrams);
criterion_main!(benches);
