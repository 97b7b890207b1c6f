//! Looking for marks where nothing of them may be: in files and tables, in core dumps of processes, in captured
//! packets, and in what crossed to the backend as whoever has its keys reads it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use toktra_testkit::installation::Environment;
use toktra_testkit::lab::Lab;
use toktra_testkit::process::output;

use crate::clients::{script, venv};

/// A mark that was found somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Find {
    /// A file; of a database, its table too.
    pub place: String,
    /// What was found.
    pub mark: String,
    /// `plain`, or how it was encoded.
    pub form: String,
}

/// Searches files, and directories with all below them, in every encoding that `taint.py` knows.
pub fn search(marks: &[&str], places: &[PathBuf]) -> BTreeSet<Find> {
    let mut command = Command::new(venv());
    command.arg(script("taint.py")).args(marks).arg("--").args(places);
    let found = output(&mut command).unwrap();
    let parse = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let [place, mark, form] = [0, 1, 2].map(|at: usize| parts[at].to_owned());
        Find { place, mark, form }
    };
    found.lines().map(parse).collect()
}

/// A core dump of a process that goes on, with all that is mapped, as `gcore` takes it.
pub fn core(process: u32, file: &Path) {
    let mut debugger = Command::new("gdb");
    debugger.args(["--nx", "--batch", "--readnever", "--pid", &process.to_string()]);
    debugger.args(["-ex", "set use-coredump-filter off", "-ex", "set dump-excluded-mappings on"]);
    output(debugger.arg("-ex").arg(format!("generate-core-file {}", file.display()))).unwrap();
    assert!(fs::metadata(file).unwrap().len() > 1 << 20, "there is no core of {process}");
}

/// What passes an interface, written into a capture file.
#[derive(Debug)]
pub struct Packets(Child);

impl Packets {
    fn of(mut command: Command, interface: &str, file: &Path) -> Self {
        command.arg(script("packets.py")).arg(interface).arg(file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self(child)
    }

    /// Of the machine itself, over whose loopback devices speak to their backend.
    pub fn of_backend(file: &Path) -> Self {
        Self::of(Command::new("python3"), "lo", file)
    }

    /// Of the network on which a device's clients are.
    pub fn of_clients(lab: &Lab, file: &Path) -> Self {
        Self::of(lab.client("python3"), "lab0", file)
    }

    /// Ends it with all packets written.
    pub fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Everything that crosses to a backend, in a directory, from before its devices enrol.
#[derive(Debug)]
pub struct Uplink {
    directory: PathBuf,
    packets: Packets,
}

impl Uplink {
    /// Begins to record.
    pub fn record(directory: &Path) -> Self {
        let packets = Packets::of_backend(&directory.join("uplink.pcap"));
        Self { directory: directory.to_owned(), packets }
    }

    /// With this the backend writes the keys of its connections down.
    pub fn environment(&self) -> Environment {
        vec![("SSLKEYLOGFILE", self.directory.join("keys").into())]
    }

    /// Ends it. The packets, and in a directory what was said under TLS to and by the backend on this port.
    pub fn end(self, port: u16) -> [PathBuf; 2] {
        self.packets.end();
        let [packets, keys, said] = ["uplink.pcap", "keys", "said"].map(|name| self.directory.join(name));
        fs::create_dir(&said).unwrap();
        let mut open = Command::new(venv());
        open.arg(script("opened.py")).args([&packets, &keys]).arg(port.to_string()).arg(&said);
        let opened = output(&mut open).unwrap();
        assert!(opened.trim().parse::<u32>().unwrap() > 1, "nobody spoke to the backend");
        [packets, said]
    }
}
