//! Segments: the files of the spool, `0000000000000001.spool` and so on, each at most one
//! limit long. Knows files and fsync, nothing of what the frames mean.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".spool";
/// Nothing of ours is longer; a file that is, was not written by a spool.
const READ_LIMIT: u64 = 64 * 1024 * 1024;

/// One file of the spool.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    /// Index of its first record, or of the next one if it has none.
    pub(crate) first: u64,
    /// Length in bytes that is known to be good.
    pub(crate) len: u64,
}

/// Makes the directory, for its owner only.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if directory.metadata()?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Opens a file for its owner only.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Identifiers of the segments there are, ascending.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        ids.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

pub(crate) fn path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:016}{SUFFIX}"))
}

/// A segment's bytes; one that is gone is empty.
pub(crate) fn read(directory: &Path, id: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path(directory, id)) {
        Ok(file) => file.take(READ_LIMIT).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(bytes)
}

/// Makes a segment that begins with `head`, durable with its directory entry.
pub(crate) fn create(directory: &Path, id: u64, head: &[u8]) -> io::Result<File> {
    let path = path(directory, id);
    let written =
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            file.write_all(head)?;
            file.sync_all()?;
            sync_directory(directory)?;
            Ok(file)
        });
    if written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        let _ = fs::remove_file(&path);
    }
    written
}

/// Room for some hundred marks, in bytes.
const RESERVE_BYTES: u64 = 64 * 1024;
const RESERVE: &str = "reserve";

/// Sets room aside for a full disk, if there is room.
pub(crate) fn keep_reserve(directory: &Path) {
    let path = directory.join(RESERVE);
    if path.metadata().is_ok_and(|metadata| metadata.len() == RESERVE_BYTES) {
        return;
    }
    let flags = rustix::fs::FallocateFlags::empty();
    let kept = open_private(&path)
        .and_then(|file| rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES).map_err(io::Error::from));
    if kept.is_err() {
        let _ = fs::remove_file(&path);
    }
}

/// Gives the room back; whether there was any.
pub(crate) fn release_reserve(directory: &Path) -> bool {
    fs::remove_file(directory.join(RESERVE)).is_ok()
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Deletes a segment; whether it is gone.
pub(crate) fn remove(directory: &Path, id: u64) -> bool {
    match fs::remove_file(path(directory, id)) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
