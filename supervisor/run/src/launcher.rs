//! The seam between Berth and the container runtime: a specification becomes a waiting process.
//!
//! One implementation, libcontainer in this process. The seam is as narrow as a runtime can be
//! used, so that another one could take its place without a change elsewhere.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::unistd::Pid;

use crate::init;
use crate::paths::{ContainerDir, ContainerId};
use crate::program::Program;
use crate::report::{self, Failure};
use crate::spec::system_calls;

/// What went wrong between a specification and a running program.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The runtime refused or failed.
    #[error("making the container")]
    Create(#[source] LibcontainerError),
    /// The runtime gave no process.
    #[error("the runtime made a container without a process")]
    NoProcess,
    /// The container's process would not go on.
    #[error("starting the container's process")]
    Start(#[source] LibcontainerError),
    /// The file that holds the first process' program.
    #[error("preparing the container's first process")]
    Init(#[source] std::io::Error),
    /// The pipe to the container's process.
    #[error("hearing from the container's process")]
    Report(#[source] std::io::Error),
    /// The container is there, the program is not.
    #[error("running the container's program")]
    Program(#[source] Failure),
}

/// A container runtime.
pub trait Launcher {
    /// Makes the container described by `config.json` in `dir`, up to the moment before its program
    /// runs: in its namespaces and control group, as a child of this process' parent.
    fn create(&self, id: &ContainerId, dir: &ContainerDir) -> Result<Box<dyn Waiting>, LaunchError>;
}

/// A container whose first process waits.
pub trait Waiting {
    /// Its first process, as the host sees it.
    fn pid(&self) -> Pid;
    /// Lets it go on, and comes back when its program runs.
    fn start(self: Box<Self>) -> Result<(), LaunchError>;
}

/// libcontainer, in this process: the process must have a single thread.
#[derive(Debug)]
pub struct Libcontainer;

impl Launcher for Libcontainer {
    fn create(&self, id: &ContainerId, dir: &ContainerDir) -> Result<Box<dyn Waiting>, LaunchError> {
        let (heard, tell) = report::pipe().map_err(LaunchError::Report)?;
        let program = RunProgram { tell: Arc::new(tell), init: Arc::new(init::file().map_err(LaunchError::Init)?) };
        let built = build(id, dir, program);
        match built {
            Ok(container) => Ok(Box::new(Waits {
                pid: Pid::from_raw(container.pid().ok_or(LaunchError::NoProcess)?.as_raw()),
                container,
                heard,
            })),
            // The program's own failure is told more plainly than the runtime does it.
            Err(error) => match report::receive(heard).map_err(LaunchError::Report)? {
                Some(failure) => Err(LaunchError::Program(failure)),
                None => Err(LaunchError::Create(error)),
            },
        }
    }
}

fn build(id: &ContainerId, dir: &ContainerDir, program: RunProgram) -> Result<Container, LibcontainerError> {
    let state_root: PathBuf = dir.state_root();
    ContainerBuilder::new(id.to_string(), SyscallType::default())
        .with_root_path(state_root)?
        .with_executor(program)
        .as_init(dir.path())
        .with_systemd(false)
        .with_detach(false)
        .as_sibling(true)
        .build()
}

struct Waits {
    pid: Pid,
    container: Container,
    heard: OwnedFd,
}

impl Waiting for Waits {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn start(mut self: Box<Self>) -> Result<(), LaunchError> {
        self.container.start().map_err(LaunchError::Start)?;
        match report::receive(self.heard).map_err(LaunchError::Report)? {
            Some(failure) => Err(LaunchError::Program(failure)),
            None => Ok(()),
        }
    }
}

/// What libcontainer calls inside the container. It tells of a failure through a pipe that a
/// successful exec closes; the runtime's own way ends before the program runs.
#[derive(Clone)]
struct RunProgram {
    tell: Arc<OwnedFd>,
    init: Arc<OwnedFd>,
}

impl RunProgram {
    fn find(&self, spec: &Spec) -> Result<Program, Failure> {
        let process = spec.process().as_ref();
        let args = process.and_then(|process| process.args().clone());
        let env = process.and_then(|process| process.env().clone());
        Program::find(&args.unwrap_or_default(), &env.unwrap_or_default()).inspect_err(|failure| self.tell(failure))
    }

    fn run(&self, program: &Program, spec: &Spec) -> Failure {
        match system_calls(spec) {
            Ok(calls) => program.run_under_init(&calls, self.init.as_fd(), self.tell.as_fd()),
            Err(error) => Failure::while_doing("reading the system call filter", error),
        }
    }

    fn tell(&self, failure: &Failure) {
        if let Err(error) = failure.send(&self.tell) {
            tracing::error!(%failure, %error, "cannot tell the launcher");
        }
    }
}

impl Executor for RunProgram {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        match self.find(spec) {
            Ok(_) => Ok(()),
            Err(failure) => Err(ExecutorValidationError::ArgValidationError(failure.message)),
        }
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match self.find(spec) {
            Ok(program) => {
                let failure = self.run(&program, spec);
                self.tell(&failure);
                failure
            }
            Err(failure) => failure,
        };
        Err(ExecutorError::Execution(Box::new(failure)))
    }
}
