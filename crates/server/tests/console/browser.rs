//! Headless Chromium, driven over the two pipes of its DevTools protocol
//! (`--remote-debugging-pipe`, messages end with a zero byte): no driver, no port, no crate.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long any one thing may take; only a stuck browser reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    next_id: u64,
    /// Every event since the start, in order.
    pub events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts Chromium and opens an empty page in it. `None` where Chromium is not installed.
    pub fn start() -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let name = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            let mut version = Command::new(name);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        })?;
        // The shell only moves the pipes to where Chromium looks for them.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#, "sh", name])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--ignore-certificate-errors"])
            .args(["--remote-debugging-pipe", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let messages = read(child.stdout.take().unwrap());
        let mut browser =
            Self { child, input, messages, session: None, next_id: 0, events: vec![], _profile: profile };
        browser.attach();
        Some(browser)
    }

    /// Calls a method of the protocol and returns its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.input.write_all(&bytes).unwrap();
        self.input.flush().unwrap();
        loop {
            let mut message = self.receive();
            if message["id"] == json!(id) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// Does something that leads to another page, and waits until that is loaded.
    pub fn and_wait_for_load(&mut self, act: impl FnOnce(&mut Self)) {
        let before = self.events.len();
        act(self);
        self.wait_for(before, |event| event["method"] == "Page.loadEventFired");
    }

    /// Waits for an event that is, or comes, after the first `from` ones.
    pub fn wait_for(&mut self, from: usize, wanted: impl Fn(&Value) -> bool) {
        while !self.events[from..].iter().any(&wanted) {
            let message = self.receive();
            self.events.push(message);
        }
    }

    pub fn open(&mut self, url: &str) {
        self.and_wait_for_load(|browser| {
            let result = browser.call("Page.navigate", json!({ "url": url }));
            assert!(result["errorText"].is_null(), "{url}: {result}");
        });
    }

    /// Evaluates an expression in the page, with the debugger's rights, and returns its value.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let result =
            self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Sets the width of the window and whether the system prefers dark.
    pub fn dress(&mut self, width: u32, dark: bool) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// The whole page as a PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        use base64::Engine as _;
        let options = json!({ "format": "png", "captureBeyondViewport": true });
        let data = self.call("Page.captureScreenshot", options)["data"].take();
        base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap()).unwrap()
    }

    fn attach(&mut self) {
        let targets = self.call("Target.getTargets", json!({}));
        let targets = targets["targetInfos"].as_array().unwrap().clone();
        let page = targets.iter().find(|target| target["type"] == "page").expect("a page");
        let options = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", options);
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "Security"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    fn receive(&mut self) -> Value {
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("Chromium said nothing for {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("Chromium ended"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium's helpers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(output: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut message = Vec::new();
        while output.read_until(0, &mut message).is_ok_and(|bytes| bytes > 0) {
            message.pop();
            let Ok(value) = serde_json::from_slice(&message) else { return };
            if sender.send(value).is_err() {
                return;
            }
            message.clear();
        }
    });
    receiver
}
