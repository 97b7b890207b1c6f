//! Assembles ToktraAgent.app, with the system extension inside it, from the universal binaries and what
//! lies in `packaging/macos`, with an icon that is drawn; nothing is signed here. Equal inputs give equal trees.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::icon::icon;
use super::tree::Tree;

/// The app's identifier, and the domain of its preferences.
pub const APP_ID: &str = "com.toktra.agent";
/// The system extension's identifier, by which its directory and executable are named.
pub const EXTENSION_ID: &str = "com.toktra.agent.extension";
/// The extension's directory inside the app.
pub const EXTENSION: &str = "Contents/Library/SystemExtensions/com.toktra.agent.extension.systemextension";
/// The executable's place in the app.
pub const APP_EXECUTABLE: &str = "Contents/MacOS/ToktraAgent";
/// The executable's place in the extension.
pub const EXTENSION_EXECUTABLE: &str = "Contents/MacOS/com.toktra.agent.extension";
/// The app's icon, as its Info.plist names it.
pub const ICON: &str = "Contents/Resources/AppIcon.icns";
/// Where a bundle has its provisioning profile.
pub const PROFILE: &str = "Contents/embedded.provisionprofile";

/// What an app is made of.
pub struct Parts<'parts> {
    /// Universal binary of `toktra-agent`.
    pub agent: Vec<u8>,
    /// Universal binary of `toktra-extension`.
    pub extension: Vec<u8>,
    /// Apple's permission for the app's entitlements.
    pub agent_profile: Option<Vec<u8>>,
    /// Apple's permission for the extension's entitlements.
    pub extension_profile: Option<Vec<u8>>,
    /// Ten letters and digits.
    pub team_id: &'parts str,
    /// Three numbers.
    pub version: &'parts str,
}

/// The app's tree, below `ToktraAgent.app`.
pub fn assemble(packaging: &Path, parts: Parts<'_>) -> Result<Tree> {
    let values = [("TOKTRA_TEAM_ID", parts.team_id), ("TOKTRA_VERSION", parts.version)];
    let mut extension = Tree::default();
    extension.file("Contents/Info.plist", 0o644, filled(packaging, "extension/Info.plist", &values)?);
    extension.file(EXTENSION_EXECUTABLE, 0o755, parts.extension);
    if let Some(profile) = parts.extension_profile {
        extension.file(PROFILE, 0o644, profile);
    }

    let mut app = Tree::default();
    app.file("Contents/Info.plist", 0o644, filled(packaging, "app/Info.plist", &values)?);
    app.file("Contents/PkgInfo", 0o644, "APPL????");
    app.file(APP_EXECUTABLE, 0o755, parts.agent);
    app.file(ICON, 0o644, icon()?);
    app.file("Contents/Resources/uninstall", 0o755, filled(packaging, "app/uninstall", &[])?);
    if let Some(profile) = parts.agent_profile {
        app.file(PROFILE, 0o644, profile);
    }
    app.graft(EXTENSION, extension);
    Ok(app)
}

/// A file of `packaging/macos` with its `TOKTRA_…` placeholders replaced; one that has no value is an error.
pub fn filled(packaging: &Path, name: &str, values: &[(&str, &str)]) -> Result<String> {
    let path = packaging.join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = values.iter().fold(text, |text, (placeholder, value)| text.replace(placeholder, value));
    ensure!(!text.contains("TOKTRA_"), "{name} has a placeholder that nothing fills");
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code")]

    use super::*;

    fn packaging() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/macos")
    }

    fn parts() -> Parts<'static> {
        Parts {
            agent: b"agent".to_vec(),
            extension: b"extension".to_vec(),
            agent_profile: Some(b"profile".to_vec()),
            extension_profile: None,
            team_id: "ABCDE12345",
            version: "1.2.3",
        }
    }

    #[test]
    fn an_app_is_assembled_the_same_each_time_and_every_placeholder_is_filled() {
        let app = assemble(&packaging(), parts()).unwrap();
        assert_eq!(app, assemble(&packaging(), parts()).unwrap());
        let plist = app.content(&format!("{EXTENSION}/Contents/Info.plist")).unwrap();
        let plist = plist::Value::from_reader_xml(plist).unwrap();
        let network = plist.as_dictionary().unwrap()["NetworkExtension"].as_dictionary().unwrap();
        assert_eq!(network["NEMachServiceName"].as_string(), Some("ABCDE12345.com.toktra.agent.extension"));
        assert_eq!(app.content(PROFILE), Some(b"profile".as_slice()));
        assert_eq!(app.content(&format!("{EXTENSION}/{PROFILE}")), None);
    }

    #[test]
    fn a_placeholder_without_a_value_is_an_error() {
        assert!(filled(&packaging(), "app/entitlements.plist", &[]).is_err());
    }
}
