//! Linux: `SO_PEERCRED`, `/etc/passwd` and the seat of `systemd-logind`. Read as they are, without the
//! name service, so that nothing here ever waits for a network.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::Program;

/// Where `systemd-logind` and `elogind` say who sits at the machine: what `sd_seat_get_active` reads.
pub(crate) const SEAT: &str = "/run/systemd/seats/seat0";

pub(crate) fn user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

pub(crate) fn check(_: BorrowedFd<'_>, _: Program) -> io::Result<()> {
    Ok(())
}

pub(crate) fn is_signed() -> bool {
    true
}

pub(crate) fn account(user: u32) -> Option<String> {
    name_in(&passwd(), user)
}

pub(crate) fn user_named(name: &str) -> Option<u32> {
    number_in(&passwd(), name)
}

pub(crate) fn seated(seat: &Path) -> Option<u32> {
    active_user(&std::fs::read_to_string(seat).ok()?)
}

fn passwd() -> String {
    // Comments may be in any encoding.
    String::from_utf8_lossy(&std::fs::read("/etc/passwd").unwrap_or_default()).into_owned()
}

/// The first name that the file gives a user, as in getpwuid(3).
fn name_in(passwd: &str, user: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    })
}

fn number_in(passwd: &str, name: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn active_user(seat: &str) -> Option<u32> {
    seat.lines().find_map(|line| line.strip_prefix("ACTIVE_UID=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_active_at_the_seat_sits_there() {
        let seat =
            "# This is private data. Do not parse.\nIS_SEAT0=1\nACTIVE=3\nACTIVE_UID=1000\nSESSIONS=3 c1\n";
        assert_eq!(active_user(seat), Some(1000));
        assert_eq!(active_user("IS_SEAT0=1\n"), None);
        assert_eq!(active_user("ACTIVE_UID=x\n"), None);
    }

    #[test]
    fn the_first_line_of_an_account_counts_and_damaged_ones_do_not() {
        let passwd = "root:x:0:0::/root:/bin/sh\n# x\nann:x:1000:1000::/:\nbob:x:1000:1:\nbad:x:-1\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!((number_in(passwd, "bob"), number_in(passwd, "bad")), (Some(1000), None));
        assert_eq!(name_in(passwd, 7), None);
    }
}
