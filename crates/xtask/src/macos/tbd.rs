//! Apple's text-based description of a library for linkers, version 4: written for the libraries that
//! `symbols` lists, and read of Zig's, which knows what is in macOS 13's libSystem.

use std::collections::BTreeSet;

/// The stub of a library with this path that exports these symbols for both architectures.
pub fn stub<'symbols>(install_name: &str, symbols: impl Iterator<Item = &'symbols String>) -> String {
    let symbols: Vec<String> = symbols.map(|symbol| format!("'{symbol}'")).collect();
    let exports = match symbols.join(", ") {
        none if none.is_empty() => none,
        some => format!("exports:\n  - targets: [ x86_64-macos, arm64-macos ]\n    symbols: [ {some} ]\n"),
    };
    let head = "--- !tapi-tbd\ntbd-version: 4\ntargets: [ x86_64-macos, arm64-macos ]\n";
    format!("{head}install-name: '{install_name}'\n{exports}...\n")
}

/// What is exported for a target such as `arm64-macos`, by any library of the file.
pub fn exports(text: &str, target: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_for_target = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (list, after) = after.split_once(']').unwrap_or((after, ""));
        let mut items = list.split(',').map(|item| item.trim().trim_matches('\''));
        // The key of a list is the last word before it: `weak-symbols: [ … ]`.
        match before.trim_end().rsplit(char::is_whitespace).next() {
            Some("targets:") => is_for_target = items.any(|item| item == target),
            Some(key) if key.ends_with("symbols:") && is_for_target => found.extend(items.map(str::to_owned)),
            _ => {}
        }
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let symbols = ["_read$INODE64".to_owned(), "_write".to_owned()];
        let stub = stub("/usr/lib/libSystem.B.dylib", symbols.iter());
        assert_eq!(exports(&stub, "arm64-macos"), symbols.into());
        assert_eq!(exports(&stub, "arm64-ios"), BTreeSet::new());
    }

    #[test]
    fn a_list_counts_for_the_targets_before_it_alone() {
        let text = "targets: [ x86_64-macos, arm64-macos ]\nexports:\n\
                    - targets: [ x86_64-macos ]\n  symbols: [ _old ]\n\
                    - targets: [ arm64-macos,\n  arm64e-macos ]\n  symbols: [ _new,\n  _more ]\n  weak-symbols: [ _weak ]\n";
        let names = |target| exports(text, target).into_iter().collect::<Vec<_>>();
        assert_eq!(names("x86_64-macos"), ["_old"]);
        assert_eq!(names("arm64-macos"), ["_more", "_new", "_weak"]);
    }
}
