//! The first process of every container, as small as it can be: no library, no allocation.
//!
//! ```text
//! berth-init PROGRAM ARG0 [ARG...]      descriptor 3: tells the launcher why PROGRAM does not run
//!
//!   streams: pipes take the places of 1 and 2 ── fork ──► session, signals, exec
//!   then for ever:  a signal          ──► the program (SIGCHLD: reap whatever ended)
//!                   bytes in a pipe   ──► the journal's socket
//!   the program ended: what is left in the pipes ──► journal, exit with its code
//! ```
//!
//! It has the user, the capabilities and the system call filter of the service: it is one more
//! process of the container and no part of what holds the container in. A program that ended by a
//! signal shows as 128 plus its number, since the kernel lets no first process die by one.
//!
//! `build.rs` compiles it by itself (freestanding, `panic=abort`) and puts it into `berth-run`.

#![no_std]
#![no_main]
#![no_builtins]

mod relay;
mod sys;

use relay::Relay;
use sys::{Arguments, Buffer, Ended};

/// Here the launcher waits for a word about why the program does not run; closing it says that it does.
const TELL: i32 = 3;
/// Exit code if the container cannot even be given its streams, as the launcher's own.
const FAILED: i32 = 125;
/// Exit code if there is no program; nobody sees it, the launcher has been told the reason.
const NOT_RUN: i32 = 127;
/// Added to a signal's number, as shells do.
const SIGNAL_BASE: i32 = 128;

fn main(arguments: &Arguments, buffers: [Buffer; 2]) -> i32 {
    sys::set_name(c"berth-init");
    match start(arguments, buffers) {
        Ok((child, signals, mut relay)) => attend(child, signals, &mut relay),
        Err(errno) => {
            sys::tell(TELL, errno, arguments);
            FAILED
        }
    }
}

/// Starts the program between pipes of ours; gives its number and where signals are read.
fn start(arguments: &Arguments, buffers: [Buffer; 2]) -> Result<(i32, i32, Relay), i32> {
    sys::close_on_exec(TELL)?;
    sys::block_signals()?;
    let signals = sys::signal_descriptor()?;
    let relay = Relay::between(1, 2, buffers)?;
    let child = sys::fork()?;
    if child == 0 {
        let errno = become_program(arguments);
        sys::tell(TELL, errno, arguments);
        sys::exit(NOT_RUN);
    }
    sys::close(TELL);
    Ok((child, signals, relay))
}

fn become_program(arguments: &Arguments) -> i32 {
    match sys::new_session().and_then(|()| sys::unblock_signals()) {
        Ok(()) => sys::execute(arguments),
        Err(errno) => errno,
    }
}

fn attend(child: i32, signals: i32, relay: &mut Relay) -> i32 {
    loop {
        let signalled = relay.wait(signals);
        relay.step();
        if !signalled {
            continue;
        }
        while let Some(signal) = sys::next_signal(signals) {
            match signal {
                sys::SIGCHLD => {
                    if let Some(code) = reap(child) {
                        relay.finish();
                        return code;
                    }
                }
                signal => sys::send_signal(child, signal),
            }
        }
    }
}

/// Takes everything that ended; the exit code if the program is among it.
fn reap(child: i32) -> Option<i32> {
    let mut code = None;
    while let Some((pid, ended)) = sys::next_ended() {
        if pid == child {
            code = Some(match ended {
                Ended::Exited(code) => code,
                Ended::Killed(signal) => SIGNAL_BASE + signal,
            });
        }
    }
    code
}
