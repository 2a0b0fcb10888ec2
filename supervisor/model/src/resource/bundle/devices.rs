//! Rules for devices of the machine that a service asks for.

use crate::field::{FieldError, Rule};

/// Most devices of one service.
const MAX: usize = 32;
/// Longest path.
const LONGEST: usize = 200;
/// What lies below `/dev` and is never given: the machine's memory, log, keys and disks (by their generic drivers, too),
/// and what every container has of its own. A star stands for the rest of a name.
const NEVER: [&str; 19] = [
    "block", "bsg", "console", "disk", "dm-*", "kmem", "kmsg", "loop*", "mapper", "mem", "mqueue", "ng*", "nvme*",
    "port", "ptmx", "pts", "sg*", "shm", "tpm*",
];

/// What is wrong with them.
pub(super) fn validate(paths: &[String]) -> Vec<FieldError> {
    let field = |index: usize| format!("spec.security.devices[{index}]");
    let mut errors = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        if let Err(message) = check(path) {
            errors.push(FieldError::invalid(field(index), message));
        } else if paths[..index].contains(path) {
            errors.push(FieldError::duplicate(field(index), format!("`{path}` is named already")));
        }
    }
    if paths.len() > MAX {
        let message = format!("at most {MAX} devices can be given, and these are {}", paths.len());
        errors.push(FieldError::new(Rule::Invalid, "spec.security.devices", message));
    }
    errors
}

fn check(path: &str) -> Result<(), String> {
    let name = path.strip_prefix("/dev/").unwrap_or_default();
    if path.len() > LONGEST || !name.split('/').all(is_plain) {
        return Err("must be a plain path below /dev, e.g. /dev/ttyUSB0".to_owned());
    }
    let first = name.split('/').next().unwrap_or_default();
    let is_never = |never: &&str| never.strip_suffix('*').map_or(first == *never, |start| first.starts_with(start));
    if NEVER.iter().any(is_never) {
        return Err(format!("`{path}` is never given: it is the whole machine's, or a container has its own"));
    }
    Ok(())
}

fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:,+@".contains(c);
    !matches!(part, "" | "." | "..") && part.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(paths: &[&str]) -> Vec<(String, Rule)> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        validate(&paths).into_iter().map(|error| (error.field, error.rule)).collect()
    }

    fn first(rule: Rule) -> Vec<(String, Rule)> {
        vec![("spec.security.devices[0]".into(), rule)]
    }

    #[test]
    fn a_device_is_a_plain_path_below_dev() {
        assert_eq!(findings(&["/dev/ttyUSB0", "/dev/dri/renderD128", "/dev/serial/by-id/usb-x_1.0-if00"]), []);
        for path in ["", "ttyUSB0", "/dev", "/dev/", "/dev/../etc/shadow", "/dev/a//b", "/dev/a b", "/etc/passwd"] {
            assert_eq!(findings(&[path]), first(Rule::Invalid), "{path}");
        }
    }

    #[test]
    fn the_machine_itself_is_never_given() {
        for path in
            ["/dev/mem", "/dev/kmsg", "/dev/dm-0", "/dev/mapper/control", "/dev/nvme0", "/dev/sg1", "/dev/pts/0"]
        {
            assert_eq!(findings(&[path]), first(Rule::Invalid), "{path}");
        }
    }

    #[test]
    fn a_device_is_named_once_and_they_are_not_too_many() {
        let twice = findings(&["/dev/rtc0", "/dev/rtc0"]);
        assert_eq!(twice, [("spec.security.devices[1]".into(), Rule::Duplicate)]);
        let many: Vec<String> = (0..33).map(|number| format!("/dev/tty{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(findings(&many), [("spec.security.devices".into(), Rule::Invalid)]);
    }
}
