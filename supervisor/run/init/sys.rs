//! The kernel, called without a library between: the only unsafe code of the first process.
//!
//! Functions give what the call gave, or the errno. Structures are the kernel's own, of 64-bit
//! machines; where their layout differs between architectures only the part that is the same is read.

#![allow(unsafe_code, reason = "there is nothing below this file but the kernel")]

use core::arch::{asm, global_asm};
use core::ffi::CStr;
use core::ptr;

/// Try again.
pub const EAGAIN: i32 = 11;
/// A signal came first.
pub const EINTR: i32 = 4;
/// A child ended.
pub const SIGCHLD: i32 = 17;

const ENOTSOCK: i32 = 88;
const MSG_DONTWAIT: usize = 0x40;
const MSG_NOSIGNAL: usize = 0x4000;
const O_NONBLOCK: usize = 0o4000;
const O_CLOEXEC: usize = 0o200_0000;
const F_SETFD: usize = 2;
const F_SETFL: usize = 4;
const F_DUPFD_CLOEXEC: usize = 1030;
const FD_CLOEXEC: usize = 1;
const SIG_SETMASK: usize = 2;
const PR_SET_NAME: usize = 15;
const WNOHANG: usize = 1;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;
/// Kernel and architecture agree on 64 signals.
const MASK_SIZE: usize = 8;
/// Kept descriptors are from here on, out of the way of those that programs expect.
const KEPT_FROM: usize = 10;
/// Owner reads and writes, everybody else of the container writes.
const PIPE_MODE: usize = 0o622;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const SIGPROCMASK: usize = 14;
    pub const SENDTO: usize = 44;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const FCHMOD: usize = 91;
    pub const SETSID: usize = 112;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const PPOLL: usize = 271;
    pub const SIGNALFD4: usize = 289;
    pub const DUP3: usize = 292;
    pub const PIPE2: usize = 293;
}

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod number {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const FSTAT: usize = 80;
    pub const SIGPROCMASK: usize = 135;
    pub const SENDTO: usize = 206;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const FCNTL: usize = 25;
    pub const FCHMOD: usize = 52;
    pub const SETSID: usize = 157;
    pub const PRCTL: usize = 167;
    pub const EXIT_GROUP: usize = 94;
    pub const PPOLL: usize = 73;
    pub const SIGNALFD4: usize = 74;
    pub const DUP3: usize = 24;
    pub const PIPE2: usize = 59;
}

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x0, sp",
    "and sp, x0, #-16",
    "bl {begin}",
    "brk #1",
    begin = sym begin,
);

#[cfg(target_arch = "riscv64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mv a0, sp",
    "andi sp, sp, -16",
    "call {begin}",
    "ebreak",
    begin = sym begin,
);

/// Where the kernel comes in: `stack` holds the count of arguments, the arguments, a null, the
/// environment, a null.
extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: this function runs once, so that nobody else has them.
    let buffers = unsafe { [&mut *(&raw mut OUTPUT), &mut *(&raw mut ERROR)] };
    exit(crate::main(&Arguments { stack }, buffers))
}

/// Room for what is read at once, in memory that is not there before it is used.
pub type Buffer = &'static mut [u8; BUFFER];

const BUFFER: usize = 8192;
static mut OUTPUT: [u8; BUFFER] = [0; BUFFER];
static mut ERROR: [u8; BUFFER] = [0; BUFFER];

/// The compiler asks for these three where it copies, clears or compares.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for index in 0..count {
        // SAFETY: both are valid for `count` bytes.
        unsafe { *to.add(index) = *from.add(index) };
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    for index in 0..count {
        // SAFETY: valid for `count` bytes.
        unsafe { *to.add(index) = value as u8 };
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: both are valid for `count` bytes.
        let (one, other) = unsafe { (*one.add(index), *other.add(index)) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(crate::FAILED)
}

/// One system call; the result is negative for an errno.
///
/// # Safety
/// The arguments must be what the call `number` expects; pointers must be valid for as long as it runs.
unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the calling convention of the kernel; what the call does is the caller's to answer for.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        asm!("ecall", in("a7") number, inlateout("a0") a as isize => result, in("a1") b, in("a2") c,
             in("a3") d, in("a4") e, in("a5") f, options(nostack));
    }
    result
}

/// A call that takes nothing but numbers.
fn numbers(number: usize, [a, b, c]: [usize; 3]) -> Result<usize, i32> {
    // SAFETY: none of the calls made through here reads or writes memory of ours.
    checked(unsafe { call(number, [a, b, c, 0, 0, 0]) })
}

fn checked(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| (-result) as i32)
}

/// What the kernel has put on the stack.
pub struct Arguments {
    stack: *const usize,
}

impl Arguments {
    fn count(&self) -> usize {
        // SAFETY: the kernel has put the count there.
        unsafe { *self.stack }
    }

    /// The null-terminated list of arguments from `index` on.
    fn from(&self, index: usize) -> *const *const u8 {
        // SAFETY: never beyond the null that ends the list.
        unsafe { self.stack.add(1 + index.min(self.count())).cast() }
    }

    fn environment(&self) -> *const *const u8 {
        // SAFETY: behind the null that ends the list of arguments.
        unsafe { self.stack.add(2 + self.count()).cast() }
    }

    fn program(&self) -> *const u8 {
        // SAFETY: the list has at least its null.
        unsafe { *self.from(1) }
    }
}

/// Ends the whole process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: a plain number; it does not come back.
        unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// What `ps` shows. A process without a name would work as well.
pub fn set_name(name: &CStr) {
    // SAFETY: a terminated string that lives through the call.
    let _ = unsafe { call(number::PRCTL, [PR_SET_NAME, name.as_ptr() as usize, 0, 0, 0, 0]) };
}

/// Becomes the program; the errno if the kernel refuses.
pub fn execute(arguments: &Arguments) -> i32 {
    let path = arguments.program();
    // SAFETY: path and both lists are as the kernel has made them.
    let result = unsafe {
        call(
            number::EXECVE,
            [path as usize, arguments.from(2) as usize, arguments.environment() as usize, 0, 0, 0],
        )
    };
    checked(result).err().unwrap_or(0)
}

/// Tells why the program does not run: a zero, the errno, the program's path. If nobody listens any
/// more, there is nobody to tell that either.
pub fn tell(descriptor: i32, errno: i32, arguments: &Arguments) {
    let head = [0, errno as u8];
    let _ = write_plain(descriptor, &head);
    let path = arguments.program();
    if path.is_null() {
        return;
    }
    let mut length = 0;
    // SAFETY: a terminated string of the kernel's making.
    while unsafe { *path.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: as long as was just counted.
    let _ = write_plain(descriptor, unsafe { core::slice::from_raw_parts(path, length) });
}

/// A child like this process.
pub fn fork() -> Result<i32, i32> {
    // SAFETY: no shared memory and no new stack: the child goes on with a copy of everything.
    let pid = checked(unsafe { call(number::CLONE, [SIGCHLD as usize, 0, 0, 0, 0, 0]) })?;
    Ok(pid as i32)
}

/// A session without a terminal.
pub fn new_session() -> Result<(), i32> {
    numbers(number::SETSID, [0; 3]).map(drop)
}

fn set_mask(mask: u64) -> Result<(), i32> {
    // SAFETY: the kernel reads one mask and writes none back.
    let result =
        unsafe { call(number::SIGPROCMASK, [SIG_SETMASK, &raw const mask as usize, 0, MASK_SIZE, 0, 0]) };
    checked(result).map(drop)
}

/// Signals wait to be read from now on.
pub fn block_signals() -> Result<(), i32> {
    set_mask(u64::MAX)
}

/// Signals are delivered from now on.
pub fn unblock_signals() -> Result<(), i32> {
    set_mask(0)
}

/// Where blocked signals are read.
pub fn signal_descriptor() -> Result<i32, i32> {
    let all = u64::MAX;
    // SAFETY: the kernel reads one mask of the size given.
    let result = unsafe {
        call(number::SIGNALFD4, [usize::MAX, &raw const all as usize, MASK_SIZE, O_CLOEXEC | O_NONBLOCK, 0, 0])
    };
    keep_only(checked(result)? as i32)
}

/// The next signal that came, if one did.
pub fn next_signal(descriptor: i32) -> Option<i32> {
    // One `signalfd_siginfo`: the number, and 124 bytes that do not matter here.
    let mut info = [0_u32; 32];
    // SAFETY: room for exactly one of them.
    let result =
        unsafe { call(number::READ, [descriptor as usize, info.as_mut_ptr() as usize, size_of_val(&info), 0, 0, 0]) };
    (result > 0).then_some(info[0] as i32)
}

/// Passes a signal on. A program that has just ended does not need it any more.
pub fn send_signal(pid: i32, signal: i32) {
    let _ = numbers(number::KILL, [pid as usize, signal as usize, 0]);
}

/// How a process ended.
pub enum Ended {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// The next child, own or adopted, that has ended.
pub fn next_ended() -> Option<(i32, Ended)> {
    let mut status = 0_i32;
    // SAFETY: the kernel writes one status; usage is not asked for.
    let result = unsafe { call(number::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0, 0]) };
    let pid = i32::try_from(result).ok().filter(|pid| *pid > 0)?;
    Some((pid, match status & 0x7f {
        0 => Ended::Exited((status >> 8) & 0xff),
        signal => Ended::Killed(signal),
    }))
}

/// Not for the programs that this process becomes or makes.
pub fn close_on_exec(descriptor: i32) -> Result<(), i32> {
    numbers(number::FCNTL, [descriptor as usize, F_SETFD, FD_CLOEXEC]).map(drop)
}

/// Closes; a descriptor that is not open is closed already.
pub fn close(descriptor: i32) {
    let _ = numbers(number::CLOSE, [descriptor as usize, 0, 0]);
}

/// A copy out of the way of those that programs expect, and not for them.
pub fn keep(descriptor: i32) -> Result<i32, i32> {
    numbers(number::FCNTL, [descriptor as usize, F_DUPFD_CLOEXEC, KEPT_FROM]).map(|kept| kept as i32)
}

/// As [`keep`], in place of the descriptor itself.
fn keep_only(descriptor: i32) -> Result<i32, i32> {
    let kept = keep(descriptor)?;
    close(descriptor);
    Ok(kept)
}

/// Makes `to` the same open file as `from`, for programs too.
pub fn duplicate(from: i32, to: i32) -> Result<(), i32> {
    numbers(number::DUP3, [from as usize, to as usize, 0]).map(drop)
}

/// A pipe that every user of the container may open for writing: its read end, which never waits,
/// and its write end.
pub fn pipe() -> Result<(i32, i32), i32> {
    let mut ends = [0_i32; 2];
    // SAFETY: the kernel writes two descriptors.
    checked(unsafe { call(number::PIPE2, [ends.as_mut_ptr() as usize, O_CLOEXEC, 0, 0, 0, 0]) })?;
    let (read, write) = (keep_only(ends[0])?, keep_only(ends[1])?);
    numbers(number::FCHMOD, [read as usize, PIPE_MODE, 0])?;
    numbers(number::FCNTL, [read as usize, F_SETFL, O_NONBLOCK])?;
    Ok((read, write))
}

/// Whether both are the same file: device and number, with which `struct stat` begins everywhere.
pub fn same_file(one: i32, other: i32) -> Result<bool, i32> {
    Ok(identity(one)? == identity(other)?)
}

fn identity(descriptor: i32) -> Result<[u64; 2], i32> {
    // As large as the largest `struct stat`.
    let mut status = [0_u64; 24];
    // SAFETY: room enough for the kernel's structure.
    checked(unsafe { call(number::FSTAT, [descriptor as usize, status.as_mut_ptr() as usize, 0, 0, 0, 0]) })?;
    Ok([status[0], status[1]])
}

/// Reads what is there.
pub fn read(descriptor: i32, buffer: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the kernel writes at most the buffer's length.
    checked(unsafe {
        call(number::READ, [descriptor as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0])
    })
}

/// Writes what can be written without waiting, if it is a socket; else waits.
pub fn write(descriptor: i32, bytes: &[u8]) -> Result<usize, i32> {
    let flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    // SAFETY: the kernel reads the bytes; no address is given.
    let sent = checked(unsafe {
        call(number::SENDTO, [descriptor as usize, bytes.as_ptr() as usize, bytes.len(), flags, 0, 0])
    });
    match sent {
        Err(ENOTSOCK) => write_plain(descriptor, bytes),
        other => other,
    }
}

fn write_plain(descriptor: i32, bytes: &[u8]) -> Result<usize, i32> {
    // SAFETY: the kernel reads the bytes.
    checked(unsafe { call(number::WRITE, [descriptor as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) })
}

/// One descriptor to wait for: the kernel's `struct pollfd`.
#[repr(C)]
pub struct Interest {
    descriptor: i32,
    wanted: i16,
    seen: i16,
}

impl Interest {
    /// Until it can be read.
    pub fn read(descriptor: i32) -> Self {
        Self { descriptor, wanted: POLLIN, seen: 0 }
    }

    /// Until it can be written.
    pub fn write(descriptor: i32) -> Self {
        Self { descriptor, wanted: POLLOUT, seen: 0 }
    }

    /// A place in a list that the kernel passes over.
    pub fn none() -> Self {
        Self { descriptor: -1, wanted: 0, seen: 0 }
    }

    /// Whether anything was seen.
    pub fn seen(&self) -> bool {
        self.seen != 0
    }
}

/// Waits until something can be done with one of them.
pub fn wait(interests: &mut [Interest]) {
    // SAFETY: the list has the length given; neither a time nor a mask is.
    let _ = unsafe {
        call(number::PPOLL, [interests.as_mut_ptr() as usize, interests.len(), ptr::null::<u8>() as usize, 0, 0, 0])
    };
}
