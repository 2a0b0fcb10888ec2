//! System calls that none of our dependencies wrap safely: the mount API, clone3, pidfds, terminals.
//!
//! Every function takes and gives owned or borrowed descriptors and turns -1 into [`io::Error`].
//! Two of them divide the process ([`fork_child`], [`clone_into_cgroup`]): `berth-run` has one
//! thread, so that the child may run any code and ends in `_exit` with what its closure returned.

#![allow(unsafe_code, reason = "this is the one module of berth-run that may call the kernel directly")]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;

use nix::NixPath;
use nix::pty::Winsize;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

/// No setuid bits, no device nodes.
pub const NOSUID_NODEV: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// Nothing can be run from this mount, but its devices can be used.
pub const NOSUID_NOEXEC: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
/// As [`NOSUID_NODEV`], and nothing can be run from this mount.
pub const NOSUID_NODEV_NOEXEC: u64 = NOSUID_NODEV | libc::MOUNT_ATTR_NOEXEC;
/// As [`NOSUID_NODEV`], and nothing can be written through this mount.
pub const NOSUID_NODEV_READ_ONLY: u64 = NOSUID_NODEV | libc::MOUNT_ATTR_RDONLY;

/// Wider than the type that libc gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Error of a system call's return value, or the value.
fn checked(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

/// Takes over a descriptor that a system call has just made.
fn owned(value: libc::c_long) -> io::Result<OwnedFd> {
    let raw = RawFd::try_from(checked(value)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A detached copy of the mount at `path`, without the mounts below it.
pub fn open_tree_clone(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    let result = path.with_nix_path(|path| {
        // SAFETY: `path` is a terminated string that lives through the call.
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) }
    })?;
    owned(result)
}

/// Sets `MOUNT_ATTR_*` bits on a detached mount and, given a user namespace, maps its ids by it.
pub fn mount_setattr(mount: BorrowedFd<'_>, attributes: u64, map: Option<BorrowedFd<'_>>) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `mount_attr`: it asks for nothing.
    let mut wanted: libc::mount_attr = unsafe { mem::zeroed() };
    wanted.attr_set = attributes;
    if let Some(map) = map {
        wanted.attr_set |= libc::MOUNT_ATTR_IDMAP;
        wanted.userns_fd = map.as_raw_fd() as u64;
    }
    // SAFETY: the empty path and `wanted` live through the call, and its true size is passed.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const wanted,
            mem::size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Attaches a detached mount at `target`.
pub fn move_mount(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let result = target.with_nix_path(|target| {
        // SAFETY: both strings are terminated and live through the call.
        unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        }
    })?;
    checked(result)?;
    Ok(())
}

/// Begins the configuration of a new file system instance.
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `kind` is a terminated string that lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// One `fsconfig` call; `key` and `value` as the command wants them.
fn fsconfig(
    context: BorrowedFd<'_>,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    // SAFETY: both pointers are null or terminated strings that live through the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            key.map_or(ptr::null(), CStr::as_ptr),
            value.map_or(ptr::null(), CStr::as_ptr),
            0,
        )
    })?;
    Ok(())
}

/// Sets a parameter that has a value.
pub fn fsconfig_string(context: BorrowedFd<'_>, key: &CStr, value: &CStr) -> io::Result<()> {
    fsconfig(context, libc::FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// Sets a parameter that has none.
pub fn fsconfig_flag(context: BorrowedFd<'_>, key: &CStr) -> io::Result<()> {
    fsconfig(context, libc::FSCONFIG_SET_FLAG, Some(key), None)
}

/// Makes the file system instance.
pub fn fsconfig_create(context: BorrowedFd<'_>) -> io::Result<()> {
    fsconfig(context, libc::FSCONFIG_CMD_CREATE, None, None)
}

/// A detached mount of a made instance.
pub fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers and an open descriptor.
    owned(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes as libc::c_uint)
    })
}

/// Ends this process at once: no destructors, no flushing of what the parent has buffered.
fn leave(code: i32) -> ! {
    // SAFETY: always sound; that nothing is cleaned up is what is wanted in a forked child.
    unsafe { libc::_exit(code) }
}

/// Runs `child` in a forked process and gives its pid.
pub fn fork_child(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the process has one thread, so that no lock can be held by a thread that is gone.
    match unsafe { libc::fork() } {
        0 => leave(child()),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Runs `child` in a new process that is born inside `cgroup`, as a child of *our parent*.
pub fn clone_into_cgroup(cgroup: BorrowedFd<'_>, child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: all zeroes is a valid `clone_args`.
    let mut wanted: libc::clone_args = unsafe { mem::zeroed() };
    wanted.flags = CLONE_INTO_CGROUP | libc::CLONE_PARENT as u64;
    wanted.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM and with no stack given this behaves like fork; the process has one
    // thread (see `fork_child`), and `wanted` lives through the call with its true size.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const wanted, mem::size_of::<libc::clone_args>()) };
    match checked(result)? {
        0 => leave(child()),
        pid => Ok(Pid::from_raw(libc::pid_t::try_from(pid).map_err(io::Error::other)?)),
    }
}

/// A child of the old clone call with these flags, which ends at once.
#[cfg(test)]
pub fn clone_with(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: with no stack given and without CLONE_VM this behaves like fork (see `fork_child`).
    match checked(unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) })? {
        0 => leave(0),
        _ => Ok(()),
    }
}

/// Sets the personality of this process.
#[cfg(test)]
pub fn personality(wanted: libc::c_ulong) -> io::Result<()> {
    // SAFETY: plain numbers.
    checked(libc::c_long::from(unsafe { libc::personality(wanted) }))?;
    Ok(())
}

/// Gives every signal its default action and blocks none: a container inherits both.
pub fn reset_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::sigaction(signal, &default) }?;
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// A descriptor that stands for a process, however often its number is used again.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Sends a signal to the process behind `pidfd`.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: a null `siginfo` means that the kernel fills it in as for kill(2).
    checked(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Marks all descriptors from `first` on as closed at exec.
pub fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    // SAFETY: plain numbers; no descriptor is closed before exec.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Takes over a descriptor that the caller of the program has passed by number.
pub fn passed_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; a number that is not open gives EBADF.
    checked(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: it is open, and the caller of the program has given it to us to use up.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives a descriptor to the program that this process becomes, under a number that it expects.
pub fn pass_as(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    // SAFETY: plain numbers. Whatever had the number is closed; the caller becomes another program. Not dup2, which not
    // every architecture has and which profiles would have to allow for this alone.
    nix::errno::Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), number, 0) })?;
    Ok(())
}

/// A copy whose number is at least `least`, closed at exec.
pub fn duplicate_from(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the copy is a new descriptor.
    owned(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }))
}

/// The resources that [`limits_of`] copies: all that Linux has.
const RESOURCES: std::ops::Range<u32> = 0..16;

/// All resource limits of a process, as `(resource, limit)`.
pub fn limits_of(pid: Pid) -> io::Result<Vec<(u32, libc::rlimit)>> {
    RESOURCES
        .map(|resource| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: a null new limit changes nothing; `limit` is writable.
            checked(libc::c_long::from(unsafe { libc::prlimit(pid.as_raw(), resource, ptr::null(), &raw mut limit) }))?;
            Ok((resource, limit))
        })
        .collect()
}

/// Gives this process the limits of another.
pub fn set_limits(limits: &[(u32, libc::rlimit)]) -> io::Result<()> {
    for (resource, limit) in limits {
        // SAFETY: `limit` is readable, and no old limit is asked for.
        checked(libc::c_long::from(unsafe { libc::prlimit(0, *resource, limit, ptr::null_mut()) }))?;
    }
    Ok(())
}

/// Puts this process under a system call filter.
pub fn load_filter(instructions: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(instructions.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the program and its instructions are readable through the call; the kernel copies and checks them.
    checked(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    }))
    .map(drop)
}

/// The other side of a pseudo-terminal, opened without looking its path up.
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int.
    checked(libc::c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes plain flags and makes a descriptor.
    owned(libc::c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }))
}

/// Makes `terminal` the controlling terminal of this session.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes a plain number.
    checked(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }))?;
    Ok(())
}

/// Rows and columns of a terminal.
pub fn terminal_size(terminal: BorrowedFd<'_>) -> io::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one `winsize`.
    checked(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }))?;
    Ok(size)
}

/// Sets rows and columns of a terminal; who runs in it gets SIGWINCH.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, size: &Winsize) -> io::Result<()> {
    // SAFETY: the request reads one `winsize`.
    checked(libc::c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, ptr::from_ref(size)) }))?;
    Ok(())
}

/// One descriptor to wait for in [`poll`]: the events asked for, then the events seen.
#[derive(Clone, Copy, Debug)]
pub struct Interest<'fd> {
    /// What is watched.
    pub fd: BorrowedFd<'fd>,
    /// `POLLIN`, `POLLOUT`; nothing still reports hang-up.
    pub events: libc::c_short,
}

/// Waits until something can be done with one of `interests`; gives the events of each.
pub fn poll(interests: &[Interest<'_>]) -> io::Result<Vec<libc::c_short>> {
    poll_for(interests, -1)
}

/// Whether something can be done right now.
pub fn ready(interest: Interest<'_>) -> io::Result<bool> {
    Ok(poll_for(&[interest], 0)?.iter().any(|events| *events & interest.events != 0))
}

fn poll_for(interests: &[Interest<'_>], milliseconds: libc::c_int) -> io::Result<Vec<libc::c_short>> {
    let mut entries: Vec<libc::pollfd> = interests
        .iter()
        .map(|interest| libc::pollfd { fd: interest.fd.as_raw_fd(), events: interest.events, revents: 0 })
        .collect();
    let count = libc::nfds_t::try_from(entries.len()).map_err(io::Error::other)?;
    loop {
        // SAFETY: `entries` has `count` elements and is writable.
        let result = checked(libc::c_long::from(unsafe { libc::poll(entries.as_mut_ptr(), count, milliseconds) }));
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(entries.iter().map(|entry| entry.revents).collect()),
        }
    }
}
