//! System call profiles of administrators, in the form that container runtimes read: what such a file may say.
//!
//! A profile never stands alone. The kernel asks the reviewed list first and the profile then, and the stricter answer
//! holds, so that nothing written here opens what the list has shut.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSyscall};

/// What a container's first process asks of the kernel, and the launcher on its way to it: a container whose profile
/// refuses one of these would not come up.
pub const NEEDED: [&str; 20] = [
    "clone",
    "close",
    "dup3",
    "execve",
    "execveat",
    "exit_group",
    "fchmod",
    "fcntl",
    "fstat",
    "kill",
    "pipe2",
    "ppoll",
    "prctl",
    "read",
    "rt_sigprocmask",
    "sendto",
    "setsid",
    "signalfd4",
    "wait4",
    "write",
];

/// Arguments of a system call.
const ARGUMENTS: usize = 6;

/// A file is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or not of the form.
    #[error("it is not a profile in OCI's form")]
    Form(#[source] serde_json::Error),
    /// A field that the form does not have; those of engines' own forms say under which conditions a rule holds.
    #[error("OCI's form has no field `{0}`")]
    Unknown(String),
    /// A part of the form that means nothing here.
    #[error("`{0}` cannot be used: {1}")]
    Unsupported(&'static str, &'static str),
    /// The kernel hands no more over.
    #[error("`{call}` has no argument {index}: they are counted from 0 to 5")]
    Argument {
        /// Name of the system call.
        call: String,
        /// As written.
        index: usize,
    },
    /// Nothing would come up.
    #[error("it refuses `{0}`, which every container needs; allow {all}", all = NEEDED.join(", "))]
    Needed(&'static str),
}

/// Reads a profile.
///
/// # Errors
/// What of it cannot be followed to the letter.
pub fn read(text: &[u8]) -> Result<LinuxSeccomp, ProfileError> {
    let mut unknown = Vec::new();
    // The library marks what may be absent with a question mark.
    let note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
    let mut json = serde_json::Deserializer::from_slice(text);
    let profile: LinuxSeccomp = serde_ignored::deserialize(&mut json, note).map_err(ProfileError::Form)?;
    json.end().map_err(ProfileError::Form)?;
    if let Some(field) = unknown.into_iter().next() {
        return Err(ProfileError::Unknown(field));
    }
    check(&profile)?;
    Ok(profile)
}

/// Its rules.
pub fn rules(profile: &LinuxSeccomp) -> &[LinuxSyscall] {
    profile.syscalls().as_deref().unwrap_or_default()
}

fn check(profile: &LinuxSeccomp) -> Result<(), ProfileError> {
    if profile.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(ProfileError::Unsupported("flags", "every profile is loaded in the same way"));
    }
    let listens = profile.listener_path().is_some() || profile.listener_metadata().is_some();
    let actions = rules(profile).iter().map(LinuxSyscall::action).chain([profile.default_action()]);
    if listens || actions.into_iter().any(|action| matches!(action, Action::ScmpActNotify | Action::ScmpActTrace)) {
        let nobody = "there is no program beside a container that would answer for the kernel";
        return Err(ProfileError::Unsupported("SCMP_ACT_NOTIFY, SCMP_ACT_TRACE and listeners", nobody));
    }
    rules(profile).iter().try_for_each(arguments)?;
    NEEDED.into_iter().find(|call| refuses(profile, call)).map_or(Ok(()), |call| Err(ProfileError::Needed(call)))
}

fn arguments(rule: &LinuxSyscall) -> Result<(), ProfileError> {
    let conditions = rule.args().as_deref().unwrap_or_default();
    let beyond = conditions.iter().find(|condition| condition.index() >= ARGUMENTS);
    beyond.map_or(Ok(()), |condition| {
        let call = rule.names().first().cloned().unwrap_or_default();
        Err(ProfileError::Argument { call, index: condition.index() })
    })
}

/// Whether a call is refused whatever its arguments are.
fn refuses(profile: &LinuxSeccomp, call: &str) -> bool {
    let mut about = rules(profile).iter().filter(|rule| rule.names().iter().any(|name| name == call));
    let always = about.clone().find(|rule| rule.args().as_ref().is_none_or(Vec::is_empty));
    match always {
        Some(rule) => !passes(rule.action()),
        None => !passes(profile.default_action()) && !about.any(|rule| passes(rule.action())),
    }
}

/// Whether the action lets the call happen.
pub fn passes(action: Action) -> bool {
    matches!(action, Action::ScmpActAllow | Action::ScmpActLog)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(profile: Value) -> String {
        read(profile.to_string().as_bytes()).map_or_else(|error| error.to_string(), |_| "fine".to_owned())
    }

    fn denying(calls: &[&str]) -> Value {
        let rule = json!({"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]})
    }

    #[test]
    fn a_profile_of_a_runtime_is_read() {
        assert_eq!(told(denying(&["mkdir", "mkdirat"])), "fine");
        let rule = json!({"names": NEEDED, "action": "SCMP_ACT_ALLOW"});
        assert_eq!(told(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})), "fine");
    }

    #[test]
    fn what_is_no_profile_is_told_as_such() {
        assert_eq!(told(json!({})), "it is not a profile in OCI's form");
        assert_eq!(told(json!({"defaultAction": "SCMP_ACT_MAYBE"})), "it is not a profile in OCI's form");
        assert!(read(b"{\"defaultAction\": \"SCMP_ACT_ALLOW\"} {}").is_err());
    }

    #[test]
    fn conditions_of_an_engines_own_form_are_not_passed_over() {
        let mut profile = denying(&["mount"]);
        profile["syscalls"][0]["includes"] = json!({"caps": ["CAP_SYS_ADMIN"]});
        assert_eq!(told(profile), "OCI's form has no field `syscalls.0.includes`");
    }

    #[test]
    fn what_leaves_the_answer_to_another_program_is_refused() {
        let mut profile = denying(&["mkdir"]);
        profile["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
        assert!(told(profile).starts_with("`SCMP_ACT_NOTIFY, SCMP_ACT_TRACE and listeners` cannot be used"));
        let mut profile = denying(&["mkdir"]);
        profile["flags"] = json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
        assert!(told(profile).starts_with("`flags` cannot be used"));
    }

    #[test]
    fn a_profile_under_which_nothing_comes_up_is_refused_by_the_call_it_lacks() {
        assert!(told(denying(&["execve"])).starts_with("it refuses `execve`"));
        assert!(told(json!({"defaultAction": "SCMP_ACT_ERRNO"})).starts_with("it refuses `clone`"));
        // With a condition it may pass.
        let mut profile = denying(&["clone"]);
        profile["syscalls"][0]["args"] = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
        assert_eq!(told(profile.clone()), "fine");
        profile["syscalls"][0]["args"][0]["index"] = json!(6);
        assert_eq!(told(profile), "`clone` has no argument 6: they are counted from 0 to 5");
    }
}
