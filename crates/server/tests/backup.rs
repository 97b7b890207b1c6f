//! A backup that is taken while devices send, what a restore makes of it, and what neither accepts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::{Path, PathBuf};

use support::{Backend, Client, INGEST};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;
use toktra_protocol::{Batch, Code, Problem};

/// Runs a command to its end, in a directory that holds `data`, the passphrase and the backup.
async fn run(data: &Path, passphrase: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_toktra-server"))
        .args(arguments)
        .arg("--data")
        .arg(data)
        .arg("--passphrase-file")
        .arg(passphrase)
        .output()
        .await
        .unwrap();
    let said = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(said(output.stdout)) } else { Err(said(output.stderr)) }
}

/// A data directory that a server has used, its passphrase beside it, and a backup of it.
struct Saved {
    backend: Backend,
    parent: TempDir,
}

impl Saved {
    async fn new() -> Self {
        let saved = Self { backend: Backend::start().await, parent: tempfile::tempdir().unwrap() };
        run(saved.data(), &saved.passphrase(), &["backup", "--to", saved.backup().to_str().unwrap()])
            .await
            .unwrap();
        saved
    }

    fn data(&self) -> &Path {
        self.backend.data.path()
    }

    fn passphrase(&self) -> PathBuf {
        self.data().join("test.passphrase")
    }

    fn backup(&self) -> PathBuf {
        self.parent.path().join("backup")
    }

    /// Restores into a new directory, which a restore that fails must not have made usable.
    async fn refusal(&self) -> String {
        let new = self.parent.path().join("new");
        let refused = run(&new, &self.passphrase(), &["restore", "--from", self.backup().to_str().unwrap()])
            .await
            .unwrap_err();
        assert!(!new.join("server.json").exists(), "it passes for a data directory");
        let _ = std::fs::remove_dir_all(&new);
        refused
    }
}

#[tokio::test]
async fn a_backup_taken_while_devices_send_is_restored_and_they_go_on() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let config = backend.config_of(&device);
    let (progress, mut seen) = watch::channel(0);
    let (stop, stopping) = watch::channel(false);
    let mut client = backend.ingest(&device).await;
    let sending = tokio::spawn(async move {
        while !*stopping.borrow() {
            let next = *progress.borrow() + 1;
            progress.send_replace(client.book(next..next + 7).await.unwrap());
        }
    });
    let before = *seen.wait_for(|&last| last > 100).await.unwrap();

    let place = tempfile::tempdir().unwrap();
    let (backup, data) = (place.path().join("backup"), place.path().join("data"));
    let passphrase = place.path().join("passphrase");
    std::fs::copy(backend.data.path().join("test.passphrase"), &passphrase).unwrap();
    run(backend.data.path(), &passphrase, &["backup", "--to", backup.to_str().unwrap()]).await.unwrap();
    let after = *seen.borrow_and_update();
    seen.wait_for(|&last| last > after + 50).await.expect("the server goes on during and after a backup");
    stop.send_replace(true);
    sending.await.unwrap();
    drop(backend);

    let said = run(&data, &passphrase, &["restore", "--from", backup.to_str().unwrap()]).await.unwrap();
    assert!(said.contains("Restored") && !said.contains("does not open"), "{said}");
    let (mut server, address) = support::serve(&data, &passphrase).await;
    let mut client = Client::connect(address, INGEST, config).await;
    // The device has seen more acknowledged than the backup holds, and is told where to go on.
    let ahead = Batch { events: vec![support::usage(1_000_000)] };
    let refused = client.post_zstd(ahead.encode().unwrap()).await;
    let problem: Problem = serde_json::from_slice(&refused.body).unwrap();
    let held = problem.acknowledged.unwrap();
    assert_eq!(problem.code, Code::BatchOrder);
    assert!((before..=after + 7).contains(&held), "{before} before, {held} in the backup, {after} after");
    assert_eq!(client.book(held + 1..=held + 7).await, Ok(held + 7));
    drop(client);
    server.kill().await.unwrap();
    run(&data, &passphrase, &["check"]).await.expect("the ledger balances");
    run(&data, &passphrase, &["audit", "verify"]).await.expect("the chain holds");
}

#[tokio::test]
async fn what_is_no_backup_is_refused_and_nothing_is_made_of_it() {
    let saved = Saved::new().await;
    let backup = saved.backup();
    let description = std::fs::read_to_string(backup.join("backup.json")).unwrap();
    let describe = |from: &str, to: &str| {
        assert!(description.contains(from), "{description}");
        std::fs::write(backup.join("backup.json"), description.replacen(from, to, 1)).unwrap();
    };

    describe("\"format\": 1", "\"format\": 2");
    assert!(saved.refusal().await.contains("has format 2, this version reads 1"));
    describe("\"root.pem\"", "\"../root.pem\"");
    assert!(saved.refusal().await.contains("outside of the backup"));
    describe("\"toktra.db\"", "\"tiktok.db\"");
    assert!(saved.refusal().await.contains("names no `toktra.db`"));
    std::fs::write(backup.join("backup.json"), &description[..description.len() / 2]).unwrap();
    assert!(saved.refusal().await.contains("is damaged"));
    std::fs::write(backup.join("backup.json"), &description).unwrap();

    let database = backup.join("toktra.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&database, &bytes).unwrap();
    assert!(saved.refusal().await.contains("`toktra.db` is not as it was backed up"));
    std::fs::remove_file(backup.join("backup.json")).unwrap();
    assert!(saved.refusal().await.contains("that `backup` made to its end"));
    saved.backend.stop().await;
}

#[tokio::test]
async fn neither_overwrites_anything_and_no_backup_holds_what_opens_the_keys() {
    let saved = Saved::new().await;
    let backup = saved.backup();
    let again = run(saved.data(), &saved.passphrase(), &["backup", "--to", backup.to_str().unwrap()]).await;
    assert!(again.unwrap_err().contains("is not empty"));
    let over = run(saved.data(), &saved.passphrase(), &["restore", "--from", backup.to_str().unwrap()]).await;
    assert!(over.unwrap_err().contains("is not empty"));

    let secret = std::fs::read_to_string(saved.passphrase()).unwrap();
    let mut names = Vec::new();
    let mut directories = vec![backup.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(secret.trim().len()).any(|window| window == secret.trim().as_bytes()));
            names.push(path.strip_prefix(&backup).unwrap().to_str().unwrap().to_owned());
        }
    }
    assert!(names.contains(&"authority/devices.key".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("root.key") || name.contains("passphrase")), "{names:?}");
    saved.backend.stop().await;
}
