//! A real browser without a screen, steered by its own debugging protocol.
//!
//! It has a home of its own, knows no certificate authority but the one it is given, and finds every name on this machine:
//! nothing that it is asked for leaves it.

use std::io::{self, BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::spawn::{self, SpawnError};

/// How the line begins that tells where it listens.
const LISTENS: &str = "DevTools listening on ws://";

/// The browser cannot be had, or does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// It does not start.
    #[error("starting the browser")]
    Start(#[from] SpawnError),
    /// Its files, or its socket.
    #[error("talking to the browser")]
    Io(#[from] io::Error),
    /// The protocol beneath.
    #[error("talking to the browser")]
    Socket(#[from] Box<tungstenite::Error>),
    /// Its answer is none.
    #[error("the browser answered what cannot be read: {0}")]
    Answer(String),
    /// It says why not.
    #[error("the browser refused: {0}")]
    Refused(String),
}

/// One page of a browser.
pub struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    commands: u64,
    _home: TempDir,
}

impl Browser {
    /// Starts one. It trusts the certificate authority of this PEM file, if there is one.
    pub fn start(authority: Option<&Path>) -> Result<Self, BrowserError> {
        let home = tempfile::tempdir()?;
        if let Some(authority) = authority {
            trust(home.path(), authority)?;
        }
        let mut process = spawn::start(
            spawn::command("chromium")
                .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
                .args(["--remote-debugging-port=0", "--host-resolver-rules=MAP * 127.0.0.1"])
                .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
                .env("HOME", home.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .process_group(0),
        )?;
        let said = process.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
        let socket = match connect(BufReader::new(said)) {
            Ok(socket) => socket,
            Err(error) => {
                end(&mut process)?;
                return Err(error);
            }
        };
        let mut browser = Self { process, socket, session: None, commands: 0, _home: home };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<(), BrowserError> {
        let target = self.command("Target.createTarget", &json!({ "url": "about:blank" }))?["targetId"].take();
        let session = self.command("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }))?;
        self.session = session["sessionId"].as_str().map(str::to_owned);
        self.command("Page.enable", &json!({})).map(drop)
    }

    /// Opens an address, and waits until it is there.
    ///
    /// # Errors
    /// [`BrowserError::Refused`] with the browser's own words, if it does not come.
    pub fn open(&mut self, url: &str) -> Result<(), BrowserError> {
        let gone = self.command("Page.navigate", &json!({ "url": url }))?;
        if let Some(why) = gone["errorText"].as_str() {
            return Err(BrowserError::Refused(why.to_owned()));
        }
        while self.receive()?["method"] != "Page.loadEventFired" {}
        Ok(())
    }

    /// Gives it an authenticator that knows its user and says yes to everything.
    pub fn add_authenticator(&mut self) -> Result<(), BrowserError> {
        self.command("WebAuthn.enable", &json!({}))?;
        let options = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
            "isUserVerified": true, "automaticPresenceSimulation": true,
        });
        self.command("WebAuthn.addVirtualAuthenticator", &json!({ "options": options })).map(drop)
    }

    /// What an expression of the page comes to, as JSON; what it promises is waited for.
    ///
    /// # Errors
    /// [`BrowserError::Refused`] with what it threw.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value, BrowserError> {
        let wanted = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let mut came = self.command("Runtime.evaluate", &wanted)?;
        match came.pointer("/exceptionDetails/exception/description").or(came.get("exceptionDetails")) {
            Some(thrown) => Err(BrowserError::Refused(thrown.to_string())),
            None => Ok(came["result"]["value"].take()),
        }
    }

    fn command(&mut self, method: &str, parameters: &Value) -> Result<Value, BrowserError> {
        self.commands += 1;
        let mut message = json!({ "id": self.commands, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).map_err(Box::new)?;
        loop {
            let mut said = self.receive()?;
            if said["id"] == self.commands {
                return match said.get("error") {
                    Some(error) => Err(BrowserError::Refused(format!("{method}: {error}"))),
                    None => Ok(said["result"].take()),
                };
            }
        }
    }

    fn receive(&mut self) -> Result<Value, BrowserError> {
        let said = self.socket.read().map_err(Box::new)?.into_text().map_err(Box::new)?;
        serde_json::from_str(&said).map_err(|_| BrowserError::Answer(said.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Err(error) = end(&mut self.process) {
            eprintln!("the browser could not be ended: {error}");
        }
    }
}

/// It is a family of processes.
fn end(process: &mut Child) -> io::Result<()> {
    killpg(Pid::from_raw(process.id().cast_signed()), Signal::SIGKILL)?;
    process.wait().map(drop)
}

/// Makes it trust an authority, as an administrator would on his own machine.
fn trust(home: &Path, authority: &Path) -> Result<(), BrowserError> {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store)?;
    let store = format!("sql:{}", store.display());
    spawn::output(spawn::command("certutil").args(["-d", &store, "-N", "--empty-password"]))?;
    let add = ["-d", &store, "-A", "-n", "berth", "-t", "C,,", "-i"];
    spawn::output(spawn::command("certutil").args(add).arg(authority))?;
    Ok(())
}

/// Waits for the line that says where it listens. What it says later nobody reads, and is thrown away.
fn connect(mut said: impl BufRead + Send + 'static) -> Result<WebSocket<TcpStream>, BrowserError> {
    let (mut line, mut before) = (String::new(), String::new());
    let address = loop {
        line.clear();
        if said.read_line(&mut line)? == 0 {
            return Err(BrowserError::Answer(before));
        }
        if let Some(address) = line.trim().strip_prefix(LISTENS) {
            break address.to_owned();
        }
        before += &line;
    };
    std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
    let host = address.split('/').next().unwrap_or_default();
    let stream = TcpStream::connect(host)?;
    let (socket, _) = tungstenite::client(format!("ws://{address}"), stream)
        .map_err(|error| BrowserError::Answer(format!("no WebSocket on {address}: {error}")))?;
    Ok(socket)
}
