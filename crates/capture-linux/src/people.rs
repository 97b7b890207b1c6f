//! Who owns a socket: the user account's name from the machine's own `/etc/passwd`, and the
//! application's name from the executable, without path and arguments. Invariants: nothing is
//! read but those two; every text is free of control characters and at most [`TEXT_LIMIT`] bytes.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::time::SystemTime;

use crate::abi::RawOwner;

/// Longest name, in bytes.
const TEXT_LIMIT: usize = 128;
/// Largest account file that is read, in bytes.
const PASSWD_LIMIT: u64 = 4 * 1024 * 1024;
const PASSWD: &str = "/etc/passwd";

/// Account names by user identifier, read again when the file has changed.
#[derive(Debug, Default)]
pub struct People {
    names: HashMap<u32, String>,
    read_at: Option<SystemTime>,
}

impl People {
    /// The account's name; an account of a directory service is `uid:1234`.
    pub fn account(&mut self, user: u32) -> String {
        let changed = fs::metadata(PASSWD).and_then(|metadata| metadata.modified()).ok();
        if changed != self.read_at {
            self.read_at = changed;
            self.names = fs::File::open(PASSWD)
                .and_then(|file| {
                    let mut text = Vec::new();
                    file.take(PASSWD_LIMIT).read_to_end(&mut text)?;
                    Ok(parse(&text))
                })
                .unwrap_or_default();
        }
        self.names.get(&user).cloned().unwrap_or_else(|| format!("uid:{user}"))
    }
}

/// Comments may be in any encoding, so what is not UTF-8 is replaced.
fn parse(passwd: &[u8]) -> HashMap<u32, String> {
    let passwd = String::from_utf8_lossy(passwd);
    let entries = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, user) = (fields.next()?, fields.next()?, fields.next()?);
        Some((user.parse().ok()?, clean(name)))
    });
    // Of several names for one identifier the first counts, as in getpwuid(3).
    let mut names = HashMap::new();
    for (user, name) in entries {
        names.entry(user).or_insert(name);
    }
    names
}

/// The name of the owner's executable, or of its thread if the process has gone.
pub fn application(owner: &RawOwner) -> String {
    let executable = fs::read_link(format!("/proc/{}/exe", owner.process)).ok();
    let name = executable.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
    match name {
        Some(name) => clean(name.strip_suffix(" (deleted)").unwrap_or(&name)),
        None => {
            let end = owner.command.iter().position(|&byte| byte == 0).unwrap_or(owner.command.len());
            clean(&String::from_utf8_lossy(&owner.command[..end]))
        }
    }
}

fn clean(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars().filter(|character| !character.is_control()) {
        if text.len() + character.len_utf8() > TEXT_LIMIT {
            break;
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_come_from_the_file_and_the_first_name_counts() {
        let names =
            parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nada:x:1000:1000::/home/ada:\nbad\n");
        assert_eq!(names[&0], "root");
        assert_eq!(names[&1000], "ada");
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_comment_that_is_not_utf_8_costs_no_name() {
        let names = parse(b"ada:x:1000:1000:Ada L\xf6velace:/home/ada:\nbob:x:1001:1001::/:\n");
        assert_eq!((names[&1000].as_str(), names[&1001].as_str()), ("ada", "bob"));
    }

    #[test]
    fn an_application_is_its_executable_and_after_its_end_its_thread() {
        let mut command = [0; 16];
        command[..4].copy_from_slice(b"cu\nl");
        let gone = RawOwner { process: u32::MAX, user: 0, command };
        assert_eq!(application(&gone), "cul");
        let me = RawOwner { process: std::process::id(), user: 0, command };
        let own = std::env::current_exe().unwrap();
        assert_eq!(application(&me), own.file_name().unwrap().to_string_lossy());
    }
}
