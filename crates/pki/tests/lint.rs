//! An independent linter's opinion: pkilint (RFC 5280 and its successors), which `scripts/setup
//! test` puts into the target directory's `venv`, finds nothing to remark in any certificate or list
//! of ours, not even a notice, with one exception that is the linter's own: it knows nine URI schemes,
//! none of them `spiffe`. So a device's certificate is linted twice: as it is it must have that one
//! finding, and with another scheme of six letters in the same place none. Where it is not installed the test says so; with
//! `TOKTRA_REQUIRE_LINT=1`, as in `make test`, that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that says what it did not do"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use support::{HOST, House, device};
use toktra_pki::RevokedCertificate;
use toktra_pki::rotation::{Line, Step};

/// The directory of the linter's programs, if it is installed.
fn linters() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let programs = target.join("venv/bin");
    if programs.join("lint_pkix_cert").exists() {
        return Some(programs);
    }
    let message = format!("pkilint is not in `{}`; run `scripts/setup test`", programs.display());
    assert!(std::env::var_os("TOKTRA_REQUIRE_LINT").is_none(), "{message}");
    eprintln!("SKIPPED: {message}");
    None
}

fn findings(program: &Path, arguments: &[&Path]) -> Vec<String> {
    let output = Command::new(program).arg("lint").args(["-s", "NOTICE"]).args(arguments).output().unwrap();
    let said = support::said(&output);
    // Each finding is a line for where and an indented one for what.
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let found: Vec<_> = lines.map(str::to_owned).collect();
    assert_eq!(output.status.success(), found.is_empty(), "{said}");
    found
}

/// The same certificate under a scheme that the linter knows; it checks no signature.
fn under_another_scheme(certificate: &[u8]) -> Vec<u8> {
    let (ours, theirs) = (b"spiffe", b"telnet");
    let at = certificate.windows(ours.len()).position(|window| window == ours).unwrap();
    let mut changed = certificate.to_vec();
    changed[at..at + theirs.len()].copy_from_slice(theirs);
    changed
}

#[test]
fn pkilint_finds_nothing_in_roots_intermediates_server_ca_leaves_and_lists() {
    let Some(programs) = linters() else { return };
    let house = House::new();
    let root = CertificateDer::from_pem_slice(house.open().roots_pem().as_bytes()).unwrap();
    house.take_all(Line::Root, &[Step::Prepare, Step::Distribute, Step::Switch]);
    let authority = house.open();
    let next_root = CertificateDer::pem_slice_iter(authority.roots_pem().as_bytes()).nth(1).unwrap().unwrap();
    let made = device(&authority, 1, house.now);
    let devices: Vec<_> =
        CertificateDer::pem_slice_iter(made.chain_pem.as_bytes()).map(Result::unwrap).collect();
    let hosts = authority.issue_server(HOST, house.now).unwrap().chain;

    // Each with who issued it; the roots with themselves.
    let pairs = [
        ("root", &root, &root),
        ("next root", &next_root, &next_root),
        ("cross certificate", &root, &devices[2]),
        ("intermediate", &next_root, &devices[1]),
        ("device", &devices[1], &devices[0]),
        ("server CA", &next_root, &hosts[1]),
        ("host", &hosts[1], &hosts[0]),
    ];
    for (name, issuer, subject) in pairs {
        let file = house.write(&format!("{name}.der"), subject);
        let issuer = house.write(&format!("{name} issuer.der"), issuer);
        let certificate = programs.join("lint_pkix_cert");
        let mut found = findings(&certificate, &[&file]);
        if name == "device" {
            assert!(found.len() == 2 && found[1].starts_with("pkix.invalid_uri_syntax"), "{found:?}");
            found = findings(&certificate, &[&house.write("other.der", under_another_scheme(subject))]);
        }
        assert!(found.is_empty(), "{name}: {found:?}");
        let found = findings(&programs.join("lint_pkix_signer_signee_cert_chain"), &[&issuer, &file]);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    let entries = [RevokedCertificate { serial: made.serial, revoked_at: house.now }];
    for entries in [&entries[..], &[]] {
        let crl = authority.crl(&made.issuer, entries, 1, house.now).unwrap().unwrap();
        let path = house.write("list.crl", crl);
        let mut command = Command::new(programs.join("lint_crl"));
        let output =
            command.args(["lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE"]).arg(path).output().unwrap();
        let said = support::said(&output);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }
}
