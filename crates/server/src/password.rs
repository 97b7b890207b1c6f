//! Console passwords: argon2id (RFC 9106) as PHC strings.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use zeroize::Zeroizing;

/// Shortest password that `init` and the console take, in bytes.
pub const SHORTEST: usize = 12;
/// Longest password that is hashed, in bytes.
pub const LONGEST: usize = 256;

/// Hashes a password with a new salt.
pub fn hash(password: &str) -> anyhow::Result<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| anyhow::anyhow!("the operating system gave no randomness"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| anyhow::anyhow!("the salt cannot be encoded"))?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash.map_err(|_| anyhow::anyhow!("the password cannot be hashed"))?.to_string())
}

/// Whether a password matches a stored hash. Takes the same time for every wrong one.
pub fn matches(password: &str, stored: &str) -> bool {
    password.len() <= LONGEST
        && PasswordHash::new(stored)
            .is_ok_and(|stored| Argon2::default().verify_password(password.as_bytes(), &stored).is_ok())
}

/// Makes a password of 20 characters from 32 that are not mistaken for one another: 100 bits.
pub fn generate() -> anyhow::Result<Zeroizing<String>> {
    random_text(20)
}

/// Random characters of five bits each.
pub fn random_text(characters: usize) -> anyhow::Result<Zeroizing<String>> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new(vec![0; characters]);
    getrandom::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the operating system gave no randomness"))?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_matches() {
        let stored = hash("correct horse battery").unwrap();
        assert!(matches("correct horse battery", &stored));
        assert!(!matches("correct horse batterz", &stored));
        assert!(!matches("correct horse battery", "not a hash"));
    }

    #[test]
    fn generated_passwords_differ_and_are_long_enough() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, two);
        assert!(one.len() >= SHORTEST);
    }
}
