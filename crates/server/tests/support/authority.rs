//! A new authority in a directory of the test's own, its passphrase beside it.

use std::path::Path;

use toktra_pki::{Authority, Founding, PassphraseFile};
use toktra_protocol::{ToktraDomain, UnixSeconds};

pub fn create_authority(data: &Path, domain: &ToktraDomain, now: UnixSeconds) -> PassphraseFile {
    let file = PassphraseFile::Own(data.join("test.passphrase"));
    let (passphrase, _) = file.read_or_make().unwrap();
    let founding = Founding {
        domain,
        passphrase: &passphrase,
        root_passphrase: &passphrase,
        root_directory: &Authority::offline_directory(data),
    };
    Authority::create(data, &founding, now).unwrap();
    file
}
