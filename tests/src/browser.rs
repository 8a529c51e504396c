//! A real browser, driven by its `WebDriver`: Debian's chromium and chromium-driver.
//!
//! In: addresses, scripts, keys. Out: what the page holds, pictures of it, and everything that the browser complained
//! about. The protocol is JSON over plain HTTP to this machine, one request a connection, so no client is needed for it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::{Launch, Running};

const READY_DEADLINE: Duration = Duration::from_secs(30);
/// For one command.
const ANSWER_DEADLINE: Duration = Duration::from_mins(1);
/// How long a page may take to become what is waited for.
const PAGE_DEADLINE: Duration = Duration::from_secs(20);
/// What the driver says before its port.
const STARTED: &str = "started successfully on port ";

/// The Enter key, as `WebDriver` writes it.
pub const ENTER: &str = "\u{e007}";
/// The Escape key.
pub const ESCAPE: &str = "\u{e00c}";
/// The Tab key.
pub const TAB: &str = "\u{e004}";

/// What the operating system's theme says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// A browser window. Dropping it ends the browser.
#[derive(Debug)]
pub struct Browser {
    _driver: Running,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts a browser without a window, whose profile and logs are in `directory`. It takes any certificate.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut driver =
            Launch::new("chromedriver", "chromedriver", &directory.join("logs")).arg("--port=0").spawn()?;
        let said = driver.stdout().to_owned();
        let mut port = None;
        driver.wait_until("its port", READY_DEADLINE, || {
            let said = fs::read_to_string(&said).unwrap_or_default();
            port = said.split_once(STARTED).and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
            port.is_some()
        })?;
        let port = port.context("the driver has no port")?;
        let profile = directory.join("profile").display().to_string();
        // Root's chromium has no sandbox; its pages are ours.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={profile}"));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let made = request(port, "POST", "/session", Some(&wanted))?;
        let session = made["sessionId"].as_str().context("the driver made no session")?.to_owned();
        Ok(Self { _driver: driver, port, session })
    }

    fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        request(self.port, method, &format!("/session/{}{path}", self.session), body)
    }

    /// Goes to an address and waits until it is loaded.
    ///
    /// # Errors
    /// When the browser does not.
    pub fn go(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", Some(&json!({ "url": url }))).map(drop)
    }

    /// The address of the page.
    ///
    /// # Errors
    /// When the browser does not say.
    pub fn url(&self) -> Result<String> {
        Ok(self.command("GET", "/url", None)?.as_str().unwrap_or_default().to_owned())
    }

    /// What a function's body returns in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("POST", "/execute/sync", Some(&json!({ "script": script, "args": [] })))
    }

    /// The visible text of the page.
    ///
    /// # Errors
    /// When the browser does not say.
    pub fn text(&self) -> Result<String> {
        Ok(self.run("return document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a function's body returns something true.
    ///
    /// # Errors
    /// When it does not in time; the error holds the page's text.
    pub fn wait_for(&self, what: &str, script: &str) -> Result<Value> {
        let start = Instant::now();
        loop {
            // While a page is replaced by the next one, scripts fail.
            let found = self.run(script).unwrap_or(Value::Null);
            if !matches!(found, Value::Null | Value::Bool(false)) {
                return Ok(found);
            }
            if start.elapsed() > PAGE_DEADLINE {
                bail!("{what} did not come in time at {}:\n{}", self.url()?, self.text()?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types, wherever the focus is.
    ///
    /// # Errors
    /// When the browser does not.
    pub fn keys(&self, keys: &str) -> Result<()> {
        let presses: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] });
        self.command("POST", "/actions", Some(&actions)).map(drop)
    }

    /// Puts text into the field that a CSS selector names.
    ///
    /// # Errors
    /// When there is no such field.
    pub fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let find = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "/element", Some(&find))?;
        let element = found.as_object().and_then(|object| object.values().next()).and_then(Value::as_str);
        let element = element.with_context(|| format!("there is no {selector}"))?;
        self.command("POST", &format!("/element/{element}/value"), Some(&json!({ "text": text }))).map(drop)
    }

    /// Clicks what a CSS selector names.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn click(&self, selector: &str) -> Result<()> {
        let find = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "/element", Some(&find))?;
        let element = found.as_object().and_then(|object| object.values().next()).and_then(Value::as_str);
        let element = element.with_context(|| format!("there is no {selector}"))?;
        self.command("POST", &format!("/element/{element}/click"), Some(&json!({}))).map(drop)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.command("POST", "/goog/cdp/execute", Some(&json!({ "cmd": command, "params": parameters })))
    }

    /// Sets the window's size in CSS pixels, and the theme.
    ///
    /// # Errors
    /// When the browser does not.
    pub fn look(&self, width: u32, height: u32, theme: Theme) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size)?;
        let theme = if theme == Theme::Dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.devtools("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// Switches scripts of pages off or on, from the next page on.
    ///
    /// # Errors
    /// When the browser does not.
    pub fn scripts(&self, on: bool) -> Result<()> {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": !on })).map(drop)
    }

    /// Writes a picture of the whole page.
    ///
    /// # Errors
    /// When there is none, or the file cannot be written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let parent = file.parent().context("a picture needs a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let taken = self
            .devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true, "format": "png" }))?;
        let data = STANDARD.decode(taken["data"].as_str().context("no picture was taken")?)?;
        fs::write(file, data).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the browser complained about since the last time: errors of scripts, violations of the content security
    /// policy, files that were not found.
    ///
    /// # Errors
    /// When the browser does not say.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.command("POST", "/se/log", Some(&json!({ "type": "browser" })))?;
        let entries = log.as_array().context("the browser's log is no list")?;
        let bad = entries.iter().filter(|entry| entry["level"] != "DEBUG" && entry["level"] != "INFO");
        Ok(bad.map(ToString::to_string).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's end ends what is left of it.
        let _ = self.command("DELETE", "", None);
    }
}

/// One command and its answer's value.
fn request(port: u16, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("cannot reach the browser's driver")?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 1 << 14];
    while !is_whole(&answer) {
        let read = stream.read(&mut piece).context("the browser's driver does not answer")?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let text = String::from_utf8(answer).context("the browser's driver does not answer in UTF-8")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the browser's driver does not speak HTTP")?;
    let answer: Value = serde_json::from_str(body).with_context(|| format!("{path}: no JSON: {body}"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {}", answer["value"]);
    Ok(answer["value"].clone())
}

/// Whether all that the header announces is there.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}
