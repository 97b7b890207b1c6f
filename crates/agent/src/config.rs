//! What an administrator configures: on Linux `/etc/toktra/agent.toml`, read whole, unknown keys refused, and
//! the enrolment token taken out of it once it was used; on macOS the preferences `com.toktra.agent`, where
//! what a profile forces wins.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use toktra_mac::preferences::Preferences;
use toktra_protocol::ToktraDomain;
use toktra_protocol::privacy::Window;
use zeroize::Zeroizing;

/// Where the configuration is on Linux unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/toktra/agent.toml";
/// Largest configuration file, in bytes.
const LIMIT: u64 = 64 * 1024;
const MIB: u64 = 1024 * 1024;

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In this file.
    File(PathBuf),
    /// In the system's preferences, of macOS.
    Preferences,
}

/// What an administrator configures.
#[derive(Clone, Default, PartialEq, Deserialize)]
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
    /// Remote ports to watch beside 443. On Linux the extension's own command line says.
    #[serde(skip)]
    pub ports: Vec<u16>,
    /// A profile forces some of it, and so brings the content filter too.
    #[serde(skip)]
    pub managed: bool,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("domain", &self.domain).field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl Default for Source {
    fn default() -> Self {
        if cfg!(target_os = "macos") { Self::Preferences } else { Self::File(DEFAULT_PATH.into()) }
    }
}

impl Source {
    /// What is configured now.
    pub fn read(&self) -> anyhow::Result<Config> {
        match self {
            Self::File(path) => Config::read(path),
            Self::Preferences => Config::from_preferences(&preferences()),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Preferences => write!(f, "the preferences {}", toktra_mac::preferences::DOMAIN),
        }
    }
}

/// The keys of the file.
const FILE_KEYS: [&str; 7] = [
    "domain",
    "token",
    "ca",
    "spool_limit_mib",
    "privacy_hours_start",
    "privacy_hours_end",
    "privacy_hours_days",
];

/// The preferences that are read.
#[cfg(target_os = "macos")]
const KEYS: [&str; 8] = [
    "ToktraDomain",
    "ToktraToken",
    "CertificateAuthority",
    "SpoolLimitMiB",
    "PrivacyHoursStart",
    "PrivacyHoursEnd",
    "PrivacyHoursDays",
    "Ports",
];

#[cfg(target_os = "macos")]
fn preferences() -> Preferences {
    toktra_mac::read(&KEYS)
}

/// No other system has them.
#[cfg(not(target_os = "macos"))]
fn preferences() -> Preferences {
    Preferences::default()
}

impl Config {
    /// Reads the file; a missing one is empty.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let Some(text) = read_text(path)? else { return Ok(Self::default()) };
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // The parser would quote the line, which may hold the token.
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("line {line}: {}", without_quotes(error.message()))
        })?;
        config.checked()
    }

    /// Out of preferences: `ToktraDomain` and the keys beside it (`docs/macos.md`).
    pub fn from_preferences(preferences: &Preferences) -> anyhow::Result<Self> {
        let text = |key| preferences.text(key).map(|text| text.map(str::to_owned));
        let domain = text("ToktraDomain")?.map(|domain| {
            domain.parse().with_context(|| format!("the preference `ToktraDomain` (`{domain}`) is no domain"))
        });
        let port = |port: i64| {
            u16::try_from(port).ok().filter(|&port| port > 0).with_context(|| {
                format!("the preference `Ports` holds {port}, which is no port: they lie between 1 and 65535")
            })
        };
        let limit = preferences.whole("SpoolLimitMiB")?;
        let config = Self {
            domain: domain.transpose()?,
            token: text("ToktraToken")?,
            ca: text("CertificateAuthority")?.map(PathBuf::from),
            spool_limit_mib: limit.map(|limit| u64::try_from(limit).unwrap_or(0)),
            privacy_hours_start: text("PrivacyHoursStart")?,
            privacy_hours_end: text("PrivacyHoursEnd")?,
            privacy_hours_days: text("PrivacyHoursDays")?,
            ports: preferences.wholes("Ports")?.into_iter().map(port).collect::<anyhow::Result<_>>()?,
            managed: preferences.are_managed(),
        };
        config.checked()
    }

    fn checked(self) -> anyhow::Result<Self> {
        if self.spool_limit_mib.is_some_and(|limit| !(8..=4096).contains(&limit)) {
            bail!("`spool_limit_mib` (`SpoolLimitMiB`) must lie between 8 and 4096");
        }
        self.privacy_hours()?;
        Ok(self)
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

/// What a parser says, but for what it quotes: a token without its quotes is a number or a key to it. The names
/// of our own keys stay, and signs.
fn without_quotes(message: &str) -> String {
    let (mut said, mut rest) = (String::new(), message);
    while let Some(start) = rest.find(['`', '"']) {
        let (before, quoted) = rest.split_at(start);
        let (sign, quoted) = quoted.split_at(1);
        let mut escaped = false;
        let mut ends = quoted.match_indices(|char: char| {
            let ends = !escaped && char.to_string() == sign;
            escaped = sign == "\"" && char == '\\' && !escaped;
            ends
        });
        // A key may hold a backtick itself.
        let is_end = |at: usize| !quoted[at + 1..].starts_with(|next: char| !", ):".contains(next));
        let end = ends.find(|(at, _)| is_end(*at)).map_or(quoted.len(), |(at, _)| at);
        let word = &quoted[..end];
        let is_ours = FILE_KEYS.contains(&word) || !word.contains(char::is_alphanumeric);
        said += &format!("{before}{sign}{}{sign}", if is_ours { word } else { "…" });
        rest = quoted.get(end + 1..).unwrap_or_default();
    }
    said + rest
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
        // However somebody got the line of the token wrong. One of only digits is a number without its quotes.
        for secret in ["8675309867530986753", "tqr7secret", "1.75e300", "-4711", "inf", "2026-11-28"] {
            for line in [
                "token = X",
                "token = [X]",
                "token = [\"X\"]",
                "token = { value = \"X\" }",
                "token = 'X",
                "token = \"X",
                "token = \"X\" X",
                "token = \"\\X\"",
                "token \"X\"",
                "token: \"X\"",
                "token.X = 1",
                "[token]\nX = 1",
                "[[token]]\n\"X\" = 1",
                "token == \"X\"",
                "X",
                "\"X\"",
                "X = \"\"",
                "\"token X\" = 1",
                "token = \"X\"\ntoken = \"X\"",
                "spool_limit_mib = \"X\"\ntoken = X",
            ] {
                let text = line.replace('X', secret);
                let Err(error) = Config::parse(&text) else { continue };
                let error = format!("{error:#}");
                assert!(error.starts_with("line ") && !error.contains(secret), "{text}: {error}");
            }
        }
        let misspelt = Config::parse("domian = \"a.b\"").unwrap_err().to_string();
        assert!(misspelt.contains("`domain`"), "{misspelt}");
        assert!(Config::parse("domain = \"https://a.b\"").is_err());
        assert!(Config::parse("spool_limit_mib = 1").is_err());
    }

    #[test]
    fn preferences_are_the_same_configuration_and_their_mistakes_are_named_without_the_token() {
        use toktra_mac::preferences::{Preference, Value};
        let read = |set: &[(&str, Value)]| {
            let set = set.iter().map(|(key, value)| {
                ((*key).to_owned(), Preference { value: value.clone(), forced: *key == "ToktraDomain" })
            });
            Config::from_preferences(&Preferences::new(set))
        };
        let text = |text: &str| Value::Text(text.into());
        let config = read(&[
            ("ToktraDomain", text("Acme.example")),
            ("ToktraToken", text("secret")),
            ("PrivacyHoursStart", text("18:00")),
            ("PrivacyHoursEnd", text("09:00")),
            ("SpoolLimitMiB", Value::Whole(64)),
            ("Ports", Value::List(vec![Value::Whole(8443)])),
        ])
        .unwrap();
        assert_eq!(config.domain.as_ref().unwrap().to_string(), "acme.example");
        assert_eq!(
            (config.token.as_deref(), &config.ports[..], config.managed),
            (Some("secret"), &[8443][..], true)
        );
        assert_eq!(config.privacy_hours().unwrap().unwrap().to_string(), "18:00-09:00");
        assert!(read(&[]).unwrap() == Config::default());
        for (set, said) in [
            (vec![("ToktraDomain", text("https://acme.example"))], "`ToktraDomain`"),
            (vec![("ToktraDomain", Value::Whole(1))], "`ToktraDomain` is not a string"),
            (vec![("PrivacyHoursStart", text("18:00"))], "both"),
            (vec![("PrivacyHoursStart", text("6pm")), ("PrivacyHoursEnd", text("09:00"))], "HH:MM"),
            (vec![("SpoolLimitMiB", Value::Whole(-1))], "between 8 and 4096"),
            (vec![("Ports", Value::List(vec![Value::Whole(70_000)]))], "70000"),
            (vec![("Ports", text("8443"))], "array"),
        ] {
            let set = [&set[..], &[("ToktraToken", text("secret"))]].concat();
            let error = format!("{:#}", read(&set).unwrap_err());
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
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
