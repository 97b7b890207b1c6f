//! An authority in a directory of the test's own, with the means to rotate it, and OpenSSL.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{KeyPair, PKCS_ED25519};
use tempfile::TempDir;
use toktra_pki::rotation::{Ceremony, Line, RotationError, Step};
use toktra_pki::{Authority, DeviceCertificate, Founding, Passphrase, PassphraseFile, VerifiedCsr};
use toktra_protocol::{DeviceId, ToktraDomain, UnixSeconds};
use uuid::Uuid;

pub const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
pub const HOST: &str = "api.acme.example";

pub struct House {
    place: TempDir,
    domain: ToktraDomain,
    pub passphrase: PassphraseFile,
    pub root_passphrase: PassphraseFile,
    pub now: UnixSeconds,
}

impl House {
    pub fn new() -> Self {
        Self::founded(NOW)
    }

    pub fn founded(now: UnixSeconds) -> Self {
        let place = tempfile::tempdir().unwrap();
        let passphrase = PassphraseFile::Own(place.path().join("data.passphrase"));
        let root_passphrase = PassphraseFile::Own(place.path().join("root.passphrase"));
        let house = Self { domain: "acme.example".parse().unwrap(), place, passphrase, root_passphrase, now };
        std::fs::create_dir(house.data()).unwrap();
        let founding = Founding {
            domain: &house.domain,
            passphrase: &house.passphrase.read_or_make().unwrap().0,
            root_passphrase: &house.root_passphrase.read_or_make().unwrap().0,
            root_directory: &house.root_directory(),
        };
        Authority::create(&house.data(), &founding, now).unwrap();
        house
    }

    pub fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    pub fn root_directory(&self) -> PathBuf {
        self.place.path().join("medium")
    }

    pub fn open(&self) -> Authority {
        Authority::open(&self.data(), &self.passphrase).unwrap()
    }

    pub fn ceremony<T>(&self, act: impl FnOnce(&Ceremony<'_>) -> T) -> T {
        self.ceremony_with(&self.root_directory(), Some(&self.root_passphrase), act)
    }

    pub fn ceremony_with<T>(
        &self,
        root_directory: &Path,
        root_passphrase: Option<&PassphraseFile>,
        act: impl FnOnce(&Ceremony<'_>) -> T,
    ) -> T {
        act(&Ceremony {
            data: &self.data(),
            domain: &self.domain,
            passphrase: &self.passphrase,
            root_directory,
            root_passphrase,
            next_root_directory: &self.root_directory(),
            next_root_passphrase: &self.root_passphrase.read().unwrap(),
        })
    }

    pub fn take(&self, line: Line, step: Step) -> Result<Vec<String>, RotationError> {
        self.ceremony(|ceremony| ceremony.take(line, step, self.now))
    }

    pub fn take_all(&self, line: Line, steps: &[Step]) {
        for &step in steps {
            self.take(line, step).unwrap();
        }
    }

    /// Every file with what is in it.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut open = vec![self.place.path().to_owned()];
        let mut files = Vec::new();
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path)
                } else {
                    files.push((path.clone(), std::fs::read(path).unwrap()))
                }
            }
        }
        files.sort();
        files
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

pub fn csr() -> VerifiedCsr {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    VerifiedCsr::from_der(request.der()).unwrap()
}

pub fn device(authority: &Authority, number: u128, now: UnixSeconds) -> DeviceCertificate {
    authority.issue_device(&csr(), Uuid::from_u128(1), DeviceId::from_u128(number), now).unwrap()
}

pub fn new_passphrase() -> Passphrase {
    Passphrase::generate().unwrap()
}

pub fn openssl(arguments: &[&str]) -> Output {
    let run = Command::new("openssl").args(arguments).output();
    run.expect("OpenSSL (Debian's package `openssl`)")
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
