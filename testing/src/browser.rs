//! A real Chromium for tests of pages, driven through the DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>). Tests are skipped if there is none.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};

use crate::is_required;

/// The names of the program.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Passes the pipes of the DevTools protocol, which are expected at the descriptors 3 and 4.
const WITH_PIPES: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";

/// Returns the path of Chromium. If there is none, prints a message and returns `None`, and the test
/// is skipped.
pub fn program() -> Option<PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = std::env::split_paths(&directories)
        .flat_map(|directory| PROGRAMS.map(|program| directory.join(program)));
    let found = paths.find(|path| path.is_file());
    if found.is_none() {
        let required = is_required("chromium");
        assert!(!required, "MANIFOLD_REQUIRE requires chromium, which is not installed");
        eprintln!("SKIPPED: pages are not tested without Chromium. apt-get install chromium");
    }
    found
}

/// A page in a browser of its own.
#[derive(Debug)]
pub struct Page {
    browser: Child,
    requests: Option<ChildStdin>,
    messages: Receiver<Value>,
    session: Value,
    last_id: u64,
    /// What the page threw, and did not catch.
    problems: Vec<String>,
}

impl Page {
    /// Opens a file in a window of 1,000 by 700 pixels. `place` is an empty directory for the
    /// browser's own files.
    pub fn open(program: &Path, place: &Path, file: &Path) -> Self {
        let mut browser = Command::new("sh")
            .args(["-c", WITH_PIPES])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--window-size=1000,700", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", place.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = browser.stdin.take();
        let mut answers = BufReader::new(browser.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut page = Self {
            browser,
            requests,
            messages,
            session: Value::Null,
            last_id: 0,
            problems: Vec::new(),
        };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        page.session = page.call("Target.attachToTarget", target)["sessionId"].clone();
        page.call("Runtime.enable", json!({}));
        page.call("Page.enable", json!({}));
        page.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        page.wait_for("Page.loadEventFired");
        page
    }

    /// Returns the value of an expression, which can be a promise.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", parameters);
        let exception = &answer["exceptionDetails"];
        assert!(exception.is_null(), "{expression}: {exception}");
        answer["result"]["value"].clone()
    }

    /// Moves, presses or turns the mouse: `mouseMoved`, `mousePressed`, `mouseReleased` or
    /// `mouseWheel` at a place in pixels. `more` has further parameters of `Input.dispatchMouseEvent`.
    pub fn mouse(&mut self, event: &str, (x, y): (f64, f64), more: &Value) {
        let mut parameters = json!({ "type": event, "x": x, "y": y });
        let fields = parameters.as_object_mut().unwrap();
        fields.extend(more.as_object().cloned().unwrap_or_default());
        self.call("Input.dispatchMouseEvent", parameters);
    }

    /// Presses the left button `times` times in a row at a place.
    pub fn click(&mut self, place: (f64, f64), times: u32) {
        for count in 1..=times {
            let button = json!({ "button": "left", "clickCount": count });
            self.mouse("mousePressed", place, &button);
            self.mouse("mouseReleased", place, &button);
        }
    }

    /// Returns what the page threw, and did not catch, so far.
    pub fn problems(&mut self) -> &[String] {
        // What was thrown before is told before the answer.
        self.value("0");
        &self.problems
    }

    /// Calls a method of the protocol and returns its result.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({ "id": self.last_id, "method": method, "params": parameters });
        if !self.session.is_null() {
            request["sessionId"] = self.session.clone();
        }
        let requests = self.requests.as_mut().unwrap();
        requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        requests.flush().unwrap();
        loop {
            let message = self.message(method);
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    fn wait_for(&mut self, event: &str) {
        while self.message(event)["method"] != event {}
    }

    fn message(&mut self, awaited: &str) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        let message = message.unwrap_or_else(|error| panic!("no answer to {awaited}: {error}"));
        if message["method"] == "Runtime.exceptionThrown" {
            self.problems.push(message["params"]["exceptionDetails"].to_string());
        }
        message
    }
}

impl Drop for Page {
    /// Ends the browser and waits for it.
    fn drop(&mut self) {
        // The browser ends with its pipe, and its other processes with it.
        self.requests = None;
        for _ in 0..100 {
            if matches!(self.browser.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
