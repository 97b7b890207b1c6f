//! A small house that the tests of reports look into.

use crate::Store;

/// A database with two organisations, each of one department with one device.
pub(crate) struct House {
    pub(crate) store: Store,
    directory: tempfile::TempDir,
}

impl House {
    /// The database's file.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("toktra.db")
    }

    /// Writes rows that other rooms would; `parameters` are bound as texts.
    pub(crate) async fn write(&self, sql: &'static str, parameters: &[&str]) {
        let mut transaction = self.store.begin().await.expect("a transaction");
        let mut query = sqlx::query(sql);
        for parameter in parameters {
            query = query.bind(*parameter);
        }
        query.execute(&mut *transaction).await.expect("a row");
        transaction.commit().await.expect("committed");
    }
}

/// Makes it.
pub(crate) async fn house() -> House {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&directory.path().join("toktra.db")).await.expect("a database");
    let house = House { store, directory };
    for (organisation, department, device) in [("o1", "g1", "d1"), ("o2", "g2", "d2")] {
        house
            .write("INSERT INTO organisations (id, name, created_at) VALUES ($1, $1, 0)", &[organisation])
            .await;
        house
            .write(
                "INSERT INTO departments (id, organisation_id, name, created_at)
                 VALUES ($2, $1, 'Dept ' || $2, 0)",
                &[organisation, department],
            )
            .await;
        house
            .write(
                "INSERT INTO devices (id, organisation_id, department_id, hostname, platform, agent_version,
                                      state, enrolled_at, acknowledged_sequence, directive_version)
                 VALUES ($3, $1, $2, 'host-' || $3, 'linux', '0.1.0', 'enrolled', 0, 7, 1)",
                &[organisation, department, device],
            )
            .await;
    }
    house
}
