//! What is no provider's leaves no trace: in no table, no file, no log, not even a count of bytes.

#![allow(clippy::unwrap_used, reason = "test code")]

use toktra_testkit::lab::{NO_PROVIDER, PROXY_HOST};
use toktra_testkit::process::output;
use toktra_tests::clients::{chat, chromium, curl};
use toktra_tests::scene::Scene;

#[test]
fn a_connection_to_no_provider_leaves_no_trace() {
    let mut scene = Scene::enter();
    let url = format!("https://{NO_PROVIDER}/bytes/100000");
    for flags in [&["--http1.1"][..], &["--tls-max", "1.2"], &["-x", "http://proxy.example:8080"]] {
        output(&mut curl(&scene.lab, &[flags, &["-o", "/dev/null", &url]].concat())).unwrap();
    }
    // Without TLS, to a port that is watched; nobody answers it.
    let plain = format!("http://{NO_PROVIDER}:8080/");
    curl(&scene.lab, &["--max-time", "1", "-o", "/dev/null", &plain]).output().unwrap();
    if let Some(mut browser) = chromium(&scene.lab, &format!("https://{NO_PROVIDER}/"), &[]) {
        output(&mut browser).unwrap();
    }
    // A provider's connection after it shows that everything before it was seen through.
    let mut provider = curl(&scene.lab, &["-d", &chat(3), "https://api.openai.com/v1/chat/completions"]);
    let metered = scene.meter(&mut provider).unwrap();
    assert_eq!(metered.events.len(), 1, "{metered:#?}");
    assert_eq!(metered.event_bytes(), metered.bytes());

    // Open files and write-ahead logs included; once more after everything was closed.
    let suffix = "intranet";
    for text in [NO_PROVIDER, suffix, PROXY_HOST] {
        assert_eq!(scene.traces_of(text).unwrap(), Vec::<std::path::PathBuf>::new(), "a trace of {text}");
    }
    scene.stop().unwrap();
    assert_eq!(scene.traces_of(suffix).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn no_prompt_and_no_reply_is_in_any_file() {
    let mut scene = Scene::enter();
    scene.start_again().unwrap();
    let body = chat(3).replace("Say something.", "the-secret-prompt");
    let mut client = curl(&scene.lab, &["-d", &body, "https://api.openai.com/v1/chat/completions"]);
    let metered = scene.meter(&mut client).unwrap();
    assert!(metered.output.contains("chatcmpl-"));
    for text in ["the-secret-prompt", "chatcmpl-", "chat/completions", "text/event-stream"] {
        assert_eq!(scene.traces_of(text).unwrap(), Vec::<std::path::PathBuf>::new(), "a trace of {text}");
    }
}
