//! Personal mode, as a user has it: a backend that offers it to Ada, devices at which she sits, and what she does
//! there under names that nothing else has.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use toktra_testkit::installation::{DEPARTMENT, Installation};
use toktra_testkit::lab::Lab;
use toktra_testkit::member::Member;
use toktra_testkit::process::{output, until};

use crate::clients::chat;

/// The user.
pub const ADA: &str = "ada@acme.example";
/// Enough records that they are sent at once.
pub const RECORDS: usize = 18;
/// Bounds a failure, not a success.
const LIMIT: Duration = Duration::from_secs(120);
/// The simulator, which answers to any name.
pub const SIMULATOR: &str = "10.77.0.1";

/// Has the backend offer Ada personal mode.
pub fn offer(installation: &Installation) {
    for arguments in [
        &["user", "add", ADA, "--department", DEPARTMENT][..],
        &["flag", "set", "FF_TOKEN_PERKS", "on"],
        &["perks", "tier", "add", "Standard", "--monthly", "100000000"],
        &["perks", "enrol", ADA, "--tier", "Standard"],
    ] {
        installation.server(arguments).unwrap();
    }
}

/// A device of Ada's, at which she sits.
pub fn device(installation: &Installation) -> Member {
    let member = Member::join(installation, DEPARTMENT, &["--user", ADA]).unwrap();
    fs::write(member.lab.directory().join("seat"), "ACTIVE_UID=0\n").unwrap();
    until("the offer", LIMIT, || Ok((!member.status()?["personal"]["perks"].is_null()).then_some(())))
        .unwrap();
    member
}

/// What she is told of her month.
pub fn ledger(member: &Member) -> anyhow::Result<Value> {
    Ok(member.status()?["personal"]["ledger"].clone())
}

/// Her records, opened.
pub fn shown(member: &Member) -> Vec<Value> {
    let said = member.agent(&["personal", "show", "--json"]).unwrap();
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// curl under another name, by which the extension knows it.
pub fn named(lab: &Lab, name: &str) -> Command {
    let curl = output(Command::new("which").arg("curl")).unwrap();
    let program = lab.client_directory().join(name);
    if !program.exists() {
        fs::copy(fs::canonicalize(curl.trim()).unwrap(), &program).unwrap();
    }
    let mut command = lab.client(program.to_str().unwrap());
    command.args(["-sS", "--fail", "--max-time", "60", "-o", "/dev/null", "--cacert"]);
    command.arg(lab.root_certificate());
    command
}

/// What she uses, and what she writes there.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// The program.
    pub program: &'static str,
    /// The host, of a provider that has any number of them.
    pub host: &'static str,
    /// The prompt.
    pub prompt: &'static str,
}

impl Own {
    /// Turns personal mode on, and uses it until her records are in the vault. Returns them.
    pub fn record(&self, member: &Member) -> Vec<Value> {
        member.agent(&["personal", "on"]).unwrap();
        until("the mode in force", LIMIT, || Ok((ledger(member)?["taken_up"] == true).then_some(())))
            .unwrap();
        for _ in 0..RECORDS {
            self.talk(&member.lab);
        }
        // Sixteen go at once, and what comes after them waits for others.
        let own = until("the records in the vault", LIMIT, || {
            let own = shown(member);
            let is_there = own.len() >= RECORDS && ledger(member)?["waiting"].as_u64() <= Some(2);
            Ok(is_there.then_some(own))
        })
        .unwrap();
        for entry in &own {
            let usage = &entry["usage"];
            assert_eq!((&usage["application"], &usage["host"]), (&self.program.into(), &self.host.into()));
        }
        own
    }

    /// One connection.
    fn talk(&self, lab: &Lab) {
        let body = chat(300).replace("Say something.", self.prompt);
        assert!(body.contains(self.prompt));
        let mut client = named(lab, self.program);
        client.arg("--resolve").arg(format!("{}:443:{SIMULATOR}", self.host));
        output(client.arg("-d").arg(body).arg(format!("https://{}/v1/chat/completions", self.host))).unwrap();
    }
}

/// The identifier of a record, which nothing else has.
pub fn id(entry: &Value) -> &str {
    entry["id"].as_str().unwrap()
}
