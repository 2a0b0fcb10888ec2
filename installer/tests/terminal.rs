//! The interface as somebody at a terminal has it: a program of its own at the other end of a pseudo-terminal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

/// The longest that anything takes to be seen; a machine that is busy may need a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with the program on it.
struct Terminal {
    program: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Terminal {
    fn new(columns: u16, lines: u16, environment: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let ours = File::from(pty.master);
        let program = started(File::from(pty.slave), environment);
        let (sender, output) = channel();
        let mut reading = ours.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // At the end of the program the kernel says that there is nobody any more.
            while let Ok(length @ 1..) = reading.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(NonZeroU16::new(lines).unwrap(), NonZeroU16::new(columns).unwrap(), 0);
        Self { program, keyboard: ours, output, screen }
    }

    fn presses(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text is on the screen.
    #[track_caller]
    fn sees(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.screen.screen().contents().contains(text) {
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text} is not on the screen:\n{}", self.screen.screen().contents())
                }
            }
        }
    }

    /// Presses keys, and waits until a text is on the screen.
    #[track_caller]
    fn gets(&mut self, keys: &str, text: &str) {
        self.presses(keys);
        self.sees(text);
    }

    fn ends(&mut self) -> ExitStatus {
        self.program.wait().unwrap()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the program under test gets a terminal, which the tree's own way to start programs does not give"
)]
fn started(terminal: File, environment: &[(&str, &str)]) -> Child {
    let here = std::env::current_exe().unwrap();
    let demo: PathBuf = here.parent().unwrap().parent().unwrap().join("examples/demo");
    assert!(demo.exists(), "build it first: cargo build -p berth-installer --all-targets");
    let mut command = Command::new("/usr/bin/setsid");
    command.args(["--ctty", "--wait"]).arg(demo).env_clear().envs(environment.iter().copied());
    let (input, output) = (terminal.try_clone().unwrap(), terminal.try_clone().unwrap());
    command.stdin(input).stdout(output).stderr(terminal).spawn().unwrap()
}

const ESCAPE: &str = "\u{1b}";
const DOWN: &str = "\u{1b}[B";
const CONTROL_C: &str = "\u{3}";
const CONTROL_U: &str = "\u{15}";

/// From welcome to the recovery code.
fn install(terminal: &mut Terminal) {
    terminal.sees("1/7  Welcome");
    terminal.gets(&format!("\r{CONTROL_U}attic"), "attic_");
    terminal.gets("\r\r\r", "2/7  Hardware");
    terminal.sees("made up: 8.0 GiB");
    terminal.gets("\r", "3/7  Disk");
    terminal.gets("\r", "WILL BE DESTROYED");
    terminal.gets("S1-4242\r", "4/7  Network");
    terminal.gets("\r", "5/7  Encryption");
    terminal.gets("\ralex\rcorrect horse battery\rcorrect horse battery", "Only a hash of the password is kept.");
    terminal.gets("\r", "6/7  Review");
    terminal.sees("hostname = \"attic\"");
    terminal.gets("\r", "7/7  Installation");
    terminal.sees("dlhbktjr");
    terminal.gets("tbcegikn\r", "https://attic.local:6443");
}

#[test]
fn somebody_at_a_console_comes_from_welcome_to_an_installed_machine() {
    let mut terminal = Terminal::new(80, 24, &[("TERM", "linux"), ("LANG", "C.UTF-8")]);
    install(&mut terminal);
    terminal.sees("████");
    terminal.presses("\r");
    terminal.sees("installed");
    assert!(!terminal.screen.screen().alternate_screen());
    assert!(terminal.ends().success());
}

#[test]
fn somebody_at_a_serial_console_comes_the_same_way_in_ascii() {
    let mut terminal = Terminal::new(60, 20, &[("TERM", "vt100")]);
    install(&mut terminal);
    assert!(terminal.screen.screen().contents().is_ascii(), "{}", terminal.screen.screen().contents());
    terminal.gets("\r", "installed");
    assert!(terminal.ends().success());
}

#[test]
fn whoever_goes_back_or_leaves_finds_the_terminal_as_it_was() {
    let mut terminal = Terminal::new(80, 24, &[("TERM", "linux"), ("LANG", "C.UTF-8")]);
    terminal.sees("1/7  Welcome");
    terminal.gets(&format!("{DOWN}{DOWN}{DOWN}\r"), "2/7  Hardware");
    terminal.sees("made up");
    terminal.gets("\r", "3/7  Disk");
    terminal.gets(ESCAPE, "2/7  Hardware");
    terminal.gets(CONTROL_C, "Leave the installer? Nothing was written.");
    terminal.gets("y", "left");
    assert!(!terminal.screen.screen().alternate_screen());
    assert_eq!(terminal.ends().code(), Some(1));
}
