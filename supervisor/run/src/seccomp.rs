//! The system call filter of every container, and of every command that is run in one.
//!
//! The rules are in `seccomp/list.rs`, which is meant to be read. The build script has libseccomp
//! make the kernel's program of them, so that nothing is left to do at a start but to load it: it
//! comes after everything that the filter denies, and before the first instruction that is not ours.
//!
//! One architecture is known, the one that `berth-run` is built for. A call through another one's
//! table (32-bit programs on x86_64) ends the process: there `socketcall` hides its arguments behind
//! a pointer, where no filter can look.

use std::io;

use crate::sys;

/// The filter as the kernel takes it: `struct sock_filter` after `struct sock_filter`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seccomp.bpf"));

/// Confines this process and all that come of it, for ever.
///
/// # Errors
/// The process may still gain privileges (`no_new_privs` is not set), or the kernel has no filters.
pub fn load() -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = PROGRAM.as_chunks().0.iter().map(instruction).collect();
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
        let child = sys::fork_child(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            load().unwrap();
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
        let count = names(list::ALLOWED).len() + names(list::DENIED).len() + conditional.len();
        let mut union = all(list::ALLOWED);
        union.extend(all(list::DENIED));
        union.extend(conditional);
        assert_eq!(union.len(), count);
    }

    #[test]
    fn what_lets_a_container_out_is_in_no_list() {
        let allowed = all(list::ALLOWED);
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
}
