//! A real agent, watched: what a menu hears of a lock, and what becomes of a wish for more.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::{Backend, Device};
use toktra_protocol::Lock;
use toktra_protocol::local::{self, Answer, Ask, CONTROL_SOCKET, Frames, Status};

struct Watcher {
    stream: UnixStream,
    frames: Frames,
}

impl Watcher {
    fn of(device: &Device) -> Self {
        let mut stream = UnixStream::connect(device.socket().with_file_name(CONTROL_SOCKET)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&local::encode(&Ask::Watch).unwrap()).unwrap();
        Self { stream, frames: Frames::default() }
    }

    fn until(&mut self, is_true: impl Fn(&Status) -> bool) {
        let mut buffer = [0; 4096];
        loop {
            while let Some(answer) = self.frames.take().unwrap() {
                match answer {
                    Answer::Status(status) if is_true(&status) => return,
                    Answer::Status(_) => {}
                    other => panic!("no status: {other:?}"),
                }
            }
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the agent went away");
            self.frames.push(&buffer[..read]);
        }
    }
}

fn running(backend: &Backend) -> Device {
    let mut device = Device::enrolled(backend);
    device.start();
    let runs = |status: &Status| !status.degraded.iter().any(|words| words.contains("agent is not running"));
    device.until("the agent runs", runs);
    device
}

#[test]
fn every_watcher_hears_of_a_lock_and_of_its_end() {
    let backend = Backend::start();
    let device = running(&backend);
    let mut watchers = [Watcher::of(&device), Watcher::of(&device)];
    for message in [Some("Call us."), None, Some("Again.")] {
        let lock = message.map(|message| Lock { message: message.to_owned() });
        backend.change(|books| {
            books.lock.clone_from(&lock);
            books.directive += 1;
        });
        for watcher in &mut watchers {
            watcher.until(|status| status.directive_version.is_some() && status.lock == lock);
        }
    }
}

#[test]
fn a_wish_for_more_where_no_budget_applies_is_refused_in_words() {
    let backend = Backend::start();
    let device = running(&backend);
    let output = device.command(&["budget", "request", "--reason", "A deadline"]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("no such budget applies"), "{words}");
    let output = device.command(&["budget"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("No budget applies to this device."));
}
