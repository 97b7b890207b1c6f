//! `/etc/toktra/agent.toml`: read whole, unknown keys refused. The enrolment token is taken
//! out of it once it was used.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use toktra_protocol::ToktraDomain;
use toktra_protocol::privacy::Window;
use zeroize::Zeroizing;

/// Where the configuration is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/toktra/agent.toml";
/// Largest configuration file, in bytes.
const LIMIT: u64 = 64 * 1024;
const MIB: u64 = 1024 * 1024;

/// What an administrator configures.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The backend's domain.
    pub domain: Option<ToktraDomain>,
    /// One-time enrolment token. Secret: this type's `Debug` leaves it out.
    pub token: Option<String>,
    /// PEM file of the authorities to trust instead of the machine's own.
    pub ca: Option<PathBuf>,
    /// Most that the spool may take on disk, in MiB.
    pub spool_limit_mib: Option<u64>,
    /// When the administrator's privacy hours begin, `HH:MM` by the clock on the wall (`PrivacyHoursStart`).
    pub privacy_hours_start: Option<String>,
    /// When they end (`PrivacyHoursEnd`).
    pub privacy_hours_end: Option<String>,
    /// On which days they begin, as `mon-fri`; on every day unless given.
    pub privacy_hours_days: Option<String>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("domain", &self.domain).field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the file; a missing one is empty.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let Some(text) = read_text(path)? else { return Ok(Self::default()) };
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // The parser's own message would quote the line, which may hold the token.
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("line {line}: {}", error.message())
        })?;
        if config.spool_limit_mib.is_some_and(|limit| !(8..=4096).contains(&limit)) {
            bail!("`spool_limit_mib` must lie between 8 and 4096");
        }
        config.privacy_hours()?;
        Ok(config)
    }

    /// The administrator's privacy hours.
    pub fn privacy_hours(&self) -> anyhow::Result<Option<Window>> {
        let days = self.privacy_hours_days.as_deref();
        match (&self.privacy_hours_start, &self.privacy_hours_end) {
            (Some(start), Some(end)) => Window::new(days, start, end).map(Some).map_err(|error| {
                anyhow::anyhow!("`privacy_hours_start`, `_end` and `_days` make no window: {error}")
            }),
            (None, None) if days.is_none() => Ok(None),
            _ => bail!("`privacy_hours_start` and `privacy_hours_end` must both be given"),
        }
    }

    /// The spool's limits.
    pub fn spool_limits(&self) -> toktra_spool::Limits {
        let default = toktra_spool::Limits::default();
        let total_bytes = self.spool_limit_mib.map_or(default.total_bytes, |limit| limit * MIB);
        toktra_spool::Limits { total_bytes, ..default }
    }
}

/// Takes the token out of the file, which keeps its mode and owner. True if there was one.
pub fn remove_token(path: &Path) -> anyhow::Result<bool> {
    let Some(text) = read_text(path)? else { return Ok(false) };
    if Config::parse(&text)?.token.is_none() {
        return Ok(false);
    }
    let is_token = |line: &str| {
        line.trim_start().strip_prefix("token").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let rest: Zeroizing<String> =
        Zeroizing::new(text.split_inclusive('\n').filter(|line| !is_token(line)).collect());
    if Config::parse(&rest)?.token.is_some() {
        bail!("cannot take the used token out of {}; delete it by hand", path.display());
    }
    replace(path, rest.as_bytes()).with_context(|| {
        format!(
            "cannot take the used token out of {}; run the command as root, or delete it by hand",
            path.display()
        )
    })?;
    Ok(true)
}

fn read_text(path: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > LIMIT => bail!("{} exceeds {LIMIT} bytes", path.display()),
        _ => {}
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(Zeroizing::new(text)))
}

fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let metadata = path.metadata()?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(content)?;
    std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.as_file().set_permissions(metadata.permissions())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_goes_and_everything_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let rest = "# A comment about the token = \"x\"\ndomain = \"acme.example\"\n";
        std::fs::write(&path, format!("{rest}  token  = \"secret\" # once\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(remove_token(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), rest);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!remove_token(&path).unwrap());
    }

    #[test]
    fn a_token_in_a_form_that_is_not_understood_is_left_and_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(&path, "\"token\" = \"secret\"\n").unwrap();
        let error = remove_token(&path).unwrap_err();
        assert!(error.to_string().contains("delete it by hand"), "{error}");
    }

    #[test]
    fn mistakes_are_named_by_line_and_never_quote_the_token() {
        let error = format!("{:#}", Config::parse("domain = \"a.b\"\ntoken = \"secret\" x\n").unwrap_err());
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
        assert!(Config::parse("domian = \"a.b\"").is_err());
        assert!(Config::parse("domain = \"https://a.b\"").is_err());
        assert!(Config::parse("spool_limit_mib = 1").is_err());
    }

    #[test]
    fn the_administrators_privacy_hours_are_one_window_or_a_clear_error() {
        let hours = |text: &str| Config::parse(text).and_then(|config| config.privacy_hours());
        let nights = "privacy_hours_start = \"18:00\"\nprivacy_hours_end = \"09:00\"\n";
        assert_eq!(hours(nights).unwrap().unwrap().to_string(), "18:00-09:00");
        let weekdays = format!("{nights}privacy_hours_days = \"mon-fri\"\n");
        assert_eq!(hours(&weekdays).unwrap().unwrap().to_string(), "mon-fri 18:00-09:00");
        assert!(hours("").unwrap().is_none());
        for (text, said) in [
            ("privacy_hours_start = \"18:00\"", "both"),
            ("privacy_hours_days = \"mon\"", "both"),
            ("privacy_hours_start = \"6pm\"\nprivacy_hours_end = \"09:00\"", "HH:MM"),
            ("privacy_hours_start = \"18:00\"\nprivacy_hours_end = \"18:00\"", "00:00-24:00"),
        ] {
            let error = hours(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_empty() {
        let config = Config::read(Path::new("/nonexistent/agent.toml")).unwrap();
        assert!(config.domain.is_none() && config.token.is_none());
    }
}
