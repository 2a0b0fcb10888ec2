//! A real registry (Debian's docker-registry) and a proxy before it that misbehaves on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::build::Layout;

/// Runs a program to its end; a missing one is told with what to do.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "a test drives the tools a user would")]
pub fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}): `./dev` installs what the tests need"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
    output
}

/// `user:password`, hashed as docker-registry wants it.
const HTPASSWD: &str = "user:$2y$05$1hkfYGcI1nyiWtTtynh5YOmScJlqHxFlAJbW2T3I9T/37Bpm0rxFW\n";

/// A registry with a store of its own; gone with this value.
pub struct Registry {
    child: Child,
    address: String,
    login: Option<&'static str>,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Open to everybody.
    pub fn start() -> Self {
        Self::spawn(None)
    }

    /// Lets `user` in with `password`.
    pub fn guarded() -> Self {
        Self::spawn(Some("user:password"))
    }

    #[allow(clippy::disallowed_methods, reason = "a test drives the tools a user would")]
    fn spawn(login: Option<&'static str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let auth = login.map_or_else(String::new, |_| {
            std::fs::write(at("htpasswd"), HTPASSWD).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("htpasswd"))
        });
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n{auth}",
            at("data")
        );
        std::fs::write(at("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry cannot be run ({error}): `./dev` installs it"));
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split("listening on ").nth(1)?.split('"').next()?.to_owned()))
            .expect("docker-registry ended before it listened");
        // Its log has to go somewhere, or it stops when the pipe is full.
        std::thread::spawn(move || log.count());
        Self { child, address, login, dir }
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pushes with skopeo.
    pub fn push(&self, layout: &Layout, name: &str, options: &[&str]) {
        let from = format!("oci:{}", layout.path().display());
        let to = format!("docker://{}/{name}", self.address);
        let credentials = self.login.map(|login| format!("--dest-creds={login}"));
        let mut args = vec!["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        args.extend(credentials.as_deref());
        args.extend(options);
        run("skopeo", &[&args[..], &[&from, &to]].concat());
    }

    /// The file of a blob in its store.
    pub fn blob(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What the proxy does to the answers of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Ends the connection after so many bytes of a blob.
    Cut(usize),
    /// Ends the connection after so many bytes of a blob, and from then on every one at once.
    Die(usize),
    /// Changes one byte of a blob.
    Corrupt(usize),
    /// Changes one byte of a manifest.
    CorruptManifest,
    /// Announces and sends only so many bytes of a blob.
    Shorten(usize),
    /// Answers with this status.
    Status(u16),
    /// Sends a manifest that never ends.
    EndlessManifest,
    /// Ignores that only a part was asked for.
    IgnoreRange,
    /// Sends a blob in so many pieces, with a pause after each.
    Drip(usize),
    /// Sends so many bytes of a blob, and nothing more, without ending the connection.
    Stall(usize),
    /// Takes the request for a manifest, and ends the connection.
    HangUp,
    /// Takes the request for a manifest, and says nothing.
    Silence,
    /// Answers with this status and wants not to be asked for so many seconds. Whoever asks sooner hears the same.
    Busy(u16, u64),
    /// The same for a blob.
    BusyBlob(u16, u64),
}

/// Between two pieces of a blob that drips.
const DROP: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Script {
    /// Faults to come, the next last, and whether the last one stays.
    faults: Vec<Fault>,
    dead: bool,
    token: bool,
    /// Until then it is busy.
    busy: Option<Instant>,
    seen: Vec<String>,
    counts: HashMap<String, usize>,
}

/// A proxy before a registry.
pub struct Proxy {
    address: String,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::<Mutex<Script>>::default();
        let (shared, backend, own) = (script.clone(), registry.address.clone(), address.clone());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (script, backend, own) = (shared.clone(), backend.clone(), own.clone());
                // A client that goes away is no failure of the test.
                tokio::spawn(async move { drop(serve(client, &script, &backend, &own).await) });
            }
        });
        Self { address, script, task }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// One fault after the other, each for one blob or manifest; then none.
    pub fn faults(&self, faults: &[Fault]) {
        self.script.lock().unwrap().faults = faults.iter().rev().copied().collect();
    }

    /// Wants a token from its own token service, which wants `user:password`.
    pub fn demand_token(&self) {
        self.script.lock().unwrap().token = true;
    }

    /// The requests so far: first lines and ranges.
    pub fn seen(&self) -> Vec<String> {
        self.script.lock().unwrap().seen.clone()
    }

    /// How often a blob was asked for.
    pub fn times(&self, digest: &str) -> usize {
        self.seen().iter().filter(|line| line.contains(&format!("/blobs/{digest}"))).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, script: &Mutex<Script>, backend: &str, own: &str) -> std::io::Result<()> {
    let (head, _) = read_head(&mut client).await?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let range = header(&head, "range").unwrap_or_default();
    let (fault, dead, token) = {
        let mut script = script.lock().unwrap();
        script.seen.push(format!("{line} {range}"));
        *script.counts.entry(line.clone()).or_default() += 1;
        (script.next(&line), script.dead, script.token)
    };
    if dead {
        return Ok(());
    }
    if line.starts_with("GET /token") {
        return client.write_all(&token_answer(&head, &line)).await;
    }
    if token && header(&head, "authorization").as_deref() != Some("Bearer magic") {
        let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"test\",scope=\"repository:web:pull\"");
        let answer = format!(
            "HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return client.write_all(answer.as_bytes()).await;
    }
    match fault {
        Some(Fault::Status(code)) => {
            let answer = format!("HTTP/1.1 {code} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(answer.as_bytes()).await
        }
        Some(Fault::Busy(code, seconds) | Fault::BusyBlob(code, seconds)) => {
            let answer = format!(
                "HTTP/1.1 {code} No\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            client.write_all(answer.as_bytes()).await
        }
        Some(Fault::HangUp) => Ok(()),
        Some(Fault::Silence) => client.read(&mut [0]).await.map(drop),
        Some(Fault::EndlessManifest) => {
            client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                client.write_all(&[b' '; 1 << 16]).await?;
            }
        }
        fault => forward(client, &head, fault, script, backend).await,
    }
}

impl Script {
    /// The fault for this request, if it is for a request like this.
    fn next(&mut self, line: &str) -> Option<Fault> {
        let next = *self.faults.last()?;
        let wanted = match next {
            Fault::CorruptManifest | Fault::EndlessManifest | Fault::Status(_) => "/manifests/",
            Fault::HangUp | Fault::Silence | Fault::Busy(..) => "/manifests/",
            _ => "/blobs/",
        };
        if !line.contains(wanted) {
            return None;
        }
        match next {
            Fault::Busy(_, seconds) | Fault::BusyBlob(_, seconds) => self.stay_busy(seconds).then_some(next),
            _ => self.faults.pop(),
        }
    }

    /// Whether it still is; the first question begins it, and the first after it ends it.
    fn stay_busy(&mut self, seconds: u64) -> bool {
        let until = *self.busy.get_or_insert_with(|| Instant::now() + Duration::from_secs(seconds));
        if Instant::now() < until {
            return true;
        }
        (self.busy, self.faults) = (None, self.faults[..self.faults.len() - 1].to_vec());
        false
    }
}

async fn forward(
    mut client: TcpStream,
    head: &str,
    fault: Option<Fault>,
    script: &Mutex<Script>,
    backend: &str,
) -> std::io::Result<()> {
    let mut lines: Vec<String> = head
        .lines()
        .filter(|line| !line.is_empty())
        .filter(|line| !line.to_lowercase().starts_with("connection:"))
        .filter(|line| !line.to_lowercase().starts_with("authorization: bearer"))
        .filter(|line| fault != Some(Fault::IgnoreRange) || !line.to_lowercase().starts_with("range:"))
        .map(str::to_owned)
        .collect();
    lines.push("Connection: close\r\n\r\n".into());
    let mut server = TcpStream::connect(backend).await?;
    server.write_all(lines.join("\r\n").as_bytes()).await?;
    let (head, mut body) = read_head(&mut server).await?;
    server.read_to_end(&mut body).await?;
    let mut head = String::from_utf8_lossy(&head).into_owned();
    match fault {
        Some(Fault::Corrupt(at)) => {
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1;
            }
        }
        Some(Fault::CorruptManifest) => body.push(b'\n'),
        Some(Fault::Cut(length) | Fault::Shorten(length)) => body.truncate(length),
        Some(Fault::Die(length)) => {
            body.truncate(length);
            script.lock().unwrap().dead = true;
        }
        _ => {}
    }
    if matches!(fault, Some(Fault::Shorten(_) | Fault::CorruptManifest)) {
        let length = head.lines().find(|line| line.to_lowercase().starts_with("content-length:")).unwrap().to_owned();
        head = head.replace(&length, &format!("Content-Length: {}", body.len()));
    }
    client.write_all(head.as_bytes()).await?;
    send(&mut client, &body, fault).await?;
    client.shutdown().await
}

async fn send(client: &mut TcpStream, body: &[u8], fault: Option<Fault>) -> std::io::Result<()> {
    match fault {
        Some(Fault::Drip(pieces)) => {
            for piece in body.chunks(body.len().div_ceil(pieces)) {
                client.write_all(piece).await?;
                client.flush().await?;
                tokio::time::sleep(DROP).await;
            }
            Ok(())
        }
        Some(Fault::Stall(length)) => {
            client.write_all(&body[..length]).await?;
            client.read(&mut [0]).await.map(drop)
        }
        _ => client.write_all(body).await,
    }
}

/// The head with its empty line, and what came after it.
async fn read_head(from: &mut TcpStream) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((bytes, rest));
        }
        let mut buffer = [0; 4096];
        match from.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            taken => bytes.extend_from_slice(&buffer[..taken]),
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn token_answer(head: &str, line: &str) -> Vec<u8> {
    // `user:password`.
    let known = header(head, "authorization").as_deref() == Some("Basic dXNlcjpwYXNzd29yZA==");
    let scoped = line.contains("service=test") && line.contains("scope=repository%3Aweb%3Apull");
    let (status, body) =
        if known && scoped { ("200 OK", r#"{"token":"magic"}"#) } else { ("401 No", r#"{"errors":[]}"#) };
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}
