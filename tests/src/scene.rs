//! One installation for all tests of a file, used by one test at a time.

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use toktra_testkit::installation::{Event, Installation};
use toktra_testkit::lab::Lab;
use toktra_testkit::metered::Metered;
use toktra_testkit::tally::Connection;

/// The installation, for as long as a test needs it.
#[derive(Debug)]
pub struct Scene(MutexGuard<'static, Installation>);

impl Scene {
    /// Waits for the installation of this test program; the first to come sets it up.
    pub fn enter() -> Self {
        // Never dropped: the lab's janitor cleans up when this program ends.
        static SCENE: OnceLock<Mutex<Installation>> = OnceLock::new();
        let scene = SCENE.get_or_init(|| {
            Mutex::new(Installation::start(|_| ()).unwrap_or_else(|error| panic!("{error:?}")))
        });
        Self(scene.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Deref for Scene {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Installation {
        &mut self.0
    }
}

/// Runs a client and says what became of its traffic.
pub fn meter(client: impl FnOnce(&Lab) -> Command) -> Metered {
    let mut scene = Scene::enter();
    let mut command = client(&scene.lab);
    scene.meter(&mut command).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The same for a client behind the proxy.
pub fn meter_at_proxy(client: impl FnOnce(&Lab) -> Command) -> Metered {
    let mut scene = Scene::enter();
    let mut command = client(&scene.lab);
    scene.meter_at_proxy(&mut command).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Asserts that the backend has exactly the simulator's connections, one usage event for each,
/// under this host's name and with exactly the bytes that passed. Returns the first event.
pub fn assert_exact<'a>(metered: &'a Metered, host: &str, name_source: &str) -> &'a Event {
    assert!(!metered.connections.is_empty(), "the simulator saw no connection");
    let mut passed: Vec<u64> = metered.connections.iter().map(Connection::bytes).collect();
    let mut counted: Vec<u64> = metered.events.iter().map(Event::bytes).collect();
    passed.sort_unstable();
    counted.sort_unstable();
    assert_eq!(counted, passed, "{metered:#?}");
    assert_names(metered, host, name_source);
    &metered.events[0]
}

/// Asserts that all events are usage under this host's name, seen from the connection's start.
pub fn assert_names(metered: &Metered, host: &str, name_source: &str) {
    for event in &metered.events {
        assert_eq!(event.kind, "usage", "{event:#?}");
        assert_eq!(event.host.as_deref(), Some(host));
        assert_eq!(event.name_source.as_deref(), Some(name_source));
        assert_eq!(event.partial, Some(0));
    }
}
