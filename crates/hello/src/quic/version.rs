//! QUIC versions whose Initial packets can be opened, with what differs between them.
//!
//! The states of HMAC under each salt are written out, which saves two of sixteen hashed blocks for each
//! connection; a test derives them again.

use super::packet::Kind;
use super::sha256::Mac;

/// A version of QUIC.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) salt: &'static Salt,
    pub(super) key_label: &'static [u8],
    pub(super) iv_label: &'static [u8],
    pub(super) hp_label: &'static [u8],
    /// The kinds of long-header packets, by their two type bits.
    pub(super) kinds: [Kind; 4],
}

/// A salt for Initial secrets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Salt {
    bytes: [u8; 20],
    pub(super) mac: Mac,
}

impl Version {
    /// What is known of a version number.
    pub(super) fn of(number: u32) -> Option<&'static Self> {
        Some(match number {
            1 | 0xff00_0021..=0xff00_0022 => &VERSION_1,
            0x6b33_43cf => &VERSION_2,
            0xff00_001d..=0xff00_0020 => &DRAFTS_FROM_29,
            0xff00_0017..=0xff00_001c => &DRAFTS_FROM_23,
            0xff00_0016 => &ONLY_DRAFT_22,
            // Facebook's mvfst, which kept the salts of the drafts that it began with.
            0xface_b001 => &ONLY_DRAFT_22,
            0xface_b002..=0xface_b00f => &DRAFTS_FROM_23,
            // Google's T051.
            0x5430_3531 => &GOOGLE_T051,
            _ => return None,
        })
    }

    /// Whether a number is reserved to force version negotiation (RFC 9000, 15).
    pub(super) fn is_reserved(number: u32) -> bool {
        number & 0x0f0f_0f0f == 0x0a0a_0a0a
    }
}

/// Version 1 (RFC 9001); drafts 33 and 34 are the same.
static VERSION_1: Version = like_version_1(&V1);
static DRAFTS_FROM_29: Version = like_version_1(&DRAFT_29);
static DRAFTS_FROM_23: Version = like_version_1(&DRAFT_23);
static ONLY_DRAFT_22: Version = like_version_1(&DRAFT_22);
static GOOGLE_T051: Version = like_version_1(&T051);

/// Version 2 (RFC 9369).
static VERSION_2: Version = Version {
    salt: &V2,
    key_label: b"quicv2 key",
    iv_label: b"quicv2 iv",
    hp_label: b"quicv2 hp",
    kinds: [Kind::Retry, Kind::Initial, Kind::ZeroRtt, Kind::Handshake],
};

const fn like_version_1(salt: &'static Salt) -> Version {
    Version {
        salt,
        key_label: b"quic key",
        iv_label: b"quic iv",
        hp_label: b"quic hp",
        kinds: [Kind::Initial, Kind::ZeroRtt, Kind::Handshake, Kind::Retry],
    }
}

static DRAFT_22: Salt = Salt {
    bytes: [
        0x7f, 0xbc, 0xdb, 0x0e, 0x7c, 0x66, 0xbb, 0xe9, 0x19, 0x3a, 0x96, 0xcd, 0x21, 0x51, 0x9e, 0xbd, 0x7a,
        0x02, 0x64, 0x4a,
    ],
    mac: Mac {
        inner: [
            0x6af0afa5, 0x323a04fd, 0x19b7309d, 0xe5a443f6, 0x56986063, 0x0e196725, 0x4a0d91bf, 0x0779975e,
        ],
        outer: [
            0xfdfe1026, 0x789fe625, 0x04d4d234, 0x60f2c922, 0x241f7232, 0x05055544, 0x5f36f07d, 0xa0d39d5d,
        ],
    },
};
static DRAFT_23: Salt = Salt {
    bytes: [
        0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe,
        0xf9, 0xf5, 0x02,
    ],
    mac: Mac {
        inner: [
            0xc6f38919, 0x78b648b1, 0x4d6df0c2, 0xa6136e04, 0xa5ec29ac, 0xc58e0267, 0x8a836edc, 0x3bbfb57c,
        ],
        outer: [
            0x4fe93735, 0xbb79fa70, 0xae1fc5ef, 0x0e65e811, 0x332ef4d8, 0xc0caa806, 0x56e4a622, 0x30febb0e,
        ],
    },
};
static DRAFT_29: Salt = Salt {
    bytes: [
        0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43,
        0x90, 0xa8, 0x99,
    ],
    mac: Mac {
        inner: [
            0x5a14242c, 0x451b6623, 0x8bda6c0c, 0x56a97e94, 0xa7e1ce39, 0x201b10d1, 0x424f7ac4, 0x82ada9c5,
        ],
        outer: [
            0x85562323, 0x55aa3152, 0x4f429776, 0x5f4cbb4a, 0x1f3a1465, 0x72c5b0e0, 0x0e00e756, 0x23be8427,
        ],
    },
};
static V1: Salt = Salt {
    bytes: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
        0xbb, 0x7f, 0x0a,
    ],
    mac: Mac {
        inner: [
            0x2d5eed97, 0x70d71abf, 0x4c9b8799, 0xc4eb86b0, 0xe9b16e41, 0xd04322f6, 0xf73a0cb2, 0x9e23a203,
        ],
        outer: [
            0x0d3d813d, 0xcffa6f1f, 0x7dbcb03e, 0x923042dc, 0xd15a45f6, 0x55ab0325, 0xf3c23aab, 0x37426939,
        ],
    },
};
static V2: Salt = Salt {
    bytes: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
        0xbd, 0x2e, 0xd9,
    ],
    mac: Mac {
        inner: [
            0x9f201982, 0x7e771bd0, 0x601a8795, 0x5d7ab60d, 0x2ff30d4b, 0x72201a09, 0x6eaa0d12, 0xca4e4d6b,
        ],
        outer: [
            0xbb153200, 0x003bcf3a, 0xf99876d1, 0xf698c9aa, 0x804d4d49, 0x7a379cfe, 0xc1eb346e, 0xadaf299f,
        ],
    },
};
static T051: Salt = Salt {
    bytes: [
        0x7a, 0x4e, 0xde, 0xf4, 0xe7, 0xcc, 0xee, 0x5f, 0xa4, 0x50, 0x6c, 0x19, 0x12, 0x4f, 0xc8, 0xcc, 0xda,
        0x6e, 0x03, 0x3d,
    ],
    mac: Mac {
        inner: [
            0x5e457787, 0x9e624aaa, 0xb1952599, 0x2b0da8c7, 0x05298279, 0x6a079935, 0x3c0711b2, 0x44b81437,
        ],
        outer: [
            0x6e069193, 0x4a6c0147, 0xf165a4a5, 0xe60682e7, 0xc79f5817, 0xeda51540, 0xb516ce7b, 0xa9da726d,
        ],
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_that_are_written_out_are_those_of_the_salts() {
        for salt in [&V1, &V2, &DRAFT_22, &DRAFT_23, &DRAFT_29, &T051] {
            assert_eq!(salt.mac, Mac::new(&salt.bytes));
        }
    }
}
