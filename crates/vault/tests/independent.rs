//! An independent implementation of HPKE (pyca/cryptography, on OpenSSL), which `scripts/setup test` puts
//! into the target directory's `venv`, opens what we seal, and we what it seals. Where it is not installed
//! the test says so; with `TOKTRA_REQUIRE_LINT=1`, as in `make test`, that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that says what it did not do"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use toktra_vault::{UserKey, open, seal};
use zeroize::Zeroizing;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn another_implementation_opens_what_we_seal_and_we_what_it_seals() {
    let test = std::env::current_exe().unwrap();
    let python = test.ancestors().nth(3).unwrap().join("venv/bin/python");
    let has_it = Command::new(&python).args(["-c", "import cryptography.hazmat.primitives.hpke"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        let message = format!("`{}` has no HPKE; run `scripts/setup test`", python.display());
        assert!(std::env::var_os("TOKTRA_REQUIRE_LINT").is_none(), "{message}");
        eprintln!("SKIPPED: {message}");
        return;
    }
    let entropy: [u8; 32] = std::array::from_fn(|at| at as u8 * 7 + 1);
    let key = UserKey::new(Zeroizing::new(entropy));
    let long = format!("{{\"host\":\"{}\"}}", "x".repeat(3000));
    for content in ["{}", &long] {
        let sealed = seal(&key.recipient(), content.as_bytes(), Zeroizing::new([9; 32])).unwrap();
        let mut child = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/open_sealed.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        write!(child.stdin.take().unwrap(), "{}\n{}\n", hex(&entropy), hex(&sealed)).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (opened, theirs) = said.trim_end().split_once('\n').unwrap();
        assert_eq!(opened, content);
        assert_eq!(open(&key, &bytes(theirs)).unwrap()[..], *b"{\"from\":\"python\"}");
    }
}
