//! Who is at the other end of a local socket, and what an account is called: asked of the system, which
//! alone can say. On macOS also whose signature the peer's program has.
//!
//! Invariants: an answer names the process that connected, by what the kernel noted then, never by a number
//! that may be another's by now; a program of ours is believed to be one only with our own signature, where
//! we have one; nothing here speaks to the peer. `unsafe` only at the edge to macOS.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// A program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// `toktra-agent`; on macOS ToktraAgent.
    Agent,
    /// `toktra-extension`; on macOS ToktraExtension.
    Extension,
}

impl Program {
    /// Its bundle identifier, and so the identifier in its signature.
    pub fn identifier(self) -> &'static str {
        match self {
            Self::Agent => "com.toktra.agent",
            Self::Extension => "com.toktra.agent.extension",
        }
    }
}

/// The account that the peer had when it connected or began to listen.
pub fn user(socket: impl AsFd) -> io::Result<u32> {
    system::user(socket.as_fd())
}

/// Whether the peer is this program of ours. On Linux the account alone tells, so that this always holds; on
/// macOS the peer must be signed by whoever signed this process. An unsigned process cannot ask, see [`is_signed`].
pub fn check(socket: impl AsFd, program: Program) -> io::Result<()> {
    system::check(socket.as_fd(), program)
}

/// Whether [`check`] can tell programs apart.
pub fn is_signed() -> bool {
    system::is_signed()
}

/// The name of an account, `uid:N` for one that has none.
pub fn account(user: u32) -> String {
    system::account(user).unwrap_or_else(|| format!("uid:{user}"))
}

/// An account by its name or number; `None` where there is none.
pub fn user_named(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| system::user_named(name))
}

/// What tells who sits at the machine: the seat of `systemd-logind`, or on macOS the console.
pub const SEAT: &str = system::SEAT;

/// Whether an account is that of whoever sits there, by [`SEAT`] or what stands in for it.
pub fn sits_at(user: u32, seat: &Path) -> bool {
    system::seated(seat) == Some(user)
}

/// What the system's code-signing language calls a program of ours, signed by a team (TN3127).
#[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "signatures are checked on macOS alone"))]
fn requirement(program: Program, team: &str) -> Option<String> {
    // What a signature says is put between quotes.
    let plain =
        team.len() == 10 && team.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let identifier = program.identifier();
    plain.then(|| {
        format!(
            "identifier \"{identifier}\" and anchor apple generic and certificate leaf[subject.OU] = \"{team}\""
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(user(&one).unwrap(), rustix::process::geteuid().as_raw());
    }

    #[test]
    fn accounts_have_names_and_numbers() {
        assert_eq!((account(0).as_str(), user_named("root")), ("root", Some(0)));
        assert_eq!(user_named("4711"), Some(4711));
        assert_eq!(account(u32::MAX - 7), format!("uid:{}", u32::MAX - 7));
        assert_eq!(user_named("nobody-has-this-name"), None);
    }

    #[test]
    fn a_requirement_names_program_and_team_and_takes_no_quotes() {
        assert_eq!(
            requirement(Program::Extension, "AB12CD34EF").unwrap(),
            "identifier \"com.toktra.agent.extension\" and anchor apple generic and certificate \
             leaf[subject.OU] = \"AB12CD34EF\""
        );
        for team in ["", "ab12cd34ef", "AB12CD34EFG", "A\" or true \""] {
            assert_eq!(requirement(Program::Agent, team), None, "{team}");
        }
    }
}
