//! A desktop of a test's own: a bus, a StatusNotifierWatcher, a notification server, and
//! eyes and a hand for the icon. And an agent that says what a test tells it to.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use toktra_protocol::local::{self, Answer, Ask, CONTROL_SOCKET, Frames, Status};
use zbus::export::futures_core::Stream as _;
use zbus::zvariant::{OwnedValue, Value};
use zbus::{Connection, MatchRule, MessageStream, interface};

const PATIENCE: Duration = Duration::from_secs(60);
const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

/// Everybody may do everything, and nothing is started by the bus.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir=DIRECTORY</listen><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"#;

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Desktop {
    pub directory: tempfile::TempDir,
    address: String,
    eyes: Connection,
    _bus: Process,
}

/// What was shown: urgency, summary, body.
pub type Shown = (u8, String, String);

/// A server that keeps what it was given.
pub struct Server<T> {
    pub received: watch::Receiver<Vec<T>>,
    connection: Connection,
}

impl<T> Server<T> {
    /// Takes it off the bus.
    pub async fn stop(self) {
        self.connection.close().await.unwrap();
    }
}

impl Desktop {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("bus.conf");
        let place = directory.path().to_str().unwrap();
        std::fs::write(&config, BUS.replace("DIRECTORY", place)).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1", "--config-file"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed by `scripts/setup test`");
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let eyes = connect(&address).await;
        Self { directory, address, eyes, _bus: Process(bus) }
    }

    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Starts the menu, with a `zenity` that answers with a reason.
    pub fn menu(&self) -> Process {
        let programs = self.directory.path().join("bin");
        std::fs::create_dir_all(&programs).unwrap();
        let zenity = programs.join("zenity");
        std::fs::write(&zenity, "#!/bin/sh\necho '  A deadline on Friday '\n").unwrap();
        std::fs::set_permissions(&zenity, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_toktra-agent"))
            .arg("--run-dir")
            .arg(self.run_directory())
            .arg("menu")
            .env_clear()
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .env("XDG_STATE_HOME", self.directory.path().join("state"))
            .env("PATH", programs)
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }

    /// Whatever draws icons; receives the bus names of items.
    pub async fn watcher(&self) -> Server<String> {
        let (sender, received) = watch::channel(Vec::new());
        let connection = connect(&self.address).await;
        connection.object_server().at("/StatusNotifierWatcher", Watcher(sender)).await.unwrap();
        connection.request_name("org.kde.StatusNotifierWatcher").await.unwrap();
        Server { received, connection }
    }

    /// Whatever shows notifications.
    pub async fn notifications(&self) -> Server<Shown> {
        let (sender, received) = watch::channel(Vec::new());
        let connection = connect(&self.address).await;
        connection.object_server().at("/org/freedesktop/Notifications", Notifications(sender)).await.unwrap();
        connection.request_name("org.freedesktop.Notifications").await.unwrap();
        Server { received, connection }
    }

    /// What is to be seen once `is_true` of it. Looks anew at every signal.
    pub async fn until(&self, item: &str, what: &str, is_true: impl Fn(&Sight) -> bool) -> Sight {
        let rule = MatchRule::builder().msg_type(zbus::message::Type::Signal).build();
        let mut signals = MessageStream::for_match_rule(rule, &self.eyes, None).await.unwrap();
        let mut last = None;
        let looked = async {
            loop {
                let sight = self.look(item).await;
                if is_true(&sight) {
                    return sight;
                }
                last = Some(sight);
                poll_fn(|context| Pin::new(&mut signals).poll_next(context)).await.unwrap().unwrap();
            }
        };
        match timeout(PATIENCE, looked).await {
            Ok(sight) => sight,
            Err(_) => panic!("never: {what}; last seen: {last:?}"),
        }
    }

    /// Everything that a desktop reads.
    async fn look(&self, item: &str) -> Sight {
        let asked = self.eyes.call_method(
            Some(item),
            "/StatusNotifierItem",
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &ITEM,
        );
        let reply = asked.await.unwrap();
        let mut all: HashMap<String, OwnedValue> = reply.body().deserialize().unwrap();
        let mut take = |name: &str| all.remove(name).unwrap();
        let pixmaps: Vec<Pixels> = take("IconPixmap").try_into().unwrap();
        let tooltip: (String, Vec<Pixels>, String, String) = take("ToolTip").try_into().unwrap();
        Sight {
            icons: pixmaps.into_iter().map(|(width, _, argb)| (width, argb)).collect(),
            title: take("Title").try_into().unwrap(),
            status: take("Status").try_into().unwrap(),
            tooltip: (tooltip.2, tooltip.3),
            items: self.items(item).await,
        }
    }

    async fn items(&self, item: &str) -> Vec<Entry> {
        let all: (i32, i32, Vec<&str>) = (0, -1, Vec::new());
        let asked = self.eyes.call_method(Some(item), "/MenuBar", Some(MENU), "GetLayout", &all);
        let reply = asked.await.unwrap();
        let body = reply.body();
        let (_, (_, _, children)): (u32, Node<'_>) = body.deserialize().unwrap();
        let mut entries = Vec::new();
        flatten(&children, &mut entries);
        entries
    }

    pub async fn click(&self, item: &str, entry: i32) {
        let event = (entry, "clicked", Value::from(0_i32), 0_u32);
        self.eyes.call_method(Some(item), "/MenuBar", Some(MENU), "Event", &event).await.unwrap();
    }
}

/// Width, height, and the pixels.
type Pixels = (i32, i32, Vec<u8>);
/// Identifier, properties and children of an item.
type Node<'a> = (i32, HashMap<String, Value<'a>>, Vec<Value<'a>>);

fn flatten(children: &[Value<'_>], entries: &mut Vec<Entry>) {
    for child in children {
        let (id, properties, inner): Node<'_> = child.try_clone().unwrap().try_into().unwrap();
        let label =
            properties.get("label").map(|label| String::try_from(label.try_clone().unwrap()).unwrap());
        let enabled = properties.get("enabled").is_none_or(|enabled| bool::try_from(enabled).unwrap());
        entries.push(Entry { id, label: label.unwrap_or_default(), enabled });
        flatten(&inner, entries);
    }
}

/// What a desktop reads of the icon.
#[derive(Debug)]
pub struct Sight {
    pub icons: Vec<(i32, Vec<u8>)>,
    pub title: String,
    pub status: String,
    pub tooltip: (String, String),
    pub items: Vec<Entry>,
}

#[derive(Debug)]
pub struct Entry {
    pub id: i32,
    pub label: String,
    pub enabled: bool,
}

async fn connect(address: &str) -> Connection {
    zbus::connection::Builder::address(address).unwrap().build().await.unwrap()
}

/// The last thing received, once `is_true` of all.
pub async fn received<T: Clone>(
    receiver: &mut watch::Receiver<Vec<T>>,
    what: &str,
    is_true: impl Fn(&[T]) -> bool,
) -> T {
    let wait = receiver.wait_for(|all| is_true(all));
    let all = timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}")).unwrap();
    all.last().unwrap().clone()
}

struct Watcher(watch::Sender<Vec<String>>);

#[interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&self, service: String) {
        self.0.send_modify(|items| items.push(service));
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }
}

struct Notifications(watch::Sender<Vec<Shown>>);

#[interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".to_owned(), "body-markup".to_owned()]
    }

    #[allow(clippy::too_many_arguments, reason = "the specification's")]
    fn notify(
        &self,
        _app_name: String,
        _replaces_id: u32,
        _app_icon: String,
        summary: String,
        body: String,
        _actions: Vec<String>,
        hints: HashMap<String, OwnedValue>,
        _expire_timeout: i32,
    ) -> u32 {
        let urgency = u8::try_from(&hints["urgency"]).unwrap();
        self.0.send_modify(|all| all.push((urgency, summary, body)));
        1
    }
}

/// An agent that says what a test tells it to.
pub struct Agent {
    pub says: watch::Sender<Status>,
    pub asked: watch::Receiver<Vec<Ask>>,
    serving: JoinHandle<()>,
    socket: PathBuf,
}

impl Agent {
    pub fn start(run: &Path, status: Status) -> Self {
        std::fs::create_dir_all(run).unwrap();
        let socket = run.join(CONTROL_SOCKET);
        let listener = UnixListener::bind(&socket).unwrap();
        let (says, hears) = watch::channel(status);
        let (asks, asked) = watch::channel(Vec::new());
        let asks = Arc::new(Mutex::new(asks));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, hears.clone(), Arc::clone(&asks)));
            }
        });
        Self { says, asked, serving, socket }
    }

    /// Goes, connections and all.
    pub async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
        std::fs::remove_file(self.socket).unwrap();
    }
}

async fn serve(
    mut stream: UnixStream,
    mut says: watch::Receiver<Status>,
    asks: Arc<Mutex<watch::Sender<Vec<Ask>>>>,
) {
    let (mut frames, mut buffer) = (Frames::default(), [0; 4096]);
    let ask: Ask = loop {
        if let Some(ask) = frames.take().unwrap() {
            break ask;
        }
        let read = stream.read(&mut buffer).await.unwrap();
        frames.push(&buffer[..read]);
    };
    asks.lock().unwrap().send_modify(|all| all.push(ask.clone()));
    if ask != Ask::Watch {
        let answer = Answer::Done { message: "Your administrators were asked.".into() };
        stream.write_all(&local::encode(&answer).unwrap()).await.unwrap();
        return;
    }
    loop {
        let status = says.borrow_and_update().clone();
        let answer = Answer::Status(Box::new(status));
        if stream.write_all(&local::encode(&answer).unwrap()).await.is_err() || says.changed().await.is_err()
        {
            return;
        }
    }
}
