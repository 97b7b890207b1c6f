//! The seal of a bundle: `_CodeSignature/CodeResources` lists every file but those that are covered
//! otherwise, with its SHA-256, and nothing that is not there.

use ring::digest::{SHA256, digest};

use super::{Bundle, Check, Findings};

pub fn check(bundle: &Bundle<'_>, findings: &mut Findings) {
    let mut wrong = |what: String| findings.add(Check::Resources, format!("{}: {what}", bundle.id));
    let seal = bundle.content("Contents/_CodeSignature/CodeResources").map(plist::Value::from_reader_xml);
    let Some(Ok(plist::Value::Dictionary(seal))) = seal else {
        return wrong("no seal of its resources".into());
    };
    let Some(sealed) = seal.get("files2").and_then(plist::Value::as_dictionary) else {
        return wrong("its seal lists no files".into());
    };

    let inside = format!("{}Contents/", bundle.prefix);
    for (path, entry) in bundle.app.iter() {
        let (Some(name), Some(content)) = (path.strip_prefix(&inside), &entry.content) else {
            continue;
        };
        // The executable's own signature covers these: Info.plist and the seal by slots of their own.
        let covered = name == "Info.plist"
            || name == "PkgInfo"
            || name.starts_with("_CodeSignature/")
            || bundle.executable.strip_prefix("Contents/") == Some(name);
        if covered {
            continue;
        }
        let hash = sealed.get(name).and_then(plist::Value::as_dictionary).and_then(|file| file.get("hash2"));
        match hash.and_then(plist::Value::as_data) {
            Some(hash) if hash == digest(&SHA256, content).as_ref() => {}
            Some(_) => wrong(format!("{name} is not as it was sealed")),
            None => wrong(format!("{name} is not sealed")),
        }
    }
    for name in sealed.keys() {
        if bundle.content(&format!("Contents/{name}")).is_none() {
            wrong(format!("{name} is sealed and not there"));
        }
    }
}
