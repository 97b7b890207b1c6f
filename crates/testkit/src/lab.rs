//! The lab: two network namespaces joined by a veth pair, a client's and the providers',
//! and a cgroup of its own, so that nothing outside is seen or touched. The simulator runs
//! in a thread of this process inside the providers' namespace; programs run in the
//! client's, where the providers' real names lead to the simulator.
//!
//! Whatever becomes of this process (drop, panic, Ctrl-C, `kill -9`), the *janitor* undoes
//! everything: a shell that waits for its standard input to end, which is the moment when
//! this process closes it or dies.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::authority::Authority;
use crate::simulator::{Options, Simulator};
use crate::tally::{Connection, Ledger};

/// Real names of providers that the lab's hosts file leads to the simulator.
pub const PROVIDERS: [&str; 4] =
    ["api.openai.com", "api.anthropic.com", "chatgpt.com", "generativelanguage.googleapis.com"];
/// A name of no provider, answered by the simulator all the same.
pub const NO_PROVIDER: &str = "intranet.example";
/// Port of the proxy, on [`PROXY_HOST`].
pub const PROXY_PORT: u16 = 8080;
/// Name of the proxy.
pub const PROXY_HOST: &str = "proxy.example";

const SIMULATOR_V4: &str = "10.77.0.1";
const SIMULATOR_V6: &str = "fd77::1";

/// `$1` identifier, `$2` directory, `$3` cgroup.
const JANITOR: &str = r#"
trap '' INT TERM HUP
echo ready
cat >/dev/null
for signal in TERM KILL KILL; do
    for group in "$3"/clients "$3"/services; do
        for pid in $(cat "$group/cgroup.procs" 2>/dev/null); do kill -s "$signal" "$pid"; done
    done
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -z "$(cat "$3"/*/cgroup.procs 2>/dev/null)" ] && break 2
        sleep 0.1
    done
done
for name in "$1-c" "$1-s"; do
    ip netns delete "$name"
    rm -rf "/etc/netns/$name"
done
rmdir /etc/netns
rm -rf "$2"
rmdir "$3"/clients "$3"/services "$3"
"#;

/// Namespaces, cgroup and simulator of one run.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    cgroup: PathBuf,
    authority: Arc<Authority>,
    ledger: Arc<Ledger>,
    janitor: Child,
}

impl Lab {
    /// Builds everything. Needs root, `ip` and a cgroup v2 mount.
    pub fn new() -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the lab makes network namespaces and a cgroup: run this as root"
        );
        sweep();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("toktra-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&id);
        let cgroup = cgroup_mount()?.join(&id);
        let janitor = janitor(&id, &directory, &cgroup)?;
        let (authority, ledger) = (Arc::new(Authority::new()?), Arc::default());
        // From here on a failure drops the lab, and the janitor cleans up what there is.
        let lab = Self { id, directory, cgroup, authority, ledger, janitor };
        lab.build()?;
        lab.simulate()?;
        Ok(lab)
    }

    /// A directory that goes with the lab.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory in it for what clients write themselves.
    pub fn client_directory(&self) -> PathBuf {
        self.directory.join("clients")
    }

    /// The cgroup in which clients run: what the extension is to watch.
    pub fn client_cgroup(&self) -> PathBuf {
        self.cgroup.join("clients")
    }

    /// The certificate authority of the simulator.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The root certificate's file.
    pub fn root_certificate(&self) -> PathBuf {
        self.directory.join("providers.pem")
    }

    /// What the simulator has counted.
    pub fn connections(&self) -> Vec<Connection> {
        self.ledger.connections()
    }

    /// A program in the client's namespace and cgroup, told to trust the simulator's root.
    pub fn client(&self, program: &str) -> Command {
        let ca = self.root_certificate();
        let mut command = self.within("clients");
        command.args(["ip", "netns", "exec", &self.namespace("c"), program]);
        for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            command.env(name, &ca);
        }
        command.env("HOME", self.client_directory());
        command
    }

    /// A program that ends with the lab: in the machine's own namespaces, outside the clients' cgroup.
    pub fn service(&self, program: &Path) -> Command {
        let mut command = self.within("services");
        command.arg(program);
        command
    }

    fn within(&self, group: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec "$@""#]).arg(self.cgroup.join(group));
        command
    }

    fn namespace(&self, side: &str) -> String {
        format!("{}-{side}", self.id)
    }

    fn build(&self) -> anyhow::Result<()> {
        for group in ["clients", "services"] {
            fs::create_dir_all(self.cgroup.join(group)).context("make the lab's cgroup")?;
        }
        fs::create_dir_all(self.client_directory())?;
        fs::write(self.root_certificate(), self.authority.root_pem())?;
        let (client, server) = (self.namespace("c"), self.namespace("s"));
        let etc = Path::new("/etc/netns").join(&client);
        fs::create_dir_all(&etc)?;
        fs::write(etc.join("hosts"), hosts())?;
        // Names that the hosts file lacks fail at once, and nothing leaves the lab.
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        ip(&format!("netns add {client}"))?;
        ip(&format!("netns add {server}"))?;
        ip(&format!("link add lab0 netns {client} type veth peer name lab0 netns {server}"))?;
        for (name, last) in [(&server, 1), (&client, 2)] {
            ip(&format!("-n {name} address add 10.77.0.{last}/24 dev lab0"))?;
            ip(&format!("-n {name} address add fd77::{last}/64 dev lab0 nodad"))?;
            ip(&format!("-n {name} link set lab0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(())
    }

    fn simulate(&self) -> anyhow::Result<()> {
        let namespace = fs::File::open(Path::new("/run/netns").join(self.namespace("s")))?;
        let (authority, ledger) = (self.authority.clone(), self.ledger.clone());
        let (ready, started) = mpsc::channel();
        std::thread::Builder::new().name("simulator".into()).spawn(move || {
            let run = || -> anyhow::Result<()> {
                use std::os::fd::AsFd as _;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let any = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
                    let options = Options { proxy: Some(any(PROXY_PORT)), ..Options::on(any(443)) };
                    let simulator = Simulator::bind(options, authority, ledger).await?;
                    let _ = ready.send(Ok(()));
                    simulator.serve().await;
                    Ok(())
                })
            };
            if let Err(error) = run() {
                let _ = ready.send(Err(error));
            }
        })?;
        started.recv_timeout(Duration::from_secs(10)).context("wait for the simulator")?
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// The mount of cgroup v2, alone or beside version 1.
pub fn cgroup_mount() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    mount.context("no cgroup v2 mount in /proc/mounts: mount one with `mount -t cgroup2 none /sys/fs/cgroup`")
}

fn hosts() -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for name in PROVIDERS.iter().chain([&NO_PROVIDER, &PROXY_HOST]) {
        text += &format!("{SIMULATOR_V4} {name}\n{SIMULATOR_V6} {name}\n");
    }
    text
}

fn janitor(id: &str, directory: &Path, cgroup: &Path) -> anyhow::Result<Child> {
    let mut child = Command::new("sh")
        .args(["-c", JANITOR, "toktra-janitor", id])
        .args([directory, cgroup])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Its own group: Ctrl-C at the terminal ends us, and it outlives us.
        .process_group(0)
        .spawn()
        .context("start the janitor")?;
    let mut ready = String::new();
    BufReader::new(child.stdout.take().context("the janitor's output")?).read_line(&mut ready)?;
    ensure!(ready == "ready\n", "the janitor did not start");
    Ok(child)
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("run ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Removes what earlier runs left whose janitor was killed too.
fn sweep() {
    let Ok(list) = Command::new("ip").args(["netns", "list"]).output() else { return };
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for id in list.split_whitespace().filter_map(|name| name.strip_suffix("-s")) {
        let owner = id.strip_prefix("toktra-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let Some(owner) = owner else { continue };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        let Ok(cgroup) = cgroup_mount() else { return };
        if let Ok(mut child) = janitor(id, &std::env::temp_dir().join(id), &cgroup.join(id)) {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curl(lab: &Lab, arguments: &[&str]) -> String {
        let output = lab.client("curl").args(["-sS", "--max-time", "20"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_client_reaches_the_simulator_under_a_real_name_and_the_lab_leaves_nothing_behind() {
        let lab = Lab::new().unwrap();
        let body = r#"{"max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "hi"}]}"#;
        for flags in [&["--http1.1", "-4"][..], &["--http2", "-6"], &["--tls-max", "1.2"]] {
            let url = "https://api.openai.com/v1/chat/completions";
            let reply = curl(&lab, &[flags, &["-d", body, url]].concat());
            assert_eq!(reply.matches("\"content\":\"").count(), 10, "{reply}");
        }
        curl(&lab, &["-x", "http://proxy.example:8080", "https://api.anthropic.com/"]);
        curl(&lab, &["-x", "socks5h://proxy.example:8080", "https://api.anthropic.com/"]);
        curl(&lab, &["-x", "socks4a://proxy.example:8080", "https://api.anthropic.com/"]);
        let seen = lab.connections();
        let openai: Vec<_> =
            seen.iter().filter(|one| one.server_name.as_deref() == Some("api.openai.com")).collect();
        assert_eq!(openai.len(), 3);
        assert!(openai.iter().all(|one| one.requests == 1 && one.tokens_out == 9 && one.bytes() > 4000));

        let (directory, cgroup, id) = (lab.directory.clone(), lab.cgroup.clone(), lab.id.clone());
        drop(lab);
        assert!(!directory.exists() && !cgroup.exists());
        assert!(!Path::new("/run/netns").join(format!("{id}-c")).exists());
        assert!(!Path::new("/etc/netns").join(format!("{id}-c")).exists());
    }
}
