//! The last step of `start` and `exec`, inside the container: find the program and become it.
//!
//! By now the process has the user, the capabilities and the working directory of the program, so
//! that "found" and "may be run" mean what they will mean to the kernel a moment later.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use berth_model::plan::SystemCalls;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::report::{FAILED, Failure, NOT_FOUND};
use crate::{init, seccomp};

/// A program with its arguments and environment, ready for the kernel.
#[derive(Debug)]
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Looks `args[0]` up, in the `PATH` of `env` unless it has a slash.
    pub fn find(args: &[String], env: &[String]) -> Result<Self, Failure> {
        let name = args.first().filter(|name| !name.is_empty()).ok_or_else(|| Failure {
            code: NOT_FOUND,
            message: "there is no command to run: the image names none, and neither does the \
                      service"
                .to_owned(),
        })?;
        let path = match name.contains('/') {
            true => check(Path::new(name)).map(|()| PathBuf::from(name)),
            false => search(name, search_path(env)),
        };
        let path = path.map_err(|errno| Failure::of_program(name, errno))?;
        Ok(Self {
            path: terminated(&path.to_string_lossy())?,
            args: args.iter().map(|text| terminated(text)).collect::<Result<_, _>>()?,
            env: env.iter().map(|text| terminated(text)).collect::<Result<_, _>>()?,
        })
    }

    /// Becomes the program; comes back only if the kernel refuses.
    pub fn run(&self) -> Failure {
        match nix::unistd::execve(&self.path, &self.args, &self.env) {
            Ok(never) => match never {},
            Err(errno) => Failure::of_program(&self.path.to_string_lossy(), errno),
        }
    }

    /// Becomes the container's first process, under the filter; it runs the program and tells of it
    /// through `tell`. Comes back only if the kernel refuses that.
    pub fn run_under_init(&self, calls: &SystemCalls, init: BorrowedFd<'_>, tell: BorrowedFd<'_>) -> Failure {
        if let Err(error) = seccomp::load(calls) {
            return Failure::while_doing("loading the system call filter", error);
        }
        match init::run(init, tell, &self.path, &self.args, &self.env) {
            Ok(never) => match never {},
            Err(errno) => Failure::while_doing("becoming the container's first process", errno),
        }
    }
}

fn search_path(env: &[String]) -> &str {
    env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default()
}

/// The first candidate that can be run; else the error of one that is there, else that none is.
fn search(name: &str, path: &str) -> Result<PathBuf, Errno> {
    let mut worst = Errno::ENOENT;
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = Path::new(directory).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(worst)
}

fn check(candidate: &Path) -> Result<(), Errno> {
    access(candidate, AccessFlags::X_OK)?;
    match candidate.is_file() {
        true => Ok(()),
        false => Err(Errno::EACCES),
    }
}

fn terminated(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure {
        code: FAILED,
        message: "an argument or environment entry contains a zero byte".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CANNOT_RUN;

    fn failure(args: &[&str], path: &str) -> Failure {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Program::find(&args, &[format!("PATH={path}")]).unwrap_err()
    }

    #[test]
    fn a_bare_name_is_searched_in_the_path_given() {
        let program = Program::find(&["sh".to_owned()], &["PATH=/nowhere::/usr/bin:/bin".to_owned()]).unwrap();
        assert!(program.path.to_string_lossy().ends_with("/bin/sh"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            failure(&["no-such-program"], "/bin"),
            Failure {
                code: NOT_FOUND,
                message: "no-such-program: no such program in the image (or its interpreter is \
                          missing)"
                    .to_owned(),
            }
        );
        assert_eq!(failure(&["/no/such"], "/bin").code, NOT_FOUND);
        assert_eq!(failure(&[], "/bin").code, NOT_FOUND);
        assert_eq!(failure(&[""], "/bin").code, NOT_FOUND);
    }

    #[test]
    fn what_is_there_and_is_no_program_cannot_be_run() {
        assert_eq!(failure(&["/etc/passwd"], "").code, CANNOT_RUN);
        assert_eq!(failure(&["/etc"], "").code, CANNOT_RUN);
        assert_eq!(failure(&["passwd"], "/nowhere:/etc").code, CANNOT_RUN);
    }

    #[test]
    fn a_zero_byte_is_refused() {
        assert_eq!(failure(&["/bin/sh", "a\0b"], "").code, FAILED);
    }
}
