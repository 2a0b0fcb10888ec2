//! The system call filter of every container, and of every command that is run in one.
//!
//! The rules are in `seccomp/list.rs`, which is meant to be read. The build script has libseccomp
//! make the kernel's program of them, so that nothing is left to do at a start but to load it: it
//! comes after everything that the filter denies, and before the first instruction that is not ours.
//!
//! One architecture is known, the one that `berth-run` is built for. A call through another one's
//! table (32-bit programs on x86_64) ends the process: there `socketcall` hides its arguments behind
//! a pointer, where no filter can look.
//!
//! A profile of an administrator's comes after the list and never in its place: of several filters the
//! kernel follows the one that refuses most.

use std::io;

use berth_model::plan::SystemCalls;

use crate::sys;

/// The whole list as the kernel takes it: `struct sock_filter` after `struct sock_filter`.
const RUNTIME_DEFAULT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seccomp-runtime-default.bpf"));
/// The list without what is beyond the baseline.
const BASELINE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seccomp-baseline.bpf"));

/// Confines this process and all that come of it, for ever.
///
/// # Errors
/// The process may still gain privileges (`no_new_privs` is not set), the kernel has no filters, or
/// an administrator's is none.
pub fn load(calls: &SystemCalls) -> io::Result<()> {
    match calls {
        SystemCalls::RuntimeDefault => load_list(RUNTIME_DEFAULT),
        SystemCalls::Baseline => load_list(BASELINE),
        SystemCalls::Narrowed(profile) => {
            load_list(RUNTIME_DEFAULT)?;
            let instructions = profile.iter().map(|number| instruction(&number.to_ne_bytes()));
            sys::load_filter(&instructions.collect::<Vec<_>>())
        }
    }
}

fn load_list(program: &[u8]) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = program.as_chunks().0.iter().map(instruction).collect();
    sys::load_filter(&instructions)
}

/// From eight bytes: code, how far to jump if true and if false, and an operand.
fn instruction(bytes: &[u8; 8]) -> libc::sock_filter {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes;
    libc::sock_filter { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
}

#[cfg(test)]
#[expect(dead_code, reason = "the conditions are for the build script")]
mod list;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;

    fn names(groups: &[list::Group]) -> Vec<&'static str> {
        groups.iter().flat_map(|group| group.names).copied().collect()
    }

    fn all(groups: &[list::Group]) -> BTreeSet<&'static str> {
        names(groups).into_iter().collect()
    }

    /// What a system call says in a process that is confined as a container: 0 or the errno.
    fn under_the_filter(call: fn() -> i32) -> i32 {
        under(&SystemCalls::RuntimeDefault, call)
    }

    fn under(calls: &SystemCalls, call: fn() -> i32) -> i32 {
        let child = sys::fork_child(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            load(calls).unwrap();
            call()
        })
        .unwrap();
        match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("the confined process ended with {other:?}"),
        }
    }

    fn errno<T>(result: nix::Result<T>) -> i32 {
        result.err().map_or(0, |errno| errno as i32)
    }

    #[test]
    fn no_call_is_named_twice() {
        let conditional: BTreeSet<&str> = list::CONDITIONAL.iter().map(|call| call.name).collect();
        let plain = [list::ALLOWED, list::BEYOND_BASELINE, list::DENIED];
        let count = plain.map(|groups| names(groups).len()).iter().sum::<usize>() + conditional.len();
        let mut union: BTreeSet<&str> = plain.into_iter().flat_map(all).collect();
        union.extend(conditional);
        assert_eq!(union.len(), count);
    }

    #[test]
    fn what_lets_a_container_out_is_in_no_list() {
        let mut allowed = all(list::ALLOWED);
        allowed.extend(all(list::BEYOND_BASELINE));
        for name in ["clone3", "io_uring_setup", "userfaultfd", "socketcall"] {
            assert!(!allowed.contains(name), "{name}");
        }
    }

    #[test]
    fn a_listed_call_is_let_through() {
        assert_eq!(under_the_filter(|| errno(nix::unistd::getcwd())), 0);
    }

    #[test]
    fn a_new_namespace_is_not_permitted() {
        use nix::sched::{CloneFlags, unshare};
        assert_eq!(under_the_filter(|| errno(unshare(CloneFlags::CLONE_NEWUSER))), libc::EPERM);
    }

    #[test]
    fn a_process_in_a_new_namespace_is_not_permitted_either() {
        fn clone(flags: libc::c_int) -> i32 {
            match sys::clone_with(flags) {
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap_or(-1),
            }
        }
        for call in [
            || clone(libc::CLONE_NEWUSER),
            || clone(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID),
            || clone(libc::CLONE_NEWCGROUP),
        ] {
            assert_eq!(under_the_filter(call), libc::EPERM);
        }
        assert_eq!(under_the_filter(|| clone(libc::CLONE_FS)), 0);
    }

    #[test]
    fn processes_can_still_be_made() {
        assert_eq!(
            under_the_filter(|| match sys::fork_child(|| 0) {
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap_or(-1),
            }),
            0
        );
    }

    #[test]
    fn an_unlisted_call_does_not_exist() {
        assert_eq!(
            under_the_filter(|| {
                let (pipe, _write) = crate::report::pipe().unwrap();
                use std::os::fd::AsFd;
                match sys::clone_into_cgroup(pipe.as_fd(), || 0) {
                    Ok(_) => 0,
                    Err(error) => error.raw_os_error().unwrap_or(-1),
                }
            }),
            libc::ENOSYS
        );
    }

    #[test]
    fn families_that_reach_past_the_network_are_not_supported() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        fn open(family: AddressFamily) -> i32 {
            errno(socket(family, SockType::Datagram, SockFlag::empty(), None))
        }
        assert_eq!(under_the_filter(|| open(AddressFamily::Inet)), 0);
        assert_eq!(under_the_filter(|| open(AddressFamily::Unix)), 0);
        assert_eq!(under_the_filter(|| open(AddressFamily::Netlink)), 0);
        for call in [|| open(AddressFamily::Alg), || open(AddressFamily::Vsock), || open(AddressFamily::Packet)] {
            assert_eq!(under_the_filter(call), libc::EAFNOSUPPORT);
        }
    }

    #[test]
    fn a_memory_layout_without_randomness_cannot_be_had() {
        fn set(wanted: libc::c_ulong) -> i32 {
            match sys::personality(wanted) {
                Ok(()) => 0,
                Err(error) => error.raw_os_error().unwrap_or(-1),
            }
        }
        assert_eq!(under_the_filter(|| set(0xffff_ffff)), 0);
        assert_eq!(under_the_filter(|| set(libc::ADDR_NO_RANDOMIZE as libc::c_ulong)), libc::ENOSYS);
    }
    /// As a debugger reads, here memory of its own, so that only a filter says no.
    fn debug() -> i32 {
        use nix::sys::uio::{RemoteIoVec, process_vm_readv};
        let (own, mut read) = ([7_u8; 4], [0_u8; 4]);
        let from = RemoteIoVec { base: own.as_ptr().addr(), len: own.len() };
        errno(process_vm_readv(nix::unistd::getpid(), &mut [io::IoSliceMut::new(&mut read)], &[from]))
    }

    fn make_directory() -> i32 {
        use nix::sys::stat::Mode;
        // It is there: without a filter the answer would be another one.
        errno(nix::sys::stat::mkdirat(nix::fcntl::AT_FDCWD, "/", Mode::empty()))
    }

    #[test]
    fn the_baseline_is_the_list_without_debugging() {
        assert_eq!(under(&SystemCalls::RuntimeDefault, debug), 0);
        assert_eq!(under(&SystemCalls::Baseline, debug), libc::EPERM);
        assert_eq!(under(&SystemCalls::Baseline, || errno(nix::unistd::getcwd())), 0);
    }

    /// A filter that answers so to one system call and allows all others.
    fn answering(call: libc::c_long, answer: u32) -> SystemCalls {
        let statement = |code: u32, jt, jf, k| {
            let [c0, c1] = u16::try_from(code).unwrap().to_ne_bytes();
            let [k0, k1, k2, k3] = u32::to_ne_bytes(k);
            u64::from_ne_bytes([c0, c1, jt, jf, k0, k1, k2, k3])
        };
        let number = u32::try_from(call).unwrap();
        SystemCalls::Narrowed(vec![
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, answer),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ])
    }

    #[test]
    fn a_profile_takes_calls_away() {
        let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
        assert_eq!(under(&SystemCalls::RuntimeDefault, make_directory), libc::EEXIST);
        assert_eq!(under(&answering(libc::SYS_mkdirat, refused), make_directory), libc::EPERM);
    }

    #[test]
    fn a_profile_gives_nothing_back() {
        use nix::sched::{CloneFlags, unshare};
        let allowing = answering(libc::SYS_unshare, libc::SECCOMP_RET_ALLOW);
        assert_eq!(under(&allowing, || errno(unshare(CloneFlags::CLONE_NEWUSER))), libc::EPERM);
    }

    #[test]
    fn what_a_profile_has_to_allow_is_what_the_first_process_asks_for() {
        let source = include_str!("../init/sys.rs");
        let table = source.split("mod number {").nth(1).unwrap().split('}').next().unwrap();
        let asked = table.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split(':').next());
        let kernel = |name: &str| if name == "SIGPROCMASK" { "rt_sigprocmask".into() } else { name.to_lowercase() };
        let mut asked: Vec<String> = asked.map(kernel).collect();
        // The launcher becomes the first process by its descriptor.
        asked.push("execveat".to_owned());
        asked.sort();
        assert_eq!(asked, berth_model::seccomp::NEEDED);
    }
}
