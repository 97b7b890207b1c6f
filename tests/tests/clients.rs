//! Each client that people use with a provider: the name is right, every byte is counted,
//! and the event arrives exactly once. The counts of `assert_exact` are compared
//! with those of the simulator's own sockets, below TLS.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use toktra_testkit::metered::IN_FLIGHT_BYTES;
use toktra_tests::clients::{chat, chromium, curl, node, python, s_client};
use toktra_tests::scene::{Scene, assert_exact, assert_names, meter};

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const OPENAI: &str = "api.openai.com";
const ANTHROPIC: &str = "api.anthropic.com";

fn curl_is_metered(flags: &[&str]) {
    let metered = meter(|lab| curl(lab, &[flags, &["-d", &chat(50), CHAT]].concat()));
    assert_eq!(metered.output.matches("\"delta\":{\"content\":\"").count(), 50 + 1);
    let event = assert_exact(&metered, OPENAI, "sni");
    assert_eq!(event.application.as_deref(), Some("curl"));
    // With HTTP/2 the opening frames alone may look like a request, where the server's come between.
    let exchanges = if flags.contains(&"--http1.1") { 1..=1 } else { 1..=2 };
    assert!(exchanges.contains(&event.exchanges.unwrap()), "{event:#?}");
    assert_eq!(event.provider.as_deref(), Some("openai"));
}

#[test]
fn curl_over_http1_and_tls12() {
    curl_is_metered(&["--http1.1", "--tls-max", "1.2"]);
}

#[test]
fn curl_over_http1_and_tls13() {
    curl_is_metered(&["--http1.1", "--tlsv1.3"]);
}

#[test]
fn curl_over_http2_and_tls12() {
    curl_is_metered(&["--http2", "--tls-max", "1.2"]);
}

#[test]
fn curl_over_http2_and_tls13() {
    curl_is_metered(&["--http2", "--tlsv1.3"]);
}

#[test]
fn curl_over_ipv4_and_over_ipv6() {
    curl_is_metered(&["-4"]);
    curl_is_metered(&["-6"]);
}

#[test]
fn a_large_download_is_counted_to_the_byte() {
    let metered = meter(|lab| curl(lab, &["-o", "/dev/null", "https://api.openai.com/bytes/20000000"]));
    let event = assert_exact(&metered, OPENAI, "sni");
    assert!(event.bytes_in.unwrap() > 20_000_000);
}

#[test]
fn a_large_upload_is_counted_to_the_byte() {
    let metered = meter(|lab| {
        let prompt = format!(r#"{{"max_tokens":1,"messages":[{{"content":"{}"}}]}}"#, "x".repeat(3_000_000));
        let file = lab.client_directory().join("prompt.json");
        std::fs::write(&file, prompt).unwrap();
        curl(lab, &["-o", "/dev/null", "-d", &format!("@{}", file.display()), CHAT])
    });
    let event = assert_exact(&metered, OPENAI, "sni");
    assert!(event.bytes_out.unwrap() > 3_000_000);
}

#[test]
fn several_requests_on_one_connection_are_one_event_with_as_many_exchanges() {
    let body = chat(20);
    let once = ["-d", body.as_str(), CHAT];
    let metered =
        meter(|lab| curl(lab, &[&["--http1.1"][..], &once, &["--next"], &once, &["--next"], &once].concat()));
    assert_eq!(metered.connections.len(), 1);
    let event = assert_exact(&metered, OPENAI, "sni");
    assert_eq!(event.exchanges, Some(3));
}

#[test]
fn the_event_names_the_user_who_ran_the_client() {
    let body = chat(5);
    let metered = meter(|lab| {
        let mut command = lab.client("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        command.args(["curl", "-sS", "-o", "/dev/null", "-d", &body, CHAT]);
        command
    });
    let event = assert_exact(&metered, OPENAI, "sni");
    assert_eq!(event.user_account.as_deref(), Some("nobody"));
}

#[test]
fn openssl_s_client() {
    for version in ["-tls1_2", "-tls1_3"] {
        let metered = meter(|lab| {
            let request = "GET /v1/models HTTP/1.1\r\nHost: api.openai.com\r\nConnection: close\r\n\r\n";
            s_client(lab, OPENAI, request, &[version])
        });
        assert!(metered.output.contains("200 OK"));
        let event = assert_exact(&metered, OPENAI, "sni");
        assert_eq!(event.application.as_deref(), Some("openssl"));
    }
}

#[test]
fn the_openai_sdk_streaming_and_not() {
    for mode in ["stream", "whole"] {
        // Long enough to be told from a whole reply by its flow.
        let metered = meter(|lab| python(lab, "openai_chat.py", &[mode, "500"]));
        assert_eq!(metered.output.trim(), "500");
        let event = assert_exact(&metered, OPENAI, "sni");
        assert_eq!(event.exchanges, Some(1));
        assert_eq!(event.streaming, Some(u64::from(mode == "stream")), "{event:#?}");
    }
}

#[test]
fn the_anthropic_sdk_streaming_and_not() {
    for mode in ["stream", "whole"] {
        let metered = meter(|lab| python(lab, "anthropic_message.py", &[mode, "60"]));
        assert_eq!(metered.output.trim(), "60");
        let event = assert_exact(&metered, ANTHROPIC, "sni");
        assert_eq!(event.provider.as_deref(), Some("anthropic"));
    }
}

#[test]
fn nodes_own_fetch() {
    let metered = meter(|lab| node(lab, "fetch.mjs", &[CHAT, "60"]));
    assert_eq!(metered.output.trim(), "60");
    assert_exact(&metered, OPENAI, "sni");
}

fn chromium_is_metered(arguments: &[&str]) {
    let mut scene = Scene::enter();
    let Some(mut command) = chromium(&scene.lab, "https://chatgpt.com/", arguments) else {
        eprintln!("SKIPPED: TOKTRA_NO_BROWSER is set");
        return;
    };
    let metered = scene.meter_leaving(&mut command).unwrap();
    assert!(metered.output.contains("Provider simulator"));
    assert_eq!(metered.events.len(), metered.connections.len(), "{metered:#?}");
    let (passed, counted) = (metered.bytes(), metered.event_bytes());
    assert!(counted <= passed && passed - counted <= IN_FLIGHT_BYTES, "{counted} of {passed}: {metered:#?}");
    // Chromium greases encrypted_client_hello, which an observer cannot tell from the real one.
    assert_names(&metered, "chatgpt.com", "ech_outer");
}

#[test]
fn chromium_over_tcp() {
    chromium_is_metered(&["--disable-quic"]);
}

#[test]
fn chromium_over_quic() {
    chromium_is_metered(&["--enable-quic", "--origin-to-force-quic-on=chatgpt.com:443"]);
}
