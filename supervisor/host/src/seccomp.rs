//! System call filters out of profiles, by libseccomp.
//!
//! Only programs for the kernel are made here; who is confined loads them itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, set_api};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

/// libseccomp's word for kernels that can end a process and log a call, as all since 4.14 can. It would ask the kernel,
/// and a daemon that is confined itself may not.
const API: u32 = 3;
/// Most instructions that the kernel takes.
const LONGEST: usize = 4096;

/// No filter can be made of a profile.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It was written for other machines.
    #[error("it is not for this machine's architecture; add {0} to its architectures, or leave them out")]
    Architecture(&'static str),
    /// A misspelt name would leave a call open that was to be shut.
    #[error("there is no system call `{0}`")]
    UnknownCall(String),
    /// The action means nothing.
    #[error("the action {0} cannot be used")]
    Action(LinuxSeccompAction),
    /// A rule that cannot be had, or that contradicts another one.
    #[error("adding the rule for `{call}`")]
    Rule {
        /// Of which system call.
        call: String,
        /// What libseccomp says.
        #[source]
        source: SeccompError,
    },
    /// libseccomp itself.
    #[error("making the filter")]
    Make(#[from] SeccompError),
    /// The program did not come out.
    #[error("reading the filter")]
    Read(#[from] io::Error),
    /// The kernel would not take it.
    #[error("the filter has {0} instructions, and the kernel takes {LONGEST}")]
    TooLong(usize),
}

/// The kernel's program of a profile in OCI's form: a `struct sock_filter` each, as the bytes of one number of this
/// machine.
///
/// # Errors
/// The profile cannot be followed to the letter on this machine.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<u64>, FilterError> {
    set_api(API)?;
    check_architecture(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut filter = ScmpFilterContext::new(default)?;
    filter.set_act_badarch(ScmpAction::KillProcess)?;
    for rule in profile.syscalls().iter().flatten() {
        let wanted = action(rule.action(), rule.errno_ret())?;
        if wanted != default {
            add(&mut filter, rule, wanted, passes(default) && !passes(wanted))?;
        }
    }
    instructions(&filter)
}

fn check_architecture(profile: &LinuxSeccomp) -> Result<(), FilterError> {
    let (own, name) = match ScmpArch::native() {
        ScmpArch::X8664 => (Arch::ScmpArchX86_64, "SCMP_ARCH_X86_64"),
        ScmpArch::Aarch64 => (Arch::ScmpArchAarch64, "SCMP_ARCH_AARCH64"),
        ScmpArch::Riscv64 => (Arch::ScmpArchRiscv64, "SCMP_ARCH_RISCV64"),
        _ => (Arch::ScmpArchNative, "SCMP_ARCH_NATIVE"),
    };
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let speaks = listed.is_empty() || listed.iter().any(|arch| *arch == own || *arch == Arch::ScmpArchNative);
    if speaks { Ok(()) } else { Err(FilterError::Architecture(name)) }
}

/// `EPERM` where no error is named.
fn action(wanted: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, FilterError> {
    match wanted {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Ok(ScmpAction::KillThread),
        LinuxSeccompAction::ScmpActKillProcess => Ok(ScmpAction::KillProcess),
        LinuxSeccompAction::ScmpActTrap => Ok(ScmpAction::Trap),
        LinuxSeccompAction::ScmpActErrno => {
            let errno = errno.map_or(Ok(libc::EPERM), i32::try_from);
            errno.map(ScmpAction::Errno).map_err(|_| FilterError::Action(wanted))
        }
        LinuxSeccompAction::ScmpActLog => Ok(ScmpAction::Log),
        LinuxSeccompAction::ScmpActAllow => Ok(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActNotify | LinuxSeccompAction::ScmpActTrace => Err(FilterError::Action(wanted)),
    }
}

fn passes(action: ScmpAction) -> bool {
    matches!(action, ScmpAction::Allow | ScmpAction::Log)
}

/// A name that libseccomp does not know matters only if the call would stay open: profiles also name what other kernels
/// have.
fn add(
    filter: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    action: ScmpAction,
    shuts: bool,
) -> Result<(), FilterError> {
    for name in rule.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            if shuts {
                return Err(FilterError::UnknownCall(name.clone()));
            }
            continue;
        };
        for conditions in alternatives(rule.args().as_deref().unwrap_or_default()) {
            let added = filter.add_rule_conditional(action, call, &conditions);
            added.map_err(|source| FilterError::Rule { call: name.clone(), source })?;
        }
    }
    Ok(())
}

/// All conditions hold together, unless two are about one argument: then, as in other runtimes, any of them is enough.
fn alternatives(conditions: &[LinuxSeccompArg]) -> Vec<Vec<ScmpArgCompare>> {
    let arguments: BTreeSet<usize> = conditions.iter().map(LinuxSeccompArg::index).collect();
    let all = conditions.iter().filter_map(comparator);
    match arguments.len() == conditions.len() {
        true => vec![all.collect()],
        false => all.map(|condition| vec![condition]).collect(),
    }
}

/// Nothing for an argument that no system call has, whose number does not even fit.
fn comparator(condition: &LinuxSeccompArg) -> Option<ScmpArgCompare> {
    let (value, second) = (condition.value(), condition.value_two().unwrap_or_default());
    let (op, value) = match condition.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        // The mask comes first.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), second),
    };
    u32::try_from(condition.index()).ok().map(|index| ScmpArgCompare::new(index, op, value))
}

fn instructions(filter: &ScmpFilterContext) -> Result<Vec<u64>, FilterError> {
    let mut file = File::from(memfd_create(c"filter", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?);
    filter.export_bpf(&file)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let program: Vec<u64> = bytes.as_chunks().0.iter().map(|instruction| u64::from_ne_bytes(*instruction)).collect();
    if program.len() > LONGEST { Err(FilterError::TooLong(program.len())) } else { Ok(program) }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::Mode;
    use serde_json::{Value, json};

    use super::*;

    fn compiled(profile: Value) -> Result<Vec<u64>, FilterError> {
        compile(&serde_json::from_value(profile).unwrap())
    }

    fn denying(rule: Value) -> Value {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    }

    /// What a call answers in a thread that is confined by the profile.
    #[allow(unsafe_code, reason = "whoever confines itself in earnest is another program")]
    fn under<T: Send + 'static>(profile: Value, call: impl FnOnce() -> T + Send + 'static) -> T {
        let program = compiled(profile).unwrap();
        let confined = move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            let own = libc::sock_fprog {
                len: u16::try_from(program.len()).unwrap(),
                filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
            };
            // SAFETY: the program is readable through the call; the kernel copies and checks it.
            let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const own) };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            call()
        };
        std::thread::spawn(confined).join().unwrap()
    }

    fn make_directory() -> nix::Result<()> {
        // It is there: without a filter the answer is another one.
        nix::sys::stat::mkdirat(AT_FDCWD, "/", Mode::empty())
    }

    #[test]
    fn what_a_profile_denies_is_denied_with_the_error_it_names() {
        assert_eq!(make_directory(), Err(Errno::EEXIST));
        let plain = denying(json!({"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"}));
        assert_eq!(under(plain, make_directory), Err(Errno::EPERM));
        let named = denying(json!({"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV}));
        assert_eq!(under(named, make_directory), Err(Errno::EXDEV));
    }

    #[test]
    fn a_condition_narrows_a_rule_and_of_a_masked_one_the_mask_comes_first() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let open = |family| move || socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop);
        // Local sockets are family 1; of the families with bit 1, the Internet is one.
        let masked = json!({"index": 0, "value": 2, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"});
        let rule = denying(json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [masked]}));
        assert_eq!(under(rule.clone(), open(AddressFamily::Unix)), Ok(()));
        assert_eq!(under(rule, open(AddressFamily::Inet)), Err(Errno::EPERM));
    }

    #[test]
    fn of_two_conditions_on_one_argument_either_is_enough() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let is = |value: i32| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
        let rule =
            json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [is(libc::AF_UNIX), is(libc::AF_INET)]});
        for family in [AddressFamily::Unix, AddressFamily::Inet] {
            let open = move || socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop);
            assert_eq!(under(denying(rule.clone()), open), Err(Errno::EPERM));
        }
    }

    #[test]
    fn a_misspelt_name_is_an_error_where_the_call_would_stay_open() {
        let shut = denying(json!({"names": ["mkdirrat"], "action": "SCMP_ACT_ERRNO"}));
        assert_eq!(compiled(shut).unwrap_err().to_string(), "there is no system call `mkdirrat`");
        let allowed = json!({"names": ["read", "call_of_tomorrow"], "action": "SCMP_ACT_ALLOW"});
        assert!(compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allowed]})).is_ok());
    }

    #[test]
    fn a_profile_for_other_machines_is_refused() {
        let mut profile = denying(json!({"names": ["mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}));
        assert!(compiled(profile.clone()).is_ok());
        profile["architectures"] = json!(["SCMP_ARCH_S390X"]);
        assert!(matches!(compiled(profile), Err(FilterError::Architecture(_))));
    }
}
