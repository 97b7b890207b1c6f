//! What `init` settled and every later command reads: `DIR/server.json`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use toktra_protocol::ToktraDomain;

/// Settings of a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The domain that the three hosts live under.
    pub domain: ToktraDomain,
}

/// Its file in the data directory.
pub const FILE: &str = "server.json";

impl Config {
    /// Whether a data directory has been initialised.
    pub fn exists(data: &Path) -> bool {
        data.join(FILE).exists()
    }

    /// Reads the settings.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("`{}` cannot be read; run `toktra-server init` first", path.display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is not valid", path.display()))
    }

    /// Writes the settings; refuses to overwrite.
    pub fn write(&self, data: &Path) -> anyhow::Result<()> {
        let path = data.join(FILE);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.sync_all()?;
        Ok(())
    }
}
