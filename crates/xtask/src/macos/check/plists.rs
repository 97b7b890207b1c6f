//! A bundle's Info.plist: valid, for this bundle, with the keys without which macOS refuses it.
//! Sources: "Bundle Resources: Information Property List" and "System Extensions" of Apple's documentation.

use plist::Dictionary;

use super::{Bundle, Check, Findings};
use crate::macos::bundle::APP_ID;
use crate::macos::link::MINIMUM;

/// Keys with a text that is not empty, of both bundles.
const TEXTS: [&str; 4] =
    ["CFBundleName", "CFBundleShortVersionString", "CFBundleVersion", "CFBundleDisplayName"];

pub fn check(bundle: &Bundle<'_>, findings: &mut Findings) {
    let mut wrong = |what: String| findings.add(Check::Plists, format!("{}: Info.plist: {what}", bundle.id));
    let plist = bundle.content("Contents/Info.plist").map(plist::Value::from_reader_xml);
    let Some(Ok(plist::Value::Dictionary(plist))) = plist else {
        return wrong("not a property list".into());
    };
    let is_extension = bundle.id != APP_ID;
    let text = |key: &str| plist.get(key).and_then(plist::Value::as_string);
    let executable = bundle.executable.rsplit('/').next();
    let expected = [
        ("CFBundleIdentifier", Some(bundle.id)),
        ("CFBundleExecutable", executable),
        ("CFBundlePackageType", Some(if is_extension { "SYSX" } else { "APPL" })),
        ("LSMinimumSystemVersion", Some(&*MINIMUM.to_string())),
    ];
    for (key, value) in expected {
        if text(key) != value {
            wrong(format!("{key} is {:?}, not {value:?}", text(key)));
        }
    }
    for key in TEXTS.iter().filter(|key| text(key).is_none_or(str::is_empty)) {
        wrong(format!("{key} is missing"));
    }
    if is_extension {
        if text("NSSystemExtensionUsageDescription").is_none_or(str::is_empty) {
            wrong("NSSystemExtensionUsageDescription is missing: activation would fail".into());
        }
        for problem in network_extension(plist.get("NetworkExtension").and_then(plist::Value::as_dictionary))
        {
            wrong(problem);
        }
    } else if plist.get("LSUIElement").and_then(plist::Value::as_boolean) != Some(true) {
        wrong("LSUIElement is not true: the app would be in the Dock".into());
    }
}

fn network_extension(network: Option<&Dictionary>) -> Vec<String> {
    let mut problems = Vec::new();
    let classes = network.and_then(|one| one.get("NEProviderClasses")).and_then(plist::Value::as_dictionary);
    if classes.and_then(|classes| classes.get("com.apple.networkextension.filter-data")).is_none() {
        problems.push("no provider class for com.apple.networkextension.filter-data".to_owned());
    }
    let service = network.and_then(|one| one.get("NEMachServiceName")).and_then(plist::Value::as_string);
    // It must begin with a group of the extension's, which begins with the team.
    if !service.is_some_and(|name| name.split_once('.').is_some_and(|(_, group)| group.starts_with(APP_ID))) {
        problems.push(format!("NEMachServiceName is {service:?}, which is in no group of the extension's"));
    }
    problems
}
