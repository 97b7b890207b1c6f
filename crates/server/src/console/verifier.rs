//! Checks typed passwords. A check takes the same work whether the name is known or not, and
//! only a few run at once, each of which takes 19 MiB.

use argon2::Argon2;
use tokio::sync::Semaphore;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::password;

/// Checks at once.
const CHECKS: usize = 4;

/// A password as typed.
#[derive(Clone, Zeroize, ZeroizeOnDrop, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct TypedPassword(String);

/// Checks passwords, a few at once.
#[derive(Debug)]
pub(super) struct Verifier {
    checks: Semaphore,
}

/// Too many checks are running.
#[derive(Debug)]
pub(super) struct Busy;

impl Verifier {
    /// Whether the password matches the stored hash. Without one the same work is done and the
    /// answer is no.
    pub(super) async fn matches(
        &self,
        password: TypedPassword,
        stored: Option<String>,
    ) -> Result<bool, Busy> {
        let Ok(_permit) = self.checks.try_acquire() else {
            return Err(Busy);
        };
        // A check that panicked has confirmed nothing.
        Ok(tokio::task::spawn_blocking(move || check(&password, stored.as_deref())).await.unwrap_or(false))
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self { checks: Semaphore::new(CHECKS) }
    }
}

impl std::fmt::Debug for TypedPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TypedPassword(..)")
    }
}

fn check(password: &TypedPassword, stored: Option<&str>) -> bool {
    if password.0.len() > password::LONGEST {
        return false;
    }
    match stored {
        Some(stored) => password::matches(&password.0, stored),
        None => {
            let mut output = [0; 32];
            // The work counts, not the result; the parameters are those of `password::hash`.
            let _ = Argon2::default().hash_password_into(password.0.as_bytes(), &[0; 16], &mut output);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> TypedPassword {
        TypedPassword(text.to_owned())
    }

    #[test]
    fn only_the_right_password_of_a_known_name_passes() {
        let stored = password::hash("correct horse battery").expect("a hash");
        assert!(check(&typed("correct horse battery"), Some(&stored)));
        assert!(!check(&typed("correct horse batterz"), Some(&stored)));
        assert!(!check(&typed("correct horse battery"), None));
        assert!(!check(&typed(&"x".repeat(password::LONGEST + 1)), None));
    }

    #[test]
    fn a_typed_password_does_not_print() {
        assert_eq!(format!("{:?}", typed("correct horse battery")), "TypedPassword(..)");
    }

    #[tokio::test]
    async fn more_checks_at_once_than_there_are_places_are_turned_away() {
        let verifier = Verifier::default();
        let _taken = verifier.checks.try_acquire_many(4).expect("all places");
        assert!(verifier.matches(typed("correct horse battery"), None).await.is_err());
    }
}
