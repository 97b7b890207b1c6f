//! A running server's authority follows the steps of a rotation, which are taken beside it by
//! `toktra-server ca rotate`.
//!
//! The authority's state is one file that is only ever replaced whole, so its inode and time say
//! whether a step was taken. The next authority is opened entirely before it takes the place of
//! the old one; if it cannot be, the old one stays, and the log says why.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::serve::Server;

/// How often a step of a rotation is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long until an authority that could not be opened is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// An edition of a file that is only ever replaced whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edition {
    inode: u64,
    modified: Option<SystemTime>,
}

impl Edition {
    /// The one that is there; none where there is no file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { inode: metadata.ino(), modified: metadata.modified().ok() })
    }
}

/// Puts the next authority in the place of the old one after each step. Connections that are open
/// stay open; those to come are shown certificates of the next.
pub(crate) async fn follow(server: Arc<Server>) {
    let app = server.app();
    let file = app.authority_file();
    let mut in_force = app.edition;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let edition = Edition::of(&file);
        if edition == in_force {
            continue;
        }
        match app.reopen_authority().await.and_then(|()| server.make_certificates()) {
            Ok(()) => {
                in_force = edition;
                tracing::info!(
                    issuer = app.authority().issuer_id(),
                    "The authority's next state is in force."
                );
            }
            Err(error) => {
                tracing::error!(
                    "The authority's next state could not be taken; the old one stays: {error:#}."
                );
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_another_edition() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state.json");
        assert_eq!(Edition::of(&path), None);
        std::fs::write(&path, "1").unwrap();
        let first = Edition::of(&path);
        assert_eq!(Edition::of(&path), first);
        std::fs::write(place.path().join("next"), "2").unwrap();
        std::fs::rename(place.path().join("next"), &path).unwrap();
        assert_ne!(Edition::of(&path), first);
    }
}
