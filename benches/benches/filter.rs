//! What a flow costs in the content filter of macOS, but for the framework's own part: the calls that the
//! framework makes, in their order, into the same functions; beside it `tls-parser`, which reads the name in the same
//! bytes and does nothing else: `cargo bench -p toktra-benches --bench filter`.
#![allow(missing_docs, reason = "criterion_group! makes public functions without documentation")]
#![allow(clippy::expect_used, reason = "a peer that fails its own benchmark ends the run")]

#[path = "../../crates/hello/tests/hello/support/message.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod message;
#[path = "peer/tls.rs"]
mod tls;

use std::hint::black_box;
use std::sync::{Arc, Mutex};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use message::Hello;
use tls::{by_tls_parser, record};
use toktra_capture_macos::told::{Endpoint, FlowKey, NewFlow};
use toktra_capture_macos::{DataVerdict, Filter, Flows, NewVerdict, Report};
use toktra_engine::{Engine, Joint, Now, Policy};
use toktra_protocol::UnixSeconds;

const NOW: Now = Now { monotonic_ms: 0, wall: UnixSeconds(1_795_392_000) };

fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(1));
    for (name, host, pieces) in [
        ("foreign_one_piece", "www.example.org", 1),
        ("foreign_post_quantum_two_pieces", "www.example.org", 2),
        ("provider_one_piece", "api.anthropic.com", 1),
        ("provider_post_quantum_two_pieces", "api.anthropic.com", 2),
    ] {
        let hello = Hello::like_a_browser(host);
        let hello =
            if pieces == 2 { hello.with_post_quantum_share().padded_to(1795) } else { hello.padded_to(512) };
        let stream = record(&hello.message());
        let (filter, joint) = filter();
        let mut number = 0_u128;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number += 1;
                let counted = one_flow(&filter, FlowKey(number.to_be_bytes()), black_box(&stream), pieces);
                assert_eq!(counted, host == "api.anthropic.com");
                // What the extension's thread does with records is not part of the call.
                if number.is_multiple_of(1024)
                    && let Ok(mut joint) = joint.lock()
                {
                    drop(joint.take_records());
                }
            });
        });
        if pieces == 1 {
            // The peer keeps nothing between two pieces.
            group.bench_function(format!("{name}_by_tls_parser"), |bencher| {
                bencher.iter(|| assert_eq!(by_tls_parser(black_box(&stream)), host.len()));
            });
        }
    }
    group.finish();
}

fn filter() -> (Filter, Arc<Mutex<Joint<Flows>>>) {
    let mut joint = Joint::new(Flows::new(|_| {}), Engine::new());
    joint.apply(NOW, Policy::default());
    let joint = Arc::new(Mutex::new(joint));
    (Filter::new(Arc::clone(&joint), || NOW), joint)
}

/// A flow from its beginning to its end; whether it is counted.
fn one_flow(filter: &Filter, key: FlowKey, stream: &[u8], pieces: usize) -> bool {
    let endpoint = || Some(Endpoint { host: "192.0.2.7".into(), port: "443".into() });
    let told = || NewFlow {
        protocol: 6,
        outbound: true,
        remote: endpoint(),
        hostname: None,
        account: Some("ada".into()),
        application: Some("com.example.chat".into()),
    };
    assert_eq!(filter.new_flow(|| (key, told())), NewVerdict::Peek);
    let (mut offset, mut verdict) = (0, DataVerdict::Allow);
    for piece in stream.chunks(stream.len().div_ceil(pieces)) {
        verdict = filter.outbound(offset, piece, || (key, endpoint()));
        offset += piece.len() as u64;
    }
    let counted = matches!(verdict, DataVerdict::Count(_));
    if counted {
        filter.report(|| Some((key, Report::Closed { bytes_out: 3_000, bytes_in: 9_000 })));
    }
    counted
}

criterion_group!(benches, flows);
criterion_main!(benches);
