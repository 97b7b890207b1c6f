//! Hellos that rustls's clients write, whole and mutated, read by us and by rustls's acceptor: whatever the
//! acceptor takes, we take, and the names agree but for case and a trailing dot, which rustls takes away.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use toktra_hello::{Answer, read_stream};

use crate::support::name;

const NAMES: [&str; 6] = [
    "api.openai.com",
    "API.Anthropic.com",
    "localhost",
    "my_resource.openai.azure.com",
    "xn--bcher-kva.example",
    "a.b",
];

/// What a client of rustls sends first.
fn client_stream(
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
    sni: bool,
    fragment: Option<usize>,
) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.enable_sni = sni;
    config.max_fragment_size = fragment;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut stream).unwrap();
    }
    stream
}

/// The name that rustls's acceptor finds; the outer `None` if it does not accept the hello.
fn accepted(mut stream: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    loop {
        match acceptor.accept() {
            Ok(Some(accepted)) => return Some(accepted.client_hello().server_name().map(str::to_owned)),
            Ok(None) if stream.is_empty() => return None,
            Ok(None) => acceptor.read_tls(&mut stream).ok()?,
            Err(_) => return None,
        };
    }
}

#[test]
fn hellos_of_every_configuration_are_read() {
    for versions in [&[&TLS12][..], &[&TLS13], &[&TLS12, &TLS13]] {
        for fragment in [None, Some(32), Some(50), Some(100)] {
            for sent in NAMES {
                let stream = client_stream(sent, versions, true, fragment);
                assert_eq!(read_stream(&stream), name(sent), "{versions:?} {fragment:?}");
                assert_eq!(accepted(&stream), Some(Some(sent.to_ascii_lowercase())));
                let nameless = client_stream(sent, versions, false, fragment);
                assert!(matches!(read_stream(&nameless), Answer::NoName { .. }));
                assert_eq!(accepted(&nameless), Some(None));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn what_rustls_accepts_has_the_same_name_here(
        sent in 0..NAMES.len(),
        tls12 in any::<bool>(),
        fragment in prop_oneof![Just(None), (32_usize..200).prop_map(Some)],
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in prop_oneof![9 => Just(None), 1 => any::<Index>().prop_map(Some)],
    ) {
        let versions = [if tls12 { &TLS12 } else { &TLS13 }];
        let mut stream = client_stream(NAMES[sent], &versions, true, fragment);
        for (index, byte) in changes {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        if let Some(theirs) = accepted(&stream) {
            let ours = read_stream(&stream).into_owned();
            match (&ours, theirs) {
                (Answer::Name { name, .. }, Some(theirs)) => {
                    prop_assert_eq!(name.trim_end_matches('.').to_ascii_lowercase(), theirs);
                }
                (Answer::NoName { .. }, None) => {}
                (_, theirs) => prop_assert!(false, "ours {ours:?}, theirs {theirs:?}"),
            }
        }
    }
}
