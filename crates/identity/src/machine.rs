//! What the machine says of itself: an attribute that a clone has too, never proof.

use ring::digest::{SHA256, digest};

/// Put before the machine's own identifier, so that its digest is of use to nobody else.
const CONTEXT: &[u8] = b"toktra hardware v1\0";

/// The digest of the machine's own identifier, hexadecimal; `None` where it cannot be read.
pub fn hardware() -> Option<String> {
    // machine-id(5) asks that the identifier itself is not shown around.
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    (!id.is_empty()).then(|| hardware_of(id))
}

fn hardware_of(id: &str) -> String {
    let hash = digest(&SHA256, &[CONTEXT, id.as_bytes()].concat());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_a_digest_under_our_own_name() {
        // printf 'toktra hardware v1\0%s' 0123456789abcdef0123456789abcdef | sha256sum
        let expected = "4aa5a0fea5f78e43c10a3fc414cdd1cf93373a5caa256e35b5600847f54b7371";
        assert_eq!(hardware_of("0123456789abcdef0123456789abcdef"), expected);
    }
}
