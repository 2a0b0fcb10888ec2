//! How a process that is about to become the container's tells the one outside why it could not.
//!
//! The write end of a pipe is closed by a successful exec, so that the reader sees either nothing
//! at all (the program runs) or one [`Failure`]: a byte with the exit code, then the message. The
//! container's first process knows no words: it sends a zero, the errno, and the program's path.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Berth's side of a start or exec failed.
pub const FAILED: u8 = 125;
/// The program is there but cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// There is no such program.
pub const NOT_FOUND: u8 = 127;

/// Why no program runs, and the exit code that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// [`FAILED`], [`CANNOT_RUN`] or [`NOT_FOUND`].
    pub code: u8,
    /// For people.
    pub message: String,
}

impl Failure {
    /// Something of ours went wrong while `doing` this.
    pub fn while_doing(doing: &str, error: impl std::fmt::Display) -> Self {
        Self { code: FAILED, message: format!("{doing}: {error}") }
    }

    /// The kernel would not run the program.
    pub fn of_program(name: &str, errno: Errno) -> Self {
        let (code, message) = match errno {
            Errno::ENOENT | Errno::ENOTDIR => {
                (NOT_FOUND, format!("{name}: no such program in the image (or its interpreter is missing)"))
            }
            Errno::EACCES => (CANNOT_RUN, format!("{name}: is not executable for the container's user")),
            Errno::ENOEXEC => (CANNOT_RUN, format!("{name}: not a program for this machine's architecture")),
            errno => (CANNOT_RUN, format!("{name}: {}", errno.desc())),
        };
        Self { code, message }
    }

    /// Sends this through the pipe. There is nobody left to tell if that fails, and the reader
    /// then sees a process that ended without a word, which it reports as such.
    pub fn send(&self, pipe: impl AsFd) -> io::Result<()> {
        let mut bytes = vec![self.code];
        bytes.extend_from_slice(self.message.as_bytes());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let written = nix::unistd::write(pipe.as_fd(), rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// A pipe that no program inherits: read end, write end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Waits until every write end is closed; gives the failure that was sent, if one was.
pub fn receive(pipe: OwnedFd) -> io::Result<Option<Failure>> {
    let mut bytes = Vec::new();
    File::from(pipe).read_to_end(&mut bytes)?;
    Ok(match bytes.as_slice() {
        [] => None,
        [0, errno, program @ ..] => {
            Some(Failure::of_program(&String::from_utf8_lossy(program), Errno::from_raw(i32::from(*errno))))
        }
        [code, message @ ..] => Some(Failure { code: *code, message: String::from_utf8_lossy(message).into_owned() }),
    })
}

/// Writes `bytes` to a pipe and closes it.
pub fn send_bytes(pipe: OwnedFd, bytes: &[u8]) -> io::Result<()> {
    File::from(pipe).write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_as_it_was_sent() {
        let (read, write) = pipe().unwrap();
        let sent = Failure { code: NOT_FOUND, message: "no program called nginx".to_owned() };
        sent.send(&write).unwrap();
        drop(write);
        assert_eq!(receive(read).unwrap(), Some(sent));
    }

    #[test]
    fn a_closed_pipe_means_that_the_program_runs() {
        let (read, write) = pipe().unwrap();
        drop(write);
        assert_eq!(receive(read).unwrap(), None);
    }
}
