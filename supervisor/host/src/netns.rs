//! A network namespace for one test.

use std::fs;
use std::io::Write;

use nix::sched::{CloneFlags, unshare};

/// Puts the thread of this test, and whatever it starts, into a network namespace of its own
/// that ends with it. False, and said aloud, for somebody who may not.
pub(crate) fn enter() -> bool {
    let before = own();
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        // Past the test harness, which keeps what a test that passes has printed.
        let said = format!("skipped: needs to be root for a network namespace ({error})\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return false;
    }
    assert_ne!(before, own(), "still in the namespace of the machine");
    true
}

fn own() -> std::path::PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}
