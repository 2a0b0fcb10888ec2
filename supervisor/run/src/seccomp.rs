//! The system call filter of every container, rendered in the form of the OCI specification.
//!
//! The rules are in [`list`], which is meant to be read; this module only turns them round. The
//! runtime loads the result for a container's first process, and `exec` loads the same one from
//! the saved `config.json`, so that both are confined alike.
//!
//! One architecture is named, the native one. Calls through another one's table (32-bit programs
//! on x86_64) end the process: there `socketcall` hides its arguments behind a pointer, where no
//! filter can look.

mod list;

use serde_json::{Value, json};

/// A test on the arguments of a system call; arguments are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The argument is this value.
    Equal(u8, u64),
    /// Both arguments have these values.
    BothEqual((u8, u64), (u8, u64)),
    /// The argument is greater.
    Above(u8, u64),
    /// None of these bits is set in the argument.
    NoBits(u8, u64),
    /// All of these bits are set in the argument.
    AllBits(u8, u64),
}

/// `linux.seccomp` of a container's specification.
pub fn render() -> Value {
    let mut rules = vec![
        json!({ "names": names(list::ALLOWED), "action": "SCMP_ACT_ALLOW" }),
        json!({
            "names": names(list::DENIED),
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": libc::EPERM,
        }),
    ];
    for call in list::CONDITIONAL {
        rules.extend(call.allowed.iter().map(|condition| {
            json!({
                "names": [call.name],
                "action": "SCMP_ACT_ALLOW",
                "args": arguments(*condition),
            })
        }));
        rules.extend(call.refused.iter().map(|(condition, errno)| {
            json!({
                "names": [call.name],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": errno,
                "args": arguments(*condition),
            })
        }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": [NATIVE],
        "syscalls": rules,
    })
}

#[cfg(target_arch = "x86_64")]
const NATIVE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const NATIVE: &str = "SCMP_ARCH_AARCH64";
#[cfg(target_arch = "riscv64")]
const NATIVE: &str = "SCMP_ARCH_RISCV64";

fn names(groups: &[list::Group]) -> Vec<&'static str> {
    let mut names: Vec<&str> = groups.iter().flat_map(|group| group.names).copied().collect();
    names.sort_unstable();
    names
}

fn arguments(condition: Condition) -> Value {
    let equal = |(index, value): (u8, u64)| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    // The specification wants the mask in `value` and what is left of the argument in `valueTwo`;
    // libcontainer 0.7 reads them the other way round, which makes every such rule of a correct
    // filter meaningless. It is written as our runtime reads it, and a test below watches that.
    let masked = |index: u8, mask: u64, left: u64| json!({ "index": index, "value": left, "valueTwo": mask, "op": "SCMP_CMP_MASKED_EQ" });
    match condition {
        Condition::Equal(index, value) => json!([equal((index, value))]),
        Condition::BothEqual(one, other) => json!([equal(one), equal(other)]),
        Condition::Above(index, value) => {
            json!([{ "index": index, "value": value, "op": "SCMP_CMP_GT" }])
        }
        Condition::NoBits(index, mask) => json!([masked(index, mask, 0)]),
        Condition::AllBits(index, mask) => json!([masked(index, mask, mask)]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use libcontainer::oci_spec::runtime::LinuxSeccomp;
    use libcontainer::seccomp::initialize_seccomp;
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::{sys, testing};

    fn all(groups: &[list::Group]) -> BTreeSet<&'static str> {
        names(groups).into_iter().collect()
    }

    /// What a system call says in a process that is confined as a container: 0 or the errno.
    fn under_the_filter(call: fn() -> i32) -> i32 {
        let filter: LinuxSeccomp = serde_json::from_value(render()).unwrap();
        let child = sys::fork_child(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            initialize_seccomp(&filter).unwrap();
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
    fn the_rendered_filter_is_the_reviewed_one() {
        testing::golden("seccomp.json", &render());
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
