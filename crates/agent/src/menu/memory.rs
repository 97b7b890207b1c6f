//! What the user was told, across restarts of the menu: `announced.json` in a directory of ours within the
//! user's state (XDG Base Directory Specification; on macOS Application Support). Losing it repeats a notice,
//! no more.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toktra_menu::Announced;

/// Largest file that is read, in bytes.
const LIMIT: u64 = 64 * 1024;

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct Memory {
    path: Option<PathBuf>,
}

impl Memory {
    /// In the user's state directory; nowhere for one who has no home.
    pub fn of_user() -> Self {
        Self { path: directory().map(|directory| directory.join("announced.json")) }
    }

    /// What was told; nothing if it cannot be read.
    pub fn recall(&self) -> Announced {
        self.path.as_deref().and_then(|path| read(path).ok()).unwrap_or_default()
    }

    /// Keeps what was told.
    pub fn keep(&self, announced: &Announced) {
        if let Some(path) = &self.path
            && let Err(error) = write(path, announced)
        {
            tracing::warn!("What was announced is not remembered: {error:#}");
        }
    }
}

/// Where the menu keeps what it remembers of its user.
pub fn directory() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(target_os = "macos") {
        return absolute("HOME").map(|home| home.join("Library/Application Support/com.toktra.agent"));
    }
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("toktra"))
}

fn read(path: &Path) -> anyhow::Result<Announced> {
    anyhow::ensure!(path.metadata()?.len() <= LIMIT, "too large");
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn write(path: &Path, announced: &Announced) -> anyhow::Result<()> {
    let directory = path.parent().context("no directory")?;
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(announced)?)?;
    file.persist(path)?;
    Ok(())
}
