//! The container's first process: how the launcher carries it in and becomes it.
//!
//! The program (`init/`, compiled by the build script) lies in this one as bytes. It goes into the
//! container as a sealed file in memory, which has no name there, needs nothing of the image, and
//! cannot be written to by anybody, however it is found.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys;

/// The program.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/berth-init"));
/// Where it tells why the container's program does not run.
const TELL: i32 = 3;
/// Out of the way of [`TELL`].
const KEPT_FROM: i32 = 10;

/// A file in memory with the program, which nobody can change.
pub fn file() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"berth-init", flags)?);
    file.write_all(INIT)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    sys::duplicate_from(file.as_fd(), KEPT_FROM)
}

/// Becomes the first process, which runs `path` with `args`; comes back only if the kernel refuses.
///
/// Whoever listens on the other side of `tell` hears why `path` does not run, or that it does.
pub fn run(
    file: BorrowedFd<'_>,
    tell: BorrowedFd<'_>,
    path: &CString,
    args: &[CString],
    env: &[CString],
) -> Result<std::convert::Infallible, Errno> {
    sys::pass_as(tell, TELL)?;
    let mut words = vec![c"berth-init".to_owned(), path.clone()];
    words.extend_from_slice(args);
    nix::unistd::fexecve(file, &words, env)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{Pid, dup2_stderr, dup2_stdout};

    use super::*;
    use crate::report::{self, Failure, NOT_FOUND};

    /// Runs a shell script under the first process; its number, where its output is read, and what
    /// is told.
    fn begin(path: &str, args: &[&str]) -> (Pid, File, Option<Failure>) {
        let text = |word: &&str| CString::new(*word).unwrap();
        let args: Vec<CString> = args.iter().map(text).collect();
        let (output, into) = report::pipe().unwrap();
        let (heard, tell) = report::pipe().unwrap();
        let file = file().unwrap();
        let pid = sys::fork_child(|| {
            dup2_stdout(&into).and_then(|()| dup2_stderr(&into)).unwrap();
            let path = CString::new(path).unwrap();
            let env = [c"PATH=/usr/bin:/bin".to_owned()];
            run(file.as_fd(), tell.as_fd(), &path, &args, &env).unwrap_err() as i32
        })
        .unwrap();
        drop((into, tell));
        (pid, File::from(output), report::receive(heard).unwrap())
    }

    fn script(text: &str) -> (i32, String) {
        let (pid, mut output, told) = begin("/bin/sh", &["sh", "-c", text]);
        assert_eq!(told, None);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        (code(pid), said)
    }

    fn code(pid: Pid) -> i32 {
        match waitpid(pid, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("the first process ended with {other:?}"),
        }
    }

    #[test]
    fn the_program_ends_with_its_own_code_and_a_signal_shows_as_a_shell_shows_it() {
        assert_eq!(script("exit 3").0, 3);
        assert_eq!(script("kill -KILL $$").0, 137);
    }

    #[test]
    fn a_program_without_a_handler_ends_by_the_signal_its_first_process_gets() {
        let (pid, mut output, _) = begin("/bin/sh", &["sh", "-c", "echo up; exec sleep 1000"]);
        let mut up = [0; 3];
        output.read_exact(&mut up).unwrap();
        kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(code(pid), 143);
    }

    #[test]
    fn streams_can_be_opened_by_name() {
        let (code, said) = script("echo plain; echo named > /dev/stdout; echo error > /proc/self/fd/2");
        assert_eq!((code, said.as_str()), (0, "plain\nnamed\nerror\n"));
    }

    #[test]
    fn what_is_written_last_is_not_lost() {
        let (_, said) = script("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
        assert_eq!(said.lines().count(), 20_000);
        assert_eq!(said.lines().last(), Some("line 19999"));
    }

    #[test]
    fn the_program_has_a_session_of_its_own_and_none_of_the_launchers_descriptors() {
        let (_, said) = script("cut -d' ' -f6 /proc/$$/stat; echo $$; ls -l /proc/$$/fd");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], lines[1]);
        for ours in ["memfd", "signalfd", " 3 -> "] {
            assert!(!said.contains(ours), "{said}");
        }
    }

    #[test]
    fn a_program_that_does_not_run_is_told_by_name() {
        let (pid, _, told) = begin("/no/such", &["such"]);
        let told = told.unwrap();
        assert_eq!(told.code, NOT_FOUND);
        assert!(told.message.starts_with("/no/such: no such program"), "{}", told.message);
        assert_ne!(code(pid), 0);
    }

    #[test]
    fn nobody_can_write_to_the_first_process_program() {
        let file = file().unwrap();
        assert!(file.as_raw_fd() >= KEPT_FROM);
        assert_eq!(nix::unistd::write(&file, b"x"), Err(Errno::EPERM));
    }
}
