//! Profiles: Apple's provisioning profile in each bundle, which must cover what the bundle's entitlements
//! ask for, and the MDM profile, whose payloads must have the keys that macOS requires and name our bundles.
//! Sources: "TN3125: Inside Code Signing: Provisioning Profiles" and "Device Management: Profile-Specific
//! Payload Keys" of Apple's documentation.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use plist::{Dictionary, Value};

use super::{APP, Artefacts, Bundle, Check, Findings, MOBILECONFIG};
use crate::macos::bundle::{APP_ID, EXTENSION_ID, PROFILE};

/// Payload types that the MDM profile must have, and the keys that each needs for us.
const PAYLOADS: [(&str, &[&str]); 4] = [
    (
        "com.apple.system-extension-policy",
        &["AllowedSystemExtensions", "NonRemovableFromUISystemExtensions", "RemovableSystemExtensions"],
    ),
    (
        "com.apple.webcontent-filter",
        &[
            "FilterType",
            "UserDefinedName",
            "PluginBundleID",
            "FilterDataProviderBundleIdentifier",
            "FilterDataProviderDesignatedRequirement",
            "FilterSockets",
            "FilterGrade",
        ],
    ),
    ("com.apple.servicemanagement", &["Rules"]),
    (APP_ID, &["ToktraDomain", "ToktraToken", "PrivacyHoursStart", "PrivacyHoursEnd"]),
];
/// Keys of the profile and of every payload.
const COMMON: [&str; 4] = ["PayloadType", "PayloadIdentifier", "PayloadUUID", "PayloadVersion"];

/// Whether a bundle's provisioning profile allows its entitlements.
pub fn covers(bundle: &Bundle<'_>, artefacts: &Artefacts, findings: &mut Findings) {
    let mut wrong = |what: String| findings.add(Check::Profile, format!("{}: {what}", bundle.id));
    let Some(profile) = bundle.content(PROFILE) else {
        if artefacts.has_profiles {
            wrong("no provisioning profile".into());
        }
        return;
    };
    let Some(profile) = plist_inside(profile) else {
        return wrong("its provisioning profile cannot be read".into());
    };
    let teams = profile.get("TeamIdentifier").and_then(Value::as_array);
    if !teams.is_some_and(|teams| teams.iter().any(|team| team.as_string() == Some(&artefacts.team_id))) {
        wrong(format!("its provisioning profile is not for the team {}", artefacts.team_id));
    }
    let allowed = profile.get("Entitlements").and_then(Value::as_dictionary);
    let asked = bundle.content(bundle.executable).and_then(super::signature::entitlements_of);
    for (name, value) in asked.iter().flat_map(Dictionary::iter) {
        if !allowed.and_then(|allowed| allowed.get(name)).is_some_and(|allowed| covers_value(allowed, value))
        {
            wrong(format!("its provisioning profile does not allow {name}"));
        }
    }
}

/// A profile is a signed message around a property list.
fn plist_inside(profile: &[u8]) -> Option<Dictionary> {
    let find = |needle: &[u8]| profile.windows(needle.len()).position(|bytes| bytes == needle);
    let (start, end) = (find(b"<?xml")?, find(b"</plist>")? + b"</plist>".len());
    Value::from_reader_xml(profile.get(start..end)?).ok()?.into_dictionary()
}

/// A text may end in a wildcard; of a list each part must be allowed.
fn covers_value(allowed: &Value, asked: &Value) -> bool {
    match (allowed, asked) {
        (Value::String(allowed), Value::String(asked)) => match allowed.strip_suffix('*') {
            Some(beginning) => asked.starts_with(beginning),
            None => allowed == asked,
        },
        (Value::Array(allowed), Value::Array(asked)) => {
            asked.iter().all(|asked| allowed.iter().any(|allowed| covers_value(allowed, asked)))
        }
        _ => allowed == asked,
    }
}

/// Checks the MDM profile's template.
pub fn mobileconfig(artefacts: &Artefacts, findings: &mut Findings) -> Result<()> {
    let path = artefacts.directory.join(MOBILECONFIG);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for problem in mobileconfig_problems(&text) {
        findings.add(Check::MobileConfig, problem);
    }
    Ok(())
}

fn mobileconfig_problems(text: &str) -> Vec<String> {
    let Ok(Value::Dictionary(profile)) = Value::from_reader_xml(text.as_bytes()) else {
        return vec!["not a property list".into()];
    };
    let mut problems = Vec::new();
    let payloads: Vec<&Dictionary> = profile
        .get("PayloadContent")
        .and_then(Value::as_array)
        .map(|payloads| payloads.iter().filter_map(Value::as_dictionary).collect())
        .unwrap_or_default();
    let mut identifiers = BTreeSet::new();
    for part in payloads.iter().copied().chain([&profile]) {
        let kind = text_of(part, "PayloadType").unwrap_or("a payload without a type");
        problems.extend(missing(part, &COMMON).map(|key| format!("{kind}: {key} is missing")));
        for key in ["PayloadIdentifier", "PayloadUUID"] {
            if !text_of(part, key).is_some_and(|value| identifiers.insert(value)) {
                problems.push(format!("{kind}: {key} is not its own"));
            }
        }
    }
    if text_of(&profile, "PayloadType") != Some("Configuration") {
        problems.push("PayloadType is not Configuration".into());
    }
    if text_of(&profile, "PayloadScope") != Some("System") {
        problems.push("PayloadScope is not System: the extension could not be allowed".into());
    }
    for (kind, keys) in PAYLOADS {
        match payloads.iter().find(|payload| text_of(payload, "PayloadType") == Some(kind)) {
            Some(payload) => {
                problems.extend(missing(payload, keys).map(|key| format!("{kind}: {key} is missing")));
                problems.extend(about_us(kind, payload));
            }
            None => problems.push(format!("no payload {kind}")),
        }
    }
    problems
}

/// Whether a payload names our bundles and leaves the team open.
fn about_us(kind: &str, payload: &Dictionary) -> Vec<String> {
    const TEAM: &str = "TOKTRA_TEAM_ID";
    let requirement = format!("identifier \"{EXTENSION_ID}\" and anchor apple generic");
    let holds = match kind {
        "com.apple.system-extension-policy" => {
            let ours = Value::Array(vec![EXTENSION_ID.into()]);
            payload.iter().filter(|(key, _)| key.ends_with("SystemExtensions")).all(|(_, teams)| {
                teams.as_dictionary().is_some_and(|teams| teams.len() == 1 && teams.get(TEAM) == Some(&ours))
            })
        }
        "com.apple.webcontent-filter" => {
            text_of(payload, "FilterType") == Some("Plugin")
                && text_of(payload, "PluginBundleID") == Some(APP_ID)
                && text_of(payload, "FilterDataProviderBundleIdentifier") == Some(EXTENSION_ID)
                && payload.get("FilterSockets").and_then(Value::as_boolean) == Some(true)
                && text_of(payload, "FilterDataProviderDesignatedRequirement").is_some_and(|text| {
                    text.starts_with(&requirement)
                        && text.ends_with(&format!("certificate leaf[subject.OU] = \"{TEAM}\""))
                })
        }
        "com.apple.servicemanagement" => {
            payload.get("Rules").and_then(Value::as_array).is_some_and(|rules| {
                rules.iter().filter_map(Value::as_dictionary).any(|rule| {
                    text_of(rule, "RuleType") == Some("TeamIdentifier")
                        && text_of(rule, "RuleValue") == Some(TEAM)
                })
            })
        }
        _ => true,
    };
    if holds { Vec::new() } else { vec![format!("{kind}: does not name {APP} and its extension")] }
}

fn text_of<'plist>(dictionary: &'plist Dictionary, key: &str) -> Option<&'plist str> {
    dictionary.get(key).and_then(Value::as_string)
}

fn missing<'keys>(
    dictionary: &Dictionary,
    keys: &'keys [&'keys str],
) -> impl Iterator<Item = &'keys &'keys str> {
    keys.iter().filter(|key| !dictionary.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../../../../packaging/macos/com.toktra.agent.mobileconfig");

    #[test]
    fn the_template_has_nothing_wrong() {
        assert_eq!(mobileconfig_problems(TEMPLATE), Vec::<String>::new());
    }

    #[test]
    fn each_key_that_is_needed_is_missed() {
        for (_, keys) in PAYLOADS {
            for key in keys.iter().chain(&COMMON) {
                let broken = TEMPLATE.replacen(&format!("<key>{key}</key>"), "<key>Other</key>", 1);
                assert_ne!(mobileconfig_problems(&broken), Vec::<String>::new(), "{key}");
            }
        }
    }

    #[test]
    fn a_profile_covers_by_equality_wildcard_and_subset_alone() {
        let list = |items: &[&str]| Value::Array(items.iter().map(|item| (*item).into()).collect());
        assert!(covers_value(&"TEAM.*".into(), &"TEAM.app".into()));
        assert!(!covers_value(&"TEAM.*".into(), &"OTHER.app".into()));
        assert!(covers_value(&list(&["a", "b"]), &list(&["b"])));
        assert!(!covers_value(&list(&["a"]), &list(&["a", "b"])));
        assert!(!covers_value(&Value::Boolean(false), &Value::Boolean(true)));
    }
}
