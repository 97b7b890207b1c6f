//! Administrators of the console and their sessions. A password is known here only as a PHC
//! string and a session only as a SHA-256 hash, so that a copy of the database signs nobody in.
//! An attempt to sign in is *claimed* in one statement before the password is looked at, so
//! that attempts made at once cannot outrun the lock-out. Signing in, being locked out and
//! every change of an administrator write an audit row in the same transaction.

use sqlx::FromRow;
use toktra_protocol::UnixSeconds;
use uuid::Uuid;

use crate::audit::{Deed, record};
use crate::directory::{Department, Organisation};
use crate::roles::{self, Role};
use crate::{Store, StoreError, column};

/// Wrong passwords in a row before an account is locked.
pub const ATTEMPTS_BEFORE_LOCK: i64 = 5;

/// How long a locked account stays locked, in seconds.
pub const LOCK_DURATION_S: u64 = 10 * 60;

/// Sessions that one administrator may have at once; the oldest goes first.
pub const SESSIONS_PER_ADMINISTRATOR: i64 = 16;

/// An attempt to sign in that was counted and may go on to the password.
#[derive(Clone, FromRow)]
pub struct ClaimedAttempt {
    /// The administrator.
    pub id: String,
    /// The administrator's name.
    pub name: String,
    /// Their organisation.
    pub organisation_id: String,
    /// What the password has to match, a PHC string.
    pub password_hash: String,
    /// The account is locked until then unless this very attempt succeeds.
    pub locked_until: Option<i64>,
}

/// A live session and who it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Session {
    /// The administrator.
    pub administrator_id: String,
    /// The administrator's name.
    pub administrator: String,
    /// The only organisation that this session may see.
    pub organisation_id: String,
    /// That organisation's name.
    pub organisation: String,
    /// What the administrator may do.
    pub role: Role,
    /// When the session was opened, Unix seconds.
    pub created_at: i64,
    /// When it ends unless it is used before, Unix seconds.
    pub expires_at: i64,
}

/// An administrator as a list shows them.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Administrator {
    /// What they type to sign in.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// A budget owner's departments, by name, joined by commas.
    pub departments: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    /// Locked out until then, Unix seconds; may have passed.
    pub locked_until: Option<i64>,
    /// Since when nobody signs in as them, Unix seconds.
    pub disabled_at: Option<i64>,
}

/// The administrators of an organisation, by name.
pub async fn administrators(store: &Store, organisation_id: &str) -> Result<Vec<Administrator>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT a.name, a.role, a.created_at, a.locked_until, a.disabled_at,
            (SELECT STRING_AGG(d.name, ', ' ORDER BY d.name) FROM administrator_departments o
             INNER JOIN departments d ON d.id = o.department_id
             WHERE o.administrator_id = a.id) AS departments
         FROM administrators a WHERE a.organisation_id = $1 ORDER BY a.name",
    )
    .bind(organisation_id)
    .fetch_all(store.reader())
    .await?)
}

/// Adds an administrator of an organisation. `password_hash` is argon2id as a PHC string;
/// `name` is what is typed to sign in, unique over all organisations. The departments are a
/// budget owner's.
pub async fn create_administrator(
    store: &Store,
    organisation: &Organisation,
    (name, role, departments): (&str, Role, &[Department]),
    password_hash: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let id = Uuid::now_v7().to_string();
    let mut transaction = store.begin().await?;
    let inserted = sqlx::query(
        "INSERT INTO administrators
            (id, organisation_id, name, password_hash, created_at, failed_attempts, role)
         VALUES ($1, $2, $3, $4, $5, 0, $6) ON CONFLICT DO NOTHING",
    )
    .bind(&id)
    .bind(&organisation.id)
    .bind(name)
    .bind(password_hash)
    .bind(column(now.0))
    .bind(role)
    .execute(&mut *transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(StoreError::Exists { kind: "account", name: name.into() });
    }
    roles::give(&mut transaction, (&id, &organisation.id), role, departments).await?;
    let detail = roles::words(role, departments);
    let deed = Deed { detail: &detail, ..deed(&organisation.id, actor, "administrator_create", name) };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// The organisation of an administrator.
pub async fn organisation_of(store: &Store, name: &str) -> Result<Organisation, StoreError> {
    sqlx::query_as(
        "SELECT o.id, o.name, o.created_at FROM organisations o
         INNER JOIN administrators a ON a.organisation_id = o.id WHERE a.name = $1",
    )
    .bind(name)
    .fetch_optional(store.reader())
    .await?
    .ok_or_else(|| StoreError::NotFound { kind: "account", name: name.into() })
}

/// Gives an administrator a new password, ends their sessions and lifts a lock-out.
pub async fn set_password(
    store: &Store,
    name: &str,
    password_hash: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let found: Option<(String, String)> = sqlx::query_as(
        "UPDATE administrators SET password_hash = $2, failed_attempts = 0, locked_until = NULL
         WHERE name = $1 RETURNING id, organisation_id",
    )
    .bind(name)
    .bind(password_hash)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((id, organisation_id)) = found else {
        return Err(StoreError::NotFound { kind: "account", name: name.into() });
    };
    sqlx::query("DELETE FROM sessions WHERE administrator_id = $1")
        .bind(&id)
        .execute(&mut *transaction)
        .await?;
    let deed = deed(&organisation_id, actor, "administrator_password", name);
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// Counts one attempt for `name` and returns what to check the password against. `None`
/// for an unknown name, a locked and a disabled account alike: the caller must not tell them
/// apart, neither in what it answers nor in how long it takes.
pub async fn claim_attempt(
    store: &Store,
    name: &str,
    now: UnixSeconds,
) -> Result<Option<ClaimedAttempt>, StoreError> {
    let mut transaction = store.begin().await?;
    let claimed: Option<ClaimedAttempt> = sqlx::query_as(
        "UPDATE administrators
         SET failed_attempts = CASE WHEN locked_until IS NULL THEN failed_attempts + 1 ELSE 1 END,
             locked_until = CASE WHEN locked_until IS NULL AND failed_attempts + 1 >= $3 THEN $4 END
         WHERE name = $1 AND disabled_at IS NULL AND (locked_until IS NULL OR locked_until <= $2)
         RETURNING id, name, organisation_id, password_hash, locked_until",
    )
    .bind(name)
    .bind(column(now.0))
    .bind(ATTEMPTS_BEFORE_LOCK)
    .bind(column(now.plus(LOCK_DURATION_S).0))
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(claimed)
}

/// Notes that a claimed attempt locked its account: the password was wrong once more.
pub async fn note_locked_out(
    store: &Store,
    attempt: &ClaimedAttempt,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let deed = deed(&attempt.organisation_id, &attempt.name, "sign_in_locked", &attempt.name);
    crate::audit::record_alone(store, now, deed).await
}

/// Opens a session after the password matched, and forgets the failed attempts.
/// `session_hash` is the SHA-256 of the cookie, hexadecimal.
pub async fn open_session(
    store: &Store,
    attempt: &ClaimedAttempt,
    session_hash: &str,
    now: UnixSeconds,
    expires_at: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    sqlx::query("UPDATE administrators SET failed_attempts = 0, locked_until = NULL WHERE id = $1")
        .bind(&attempt.id)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "DELETE FROM sessions WHERE expires_at <= $1 OR hash IN
         (SELECT hash FROM sessions WHERE administrator_id = $2
          ORDER BY created_at DESC, hash LIMIT $4 OFFSET $3)",
    )
    .bind(column(now.0))
    .bind(&attempt.id)
    .bind(SESSIONS_PER_ADMINISTRATOR - 1)
    .bind(i64::MAX)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (hash, administrator_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(session_hash)
    .bind(&attempt.id)
    .bind(column(now.0))
    .bind(column(expires_at.0))
    .execute(&mut *transaction)
    .await?;
    record(&mut transaction, now, deed(&attempt.organisation_id, &attempt.name, "sign_in", &attempt.name))
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// The session of a cookie, unless it has ended.
pub async fn session(
    store: &Store,
    session_hash: &str,
    now: UnixSeconds,
) -> Result<Option<Session>, StoreError> {
    let session = sqlx::query_as(
        "SELECT a.id AS administrator_id, a.name AS administrator, o.id AS organisation_id,
                o.name AS organisation, a.role, s.created_at, s.expires_at
         FROM sessions s
         JOIN administrators a ON a.id = s.administrator_id
         JOIN organisations o ON o.id = a.organisation_id
         WHERE s.hash = $1 AND s.expires_at > $2 AND a.disabled_at IS NULL",
    )
    .bind(session_hash)
    .bind(column(now.0))
    .fetch_optional(store.reader())
    .await?;
    Ok(session)
}

/// Moves the end of a session that is being used.
pub async fn extend_session(
    store: &Store,
    session_hash: &str,
    expires_at: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    sqlx::query("UPDATE sessions SET expires_at = $2 WHERE hash = $1")
        .bind(session_hash)
        .bind(column(expires_at.0))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Ends a session. Ending one that is gone is no error.
pub async fn close_session(store: &Store, session_hash: &str) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(session_hash).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

impl std::fmt::Debug for ClaimedAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimedAttempt").field("id", &self.id).finish_non_exhaustive()
    }
}

fn deed<'a>(organisation_id: &'a str, actor: &'a str, action: &'a str, subject: &'a str) -> Deed<'a> {
    Deed { organisation: Some(organisation_id), actor, action, subject, detail: "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::newest;
    use crate::directory::create_organisation;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    struct House {
        store: Store,
        organisation: Organisation,
        _directory: tempfile::TempDir,
    }

    async fn house() -> House {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("toktra.db")).await.expect("a database");
        let organisation = create_organisation(&store, "Acme", "cli", NOW).await.expect("an organisation");
        create_administrator(&store, &organisation, ("ada", Role::Owner, &[]), "phc", "cli", NOW)
            .await
            .expect("ada");
        House { store, organisation, _directory: directory }
    }

    async fn claim(house: &House, at: UnixSeconds) -> Option<ClaimedAttempt> {
        claim_attempt(&house.store, "ada", at).await.expect("an answer")
    }

    #[tokio::test]
    async fn the_fifth_wrong_password_locks_the_account_for_a_while() {
        let house = house().await;
        for round in 1..=ATTEMPTS_BEFORE_LOCK {
            let attempt = claim(&house, NOW).await.expect("an attempt");
            assert_eq!(attempt.locked_until.is_some(), round == ATTEMPTS_BEFORE_LOCK);
        }
        assert!(claim(&house, NOW).await.is_none());
        assert!(claim(&house, NOW.plus(LOCK_DURATION_S - 1)).await.is_none());
        let after = NOW.plus(LOCK_DURATION_S);
        for _ in 0..ATTEMPTS_BEFORE_LOCK {
            assert!(claim(&house, after).await.is_some());
        }
        assert!(claim(&house, after).await.is_none());
    }

    #[tokio::test]
    async fn signing_in_forgets_the_failed_attempts() {
        let house = house().await;
        for round in 0..4 {
            for _ in 0..ATTEMPTS_BEFORE_LOCK - 2 {
                assert!(claim(&house, NOW).await.is_some());
            }
            let attempt = claim(&house, NOW).await.expect("an attempt");
            open_session(&house.store, &attempt, &format!("h{round}"), NOW, NOW.plus(60))
                .await
                .expect("a session");
        }
    }

    #[tokio::test]
    async fn an_unknown_name_claims_nothing() {
        let house = house().await;
        assert!(claim_attempt(&house.store, "eve", NOW).await.expect("an answer").is_none());
    }

    #[tokio::test]
    async fn a_session_ends_when_it_expires_or_is_closed_and_lives_on_when_extended() {
        let house = house().await;
        let attempt = claim(&house, NOW).await.expect("an attempt");
        let store = &house.store;
        open_session(store, &attempt, "h", NOW, NOW.plus(60)).await.expect("a session");
        let open = session(store, "h", NOW.plus(59)).await.expect("an answer").expect("a session");
        assert_eq!((open.administrator.as_str(), open.organisation.as_str()), ("ada", "Acme"));
        assert_eq!(session(store, "h", NOW.plus(60)).await.expect("an answer"), None);
        extend_session(store, "h", NOW.plus(120)).await.expect("extended");
        assert!(session(store, "h", NOW.plus(60)).await.expect("an answer").is_some());
        close_session(store, "h").await.expect("closed");
        assert_eq!(session(store, "h", NOW).await.expect("an answer"), None);
    }

    #[tokio::test]
    async fn the_oldest_session_gives_way_to_the_seventeenth() {
        let house = house().await;
        let attempt = claim(&house, NOW).await.expect("an attempt");
        let last = u64::try_from(SESSIONS_PER_ADMINISTRATOR).expect("a small number");
        for round in 0..=last {
            let at = NOW.plus(round);
            open_session(&house.store, &attempt, &format!("h{round}"), at, at.plus(600)).await.expect("open");
        }
        let now = NOW.plus(last);
        assert_eq!(session(&house.store, "h0", now).await.expect("an answer"), None);
        assert!(session(&house.store, "h1", now).await.expect("an answer").is_some());
        assert!(session(&house.store, &format!("h{last}"), now).await.expect("an answer").is_some());
    }

    #[tokio::test]
    async fn a_new_password_lifts_the_lock_and_ends_the_sessions() {
        let house = house().await;
        let attempt = claim(&house, NOW).await.expect("an attempt");
        open_session(&house.store, &attempt, "h", NOW, NOW.plus(60)).await.expect("a session");
        for _ in 0..ATTEMPTS_BEFORE_LOCK {
            claim(&house, NOW).await;
        }
        assert!(claim(&house, NOW).await.is_none());
        set_password(&house.store, "ada", "new", "cli", NOW).await.expect("set");
        assert_eq!(claim(&house, NOW).await.expect("an attempt").password_hash, "new");
        assert_eq!(session(&house.store, "h", NOW).await.expect("an answer"), None);
        let unknown = set_password(&house.store, "eve", "new", "cli", NOW).await;
        assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_name_is_taken_once_and_the_audit_tells_what_happened() {
        let house = house().await;
        let again = create_administrator(
            &house.store,
            &house.organisation,
            ("ada", Role::Admin, &[]),
            "phc",
            "cli",
            NOW,
        )
        .await;
        assert!(matches!(again, Err(StoreError::Exists { .. })));
        let attempt = claim(&house, NOW).await.expect("an attempt");
        open_session(&house.store, &attempt, "h", NOW, NOW.plus(60)).await.expect("a session");
        note_locked_out(&house.store, &attempt, NOW).await.expect("noted");
        let rows = newest(&house.store, 3).await.expect("rows");
        let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
        assert_eq!(actions, ["sign_in_locked", "sign_in", "administrator_create"]);
    }
}
