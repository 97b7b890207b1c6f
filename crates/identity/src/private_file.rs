//! Files that only their owner may read: replaced as a whole or not at all, and not read
//! when others could have read or changed them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::keystore::Cause;

/// Largest file that is read, in bytes.
const READ_LIMIT: u64 = 256 * 1024;

/// Why a private file was not read or written. Names the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {doing} {}; run the command as root, or as the account that the agent runs under", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "{} has mode {mode:04o}, so that others may have read or changed it; find out who did that, then run `chmod {wanted:04o} {}`, and enrol again if the key may be known",
        .path.display(), .path.display()
    )]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to uid {owner}, which is neither root nor the agent's account; find out why, then give it back with chown", .path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// The uid it belongs to.
        owner: u32,
    },
    /// It is a link, a directory or anything else but a file.
    #[error("{} is not a plain file and was not written by the agent; find out who put it there, then move it away", .0.display())]
    NotAFile(PathBuf),
    /// It is longer than anything of ours.
    #[error("{} exceeds {READ_LIMIT} bytes and was not written by the agent; move it away", .0.display())]
    TooLarge(PathBuf),
}

impl FileError {
    /// What it means.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Cause::Missing,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Cause::Denied,
                io::ErrorKind::InvalidData => Cause::Damaged,
                _ => Cause::Unavailable,
            },
            Self::Mode { .. } | Self::Owner { .. } => Cause::Permissions,
            // A link leads where others may write.
            Self::NotAFile(path) if path.is_symlink() => Cause::Permissions,
            Self::NotAFile(_) | Self::TooLarge(_) => Cause::Damaged,
        }
    }
}

/// Makes the directory, if need be, for its owner only.
pub(crate) fn make_directory(directory: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("create", directory))
}

/// Reads a private file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    // Not to wait for the writer of a pipe, either.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => return Err(FileError::NotAFile(path.to_owned())),
        file => file.map_err(failed("read", path))?,
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let directory_metadata = directory.metadata().map_err(failed("read", directory))?;
    check_owner(path, metadata.uid(), directory_metadata.uid())?;
    check_mode(path, &metadata.permissions(), 0o077, 0o600)?;
    check_mode(directory, &directory_metadata.permissions(), 0o022, 0o700)?;
    if metadata.len() > READ_LIMIT {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(READ_LIMIT).read_to_end(&mut content).map_err(failed("read", path))?;
    Ok(Some(content))
}

/// Replaces a file as a whole, durably. When root writes into the agent's directory, the
/// file becomes the agent's.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = || -> io::Result<()> {
        // The file has mode 0600 from the start; a crash leaves at most a stray one behind.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
        file.write_all(content)?;
        let metadata = directory.metadata()?;
        if rustix::process::geteuid().is_root() && metadata.uid() != 0 {
            std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        file.as_file().set_permissions(Permissions::from_mode(0o600))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    written().map_err(failed("write", path))
}

/// Deletes a file, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Differs after the file was replaced or its permissions were changed.
pub(crate) fn mark(path: &Path) -> Option<(u64, i64, i64, u32, u32)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.ctime_nsec(), metadata.mode(), metadata.uid()))
}

fn check_owner(path: &Path, owner: u32, directory_owner: u32) -> Result<(), FileError> {
    let me = rustix::process::geteuid();
    // Root may look at what the agent's account, which has the directory, keeps there.
    let agents = me.is_root() && owner == directory_owner;
    if owner == 0 || owner == me.as_raw() || agents {
        Ok(())
    } else {
        Err(FileError::Owner { path: path.to_owned(), owner })
    }
}

fn check_mode(path: &Path, permissions: &Permissions, forbidden: u32, wanted: u32) -> Result<(), FileError> {
    let mode = permissions.mode() & 0o7777;
    if mode & forbidden == 0 { Ok(()) } else { Err(FileError::Mode { path: path.to_owned(), mode, wanted }) }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_read_is_not_read_and_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.json");
        replace(&path, b"{}").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().as_slice(), b"{}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.json");
        replace(&path, b"{}").unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read(&path), Err(FileError::Mode { wanted: 0o700, .. })));
    }

    #[test]
    fn a_file_of_somebody_else_is_not_read() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.json");
        replace(&path, b"{}").unwrap();
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert!(matches!(read(&path), Err(FileError::Owner { owner: 4711, .. })));
    }

    #[test]
    fn what_root_writes_into_the_agents_directory_becomes_the_agents() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(4711), Some(4711)).unwrap();
        let path = directory.path().join("credential.json");
        replace(&path, b"{}").unwrap();
        assert_eq!(path.metadata().unwrap().uid(), 4711);
        assert!(read(&path).unwrap().is_some());
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential.json");
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(read(&path), Err(FileError::NotAFile(_))));
    }

    #[test]
    fn a_missing_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&directory.path().join("credential.json")).unwrap().is_none());
    }
}
