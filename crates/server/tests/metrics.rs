//! Metrics as an operator scrapes them from a running server, and the dashboard that is made of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A server that ends with the test.
struct Served {
    child: Child,
    metrics: String,
    _data: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(parent: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-server"));
    command.args(arguments).arg("--data").arg(parent.join("data"));
    command
}

/// A server of a small organisation, with a listener for metrics.
fn serve() -> Served {
    let data = tempfile::tempdir().unwrap();
    for arguments in [
        &["init", "--domain", "toktra.localhost", "--organisation", "Acme"][..],
        &["demo-data", "--days", "3", "--people", "9", "--devices", "14"],
    ] {
        let done = command(data.path(), arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let mut child = command(data.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = |what: &str| {
        let line = lines.next().unwrap().unwrap();
        line.strip_prefix(what).unwrap_or_else(|| panic!("`{line}` is not {what}…")).to_owned()
    };
    said("listening on ");
    let metrics = said("metrics on ");
    Served { child, metrics, _data: data }
}

impl Served {
    /// Status line and body of a request over plain HTTP.
    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.metrics).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        text
    }
}

/// The names of samples, as queries write them: counters end with `_total`.
fn names(text: &str) -> BTreeSet<String> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    kinds
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// Every word of a text that could be a name of ours.
fn ours(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("toktra_")).map(str::to_owned).collect()
}

/// The value of the first sample that begins so.
fn sample(text: &str, start: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no `{start}` in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_scrape_has_what_the_database_knows_in_the_form_of_the_format() {
    let served = serve();
    let text = served.metrics();
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "one end");
    assert_eq!(sample(&text, r#"toktra_devices{organisation="Acme",state="enrolled"}"#), 14.0);
    assert_eq!(sample(&text, r#"toktra_devices{organisation="Acme",state="revoked"}"#), 0.0);
    assert_eq!(sample(&text, r#"toktra_devices_waiting{organisation="Acme"}"#), 0.0);
    assert!(sample(&text, "toktra_database_bytes") > 100_000.0);
    let spent = |bound: &str| {
        sample(
            &text,
            &format!(
                r#"toktra_budget_spent{{organisation="Acme",budget="Research, monthly",unit="tokens",bound="{bound}"}}"#
            ),
        )
    };
    assert!(spent("low") <= spent("point") && spent("point") <= spent("high"));
    for person in ["ada.almeida", "thinkpad", "macbook", "@acme.example"] {
        assert!(!text.contains(person), "{person}");
    }
    assert_eq!(served.get("/healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    assert_eq!(served.get("/readyz"), ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));
    assert_eq!(served.get("/login").0, "HTTP/1.1 404 Not Found");
}

#[test]
fn every_name_is_documented_and_every_query_of_the_dashboard_has_one_that_is_there() {
    let there = names(&serve().metrics());
    let page = include_str!("../../../docs/server.md");
    let documented: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `toktra_"))
        .map(|rest| format!("toktra_{}", rest.split_once(['`', '{']).unwrap().0))
        .collect();
    assert_eq!(documented, there);
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../packaging/grafana/toktra.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut used = BTreeSet::new();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let names = ours(target["expr"].as_str().unwrap());
        assert!(!names.is_empty() && names.is_subset(&there), "{target}");
        used.extend(names);
    }
    let variables = dashboard["templating"]["list"].to_string();
    used.extend(ours(&variables));
    let unused: Vec<_> = there.difference(&used).collect();
    assert_eq!(unused, Vec::<&String>::new(), "of what nothing is shown");
}
