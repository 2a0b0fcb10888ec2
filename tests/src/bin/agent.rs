//! Runs in the guest: executes what the harness asks for over virtio-serial ports, one thread per port.
//!
//! Each port serves one client at a time ([`berth_tests::wire`]). The children of a session are ended when the next one
//! begins or when the client goes away. Output is passed on as it comes; a stream ends when the process has ended *and*
//! its output is closed, as with ssh.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_tests::spawn;
use berth_tests::wire::{self, Ended, Frame, Kind, Start};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

fn main() -> io::Result<()> {
    let ports: Vec<PathBuf> = (0..wire::PORTS).map(|n| PathBuf::from(format!("/dev/virtio-ports/berth.{n}"))).collect();
    let threads: Vec<_> =
        ports.into_iter().filter(|port| port.exists()).map(|port| std::thread::spawn(move || serve(&port))).collect();
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended?,
            Err(_) => return Err(io::Error::other("a port's thread panicked")),
        }
    }
    Ok(())
}

/// One port, for ever. A read of nothing means that no client is there.
fn serve(path: &Path) -> io::Result<()> {
    let port = OpenOptions::new().read(true).write(true).open(path)?;
    let out = Arc::new(Mutex::new(port.try_clone()?));
    let mut from = BufReader::new(port);
    let mut session = Session { id: 0, out, children: HashMap::new() };
    loop {
        match wire::receive(&mut from) {
            Ok(frame) => session.take(frame)?,
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => {
                session.end();
                wait_for_client();
            }
            Err(err) => return Err(err),
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a port without a client reads as empty at once, and offers no event to wait for"
)]
fn wait_for_client() {
    std::thread::sleep(Duration::from_millis(200));
}

type Out = Arc<Mutex<File>>;

struct Session {
    id: u32,
    out: Out,
    children: HashMap<u32, Running>,
}

struct Running {
    group: Pid,
    input: Option<Sender<Vec<u8>>>,
}

impl Session {
    fn take(&mut self, frame: Frame) -> io::Result<()> {
        if frame.kind == Kind::Hello {
            // A client repeats its greeting when it gets no answer.
            if frame.session != self.id {
                self.end();
                self.id = frame.session;
            }
            return say(&self.out, Frame { body: Vec::new(), ..frame });
        }
        if frame.session != self.id {
            return Ok(());
        }
        match frame.kind {
            Kind::Start => self.start(frame),
            Kind::Input => self.feed(frame),
            Kind::InputEnd => self.children.entry(frame.stream).and_modify(|child| child.input = None),
            Kind::Signal => return self.signal(&frame),
            Kind::Hello | Kind::Output | Kind::Error | Kind::Ended => return Ok(()),
        };
        Ok(())
    }

    fn start(&mut self, frame: Frame) -> std::collections::hash_map::Entry<'_, u32, Running> {
        let tag = Tag { session: self.id, stream: frame.stream, out: Arc::clone(&self.out) };
        match launch(&frame.body) {
            Ok(child) => {
                let running = follow(child, tag);
                self.children.insert(frame.stream, running);
            }
            Err(why) => tag.ended(&Ended::NotStarted(why)),
        }
        self.children.entry(frame.stream)
    }

    fn feed(&mut self, frame: Frame) -> std::collections::hash_map::Entry<'_, u32, Running> {
        self.children.entry(frame.stream).and_modify(|child| {
            // A child that closed its input has no use for more of it.
            if child.input.as_ref().is_some_and(|input| input.send(frame.body).is_err()) {
                child.input = None;
            }
        })
    }

    fn signal(&self, frame: &Frame) -> io::Result<()> {
        let wanted = frame.body.first().and_then(|number| Signal::try_from(i32::from(*number)).ok());
        if let (Some(child), Some(signal)) = (self.children.get(&frame.stream), wanted) {
            ignore_gone(killpg(child.group, signal))?;
        }
        Ok(())
    }

    fn end(&mut self) {
        for (_, child) in self.children.drain() {
            if let Err(err) = ignore_gone(killpg(child.group, Signal::SIGKILL)) {
                eprintln!("berth-agent: ending {}: {err}", child.group);
            }
        }
    }
}

fn ignore_gone(done: nix::Result<()>) -> io::Result<()> {
    match done {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

fn launch(body: &[u8]) -> Result<Child, String> {
    let start: Start = serde_json::from_slice(body).map_err(|err| err.to_string())?;
    let (program, arguments) = start.argv.split_first().ok_or("an empty command line")?;
    let mut command = spawn::command(program);
    command.args(arguments).env_clear().current_dir("/");
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8");
    command.envs(start.env).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn::start(&mut command).map_err(|err| {
        format!("{program}: {}", std::error::Error::source(&err).map_or(String::new(), ToString::to_string))
    })
}

/// Where a child's frames go.
#[derive(Clone)]
struct Tag {
    session: u32,
    stream: u32,
    out: Out,
}

impl Tag {
    fn say(&self, kind: Kind, body: Vec<u8>) -> io::Result<()> {
        say(&self.out, Frame { session: self.session, stream: self.stream, kind, body })
    }

    fn ended(&self, how: &Ended) {
        let body = serde_json::to_vec(how).unwrap_or_default();
        if let Err(err) = self.say(Kind::Ended, body) {
            eprintln!("berth-agent: reporting an end: {err}");
        }
    }
}

fn say(out: &Out, frame: Frame) -> io::Result<()> {
    wire::send(&mut *out.lock().unwrap_or_else(PoisonError::into_inner), &frame)
}

/// Threads for input, output, errors and the end of a child.
fn follow(mut child: Child, tag: Tag) -> Running {
    let (input, queue) = channel::<Vec<u8>>();
    if let Some(mut stdin) = child.stdin.take() {
        std::thread::spawn(move || {
            for bytes in queue {
                if stdin.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
    }
    let group = Pid::from_raw(child.id().cast_signed());
    let pumps = [pump(child.stdout.take(), Kind::Output, &tag), pump(child.stderr.take(), Kind::Error, &tag)];
    std::thread::spawn(move || {
        let status = child.wait();
        for pump in pumps.into_iter().flatten() {
            if pump.join().is_err() {
                eprintln!("berth-agent: a pump panicked");
            }
        }
        tag.ended(&describe(status));
    });
    Running { group, input: Some(input) }
}

fn describe(status: io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) => status.code().map_or_else(|| Ended::Signal(status.signal().unwrap_or_default()), Ended::Code),
        Err(err) => Ended::NotStarted(err.to_string()),
    }
}

fn pump(from: Option<impl Read + Send + 'static>, kind: Kind, tag: &Tag) -> Option<JoinHandle<()>> {
    let (mut from, tag) = (from?, tag.clone());
    Some(std::thread::spawn(move || {
        let mut buffer = vec![0; wire::MOST];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) if tag.say(kind, buffer[..read].to_vec()).is_ok() => {}
                Ok(_) => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }))
}
