//! The "Never" rules of `ARCHITECTURE.md`, checked against what cargo resolves and what the
//! sources say. Only dependencies that ship count: dev-dependencies are free.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const CORES: [&str; 8] = [
    "toktra-hello",
    "toktra-catalog",
    "toktra-meter",
    "toktra-policy",
    "toktra-engine",
    "toktra-protocol",
    "toktra-menu",
    "toktra-vault",
];
const ADAPTERS: [&str; 3] = ["toktra-capture-linux", "toktra-capture-macos", "toktra-capture-pcap"];
/// What ships: the systems for which the tree is resolved.
const SYSTEMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin"];
/// Where `unsafe` may be: the edges to a kernel and to a system's frameworks.
const EDGES: [&str; 6] = [
    "crates/capture-linux",
    "crates/capture-macos/src/log.rs",
    "crates/capture-macos/src/people.rs",
    "crates/capture-macos/src/provider.rs",
    "crates/mac/src/macos",
    "crates/peer/src/macos.rs",
];
const RUNTIMES: [&str; 5] = ["tokio", "sqlx", "hyper", "axum", "rustls"];

/// What each package of the tree depends on when it is built to ship, directly.
struct Tree {
    direct: BTreeMap<String, BTreeSet<String>>,
}

impl Tree {
    /// On each system.
    fn resolved() -> [Self; 2] {
        SYSTEMS.map(Self::resolved_for)
    }

    fn resolved_for(system: &str) -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--filter-platform", system])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let names: BTreeMap<&str, &str> = metadata["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
            .collect();
        let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().unwrap() {
            let entry = direct.entry(names[node["id"].as_str().unwrap()].to_owned()).or_default();
            for dependency in node["deps"].as_array().unwrap() {
                let ships = |kind: &Value| kind["kind"].is_null();
                if dependency["dep_kinds"].as_array().unwrap().iter().any(ships) {
                    entry.insert(names[dependency["pkg"].as_str().unwrap()].to_owned());
                }
            }
        }
        Self { direct }
    }

    fn all_of(&self, package: &str) -> BTreeSet<String> {
        assert!(self.direct.contains_key(package), "there is no package {package}");
        let (mut seen, mut open) = (BTreeSet::new(), vec![package]);
        while let Some(one) = open.pop() {
            for next in self.direct.get(one).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        seen
    }

    fn assert_free_of(&self, package: &str, banned: &[&str]) {
        let found: Vec<String> =
            self.all_of(package).into_iter().filter(|one| banned.contains(&one.as_str())).collect();
        assert!(found.is_empty(), "{package} must never depend on {found:?}: see ARCHITECTURE.md");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust source below `crates/`, `tests/` and `benches/`, without build output.
fn sources() -> Vec<(PathBuf, String)> {
    let mut open: Vec<PathBuf> = ["crates", "tests", "benches"].map(|folder| root().join(folder)).into();
    let mut found = Vec::new();
    while let Some(place) = open.pop() {
        if place.is_dir() {
            open.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        } else if place.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&place).unwrap();
            found.push((place.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
    found
}

#[test]
fn a_core_depends_on_no_adapter_no_runtime_and_no_database() {
    for tree in Tree::resolved() {
        for core in CORES {
            tree.assert_free_of(core, &ADAPTERS);
            tree.assert_free_of(core, &RUNTIMES);
        }
    }
}

#[test]
fn a_core_reads_no_clock_and_starts_no_thread() {
    let banned = ["Instant::now(", "SystemTime::now(", "thread::spawn(", "std::net::Tcp", "std::fs::"];
    for (path, text) in sources() {
        let is_core = CORES.iter().any(|core| {
            path.starts_with(Path::new("crates").join(core.trim_start_matches("toktra-")).join("src"))
        });
        let shipped = text.split("#[cfg(test)]").next().unwrap();
        for word in banned.iter().filter(|_| is_core) {
            assert!(!shipped.contains(word), "{} uses {word}: time comes in as an argument", path.display());
        }
    }
}

#[test]
fn the_extension_has_no_key_no_spool_no_tls_and_no_runtime() {
    for tree in Tree::resolved() {
        let rooms = ["toktra-identity", "toktra-spool", "toktra-store", "toktra-pki"];
        tree.assert_free_of("toktra-extension", &rooms);
        let libraries = ["rustls", "tokio-rustls", "hyper", "tokio", "ring", "rcgen", "objc2-app-kit"];
        tree.assert_free_of("toktra-extension", &libraries);
    }
}

#[test]
fn the_agent_sees_no_packet() {
    for tree in Tree::resolved() {
        tree.assert_free_of("toktra-agent", &ADAPTERS);
        tree.assert_free_of("toktra-agent", &["aya", "toktra-engine", "toktra-hello", "toktra-store"]);
    }
}

#[test]
fn only_the_menu_and_the_users_keyring_speak_d_bus() {
    for (path, text) in sources() {
        let speaks = ["zbus::", "ksni::"].iter().any(|word| text.contains(word));
        let may = [
            "crates/agent/src/menu.rs",
            "crates/agent/src/menu",
            "crates/agent/src/keyring",
            "crates/agent/tests/keyring.rs",
            "crates/agent/tests/menu",
            "tests/tests",
        ]
        .iter()
        .any(|place| path.starts_with(place));
        assert!(may || !speaks, "{} speaks D-Bus: only the menu and the keyring may", path.display());
    }
}

#[test]
fn sql_stays_in_the_two_stores() {
    let trees = Tree::resolved();
    for (package, dependencies) in trees.iter().flat_map(|tree| &tree.direct) {
        let is_store = ["toktra-store", "toktra-vault-store"].contains(&package.as_str());
        if package.starts_with("toktra-") && !is_store {
            assert!(!dependencies.contains("sqlx"), "{package} depends on sqlx: SQL lives in the stores");
        }
    }
    for tree in &trees {
        tree.assert_free_of("toktra-vault-store", &["toktra-store"]);
        tree.assert_free_of("toktra-store", &["toktra-vault-store"]);
    }
}

/// What a console shows cannot come from where nobody but the vault's endpoints can look.
#[test]
fn only_the_servers_vault_module_opens_the_vault() {
    let trees = Tree::resolved();
    for (package, dependencies) in trees.iter().flat_map(|tree| &tree.direct) {
        // The chore reads the dictionary for docs/data.md, and opens nothing.
        let may = ["toktra-server", "xtask"].contains(&package.as_str());
        assert!(
            may || !dependencies.contains("toktra-vault-store"),
            "{package} depends on the vault's store"
        );
    }
    let within = |path: &Path, places: &[&str]| places.iter().any(|place| path.starts_with(place));
    for (path, text) in sources() {
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        let store = within(
            &path,
            &["crates/vault-store", "crates/server/src/vault.rs", "crates/server/src/vault", "crates/xtask"],
        );
        assert!(
            is_test || store || !text.contains("toktra_vault_store"),
            "{} names the vault's store: only the server's vault module may",
            path.display()
        );
        let opens = text.contains("toktra_vault_store::VaultStore") || text.contains("VaultStore::open");
        assert!(!path.starts_with("crates/xtask") || !opens, "a chore opens the vault");
        let module = within(
            &path,
            &[
                "crates/server/src/vault.rs",
                "crates/server/src/vault",
                "crates/server/src/serve.rs",
                "crates/server/src/commands/backup.rs",
            ],
        );
        let names = ["crate::vault", "super::vault", "vault::"].iter().any(|word| text.contains(word));
        let of_server = path.starts_with("crates/server/src");
        assert!(
            !of_server || module || !names,
            "{} names the vault's module: only the listener and the backup may",
            path.display()
        );
    }
}

#[test]
fn nothing_that_ships_depends_on_the_testkit() {
    let trees = Tree::resolved();
    for (tree, package) in trees
        .iter()
        .flat_map(|tree| ["toktra-agent", "toktra-extension", "toktra-server"].map(|one| (tree, one)))
    {
        tree.assert_free_of(package, &["toktra-testkit", "toktra-tests", "toktra-benches"]);
    }
}

#[test]
fn only_the_edges_to_a_system_lift_the_ban_on_unsafe() {
    for (path, text) in sources() {
        let lifts = ["allow", "expect"].iter().any(|word| text.contains(&format!("({word}(unsafe_code")))
            || ["allow", "expect"].iter().any(|word| text.contains(&format!("[{word}(unsafe_code")));
        let may = EDGES.iter().any(|edge| path.starts_with(edge)) || path.ends_with("architecture.rs");
        assert!(may || !lifts, "{} lifts the ban on unsafe", path.display());
    }
}
