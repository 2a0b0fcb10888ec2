//! What the facts mean for Berth, and what to do about them. Pure.

use berth_host::link::Network;
use serde::Serialize;

use crate::facts::{Facts, Port, Tried};

const GIB: u64 = 1 << 30;
/// A machine sold as one with 1 GB has a little less for us.
const LEAST_MEMORY: u64 = GIB * 9 / 10;
const GOOD_MEMORY: u64 = GIB * 18 / 10;
const LEAST_SPACE: u64 = 2 * GIB;
const GOOD_SPACE: u64 = 10 * GIB;
/// Overlays take their layers one by one since then.
const LEAST_KERNEL: (u32, u32) = (6, 7);
/// The oldest that is in a system we could try; 257 is what Berth is tested with.
const LEAST_SYSTEMD: u32 = 255;
/// Findings that come and go while services run well.
const PASSING: [&str; 4] = ["memory", "free space", "port", "addresses"];
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Berth works, with less.
    Warn,
    /// Berth does not work.
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; stays the same from version to version.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen and what it means.
    pub meaning: String,
    /// What to do; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

fn ok(name: &'static str, meaning: impl Into<String>) -> Finding {
    Finding { name, level: Level::Ok, meaning: meaning.into(), action: None }
}

fn warn(name: &'static str, meaning: impl Into<String>, action: impl Into<String>) -> Finding {
    Finding { name, level: Level::Warn, meaning: meaning.into(), action: Some(action.into()) }
}

fn fail(name: &'static str, meaning: impl Into<String>, action: impl Into<String>) -> Finding {
    Finding { level: Level::Fail, ..warn(name, meaning, action) }
}

/// All findings, always the same ones in the same order.
///
/// What would keep Berth from being installed must not keep services that are installed from
/// coming back after a boot: there it is a warning.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = look(facts);
    for finding in &mut findings {
        if facts.installed && PASSING.contains(&finding.name) && finding.level == Level::Fail {
            finding.level = Level::Warn;
        }
    }
    findings
}

fn look(facts: &Facts) -> Vec<Finding> {
    vec![
        rights(facts),
        architecture(facts),
        kernel(facts),
        systemd(facts),
        cgroups(facts),
        user_namespaces(facts),
        layers(facts),
        modules(facts),
        packet_filter(facts),
        memory(facts),
        filesystem(facts),
        space(facts),
        port(facts),
        addresses(facts),
    ]
}

fn rights(facts: &Facts) -> Finding {
    let name = "rights";
    match facts.root {
        true => ok(name, "running as root"),
        false => warn(name, "not running as root, so that not everything can be tried", "run it again with sudo"),
    }
}

fn architecture(facts: &Facts) -> Finding {
    let name = "architecture";
    match facts.architecture.as_str() {
        "x86_64" => ok(name, "x86_64"),
        "aarch64" => warn(name, "aarch64: Berth is built for it but not tested on it", "report what does not work"),
        other => fail(name, format!("{other} is not supported"), "use a machine with x86_64"),
    }
}

fn kernel(facts: &Facts) -> Finding {
    let name = "kernel";
    let (major, minor) = LEAST_KERNEL;
    match kernel_version(&facts.kernel) {
        Some(version) if version >= LEAST_KERNEL => ok(name, facts.kernel.clone()),
        _ => fail(
            name,
            format!("{} is older than {major}.{minor}: the layers of an image cannot be stacked", facts.kernel),
            "upgrade the kernel; Debian 13 has 6.12",
        ),
    }
}

/// The two first numbers of `6.12.107-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn systemd(facts: &Facts) -> Finding {
    let name = "systemd";
    if !facts.systemd_runs {
        let meaning = "systemd does not run this machine; every service is one of its units";
        return fail(name, meaning, "use a system that boots with systemd; inside a container that is not the case");
    }
    match facts.systemd_version {
        Some(version) if version >= LEAST_SYSTEMD => ok(name, format!("version {version}")),
        Some(version) => fail(
            name,
            format!("version {version} is older than {LEAST_SYSTEMD}"),
            "upgrade the system; Debian 13 and Ubuntu 24.04 have it",
        ),
        None => fail(name, "its version cannot be found out", "see what systemctl --version says"),
    }
}

fn cgroups(facts: &Facts) -> Finding {
    let name = "control groups";
    let Some(found) = &facts.controllers else {
        let meaning = "the unified hierarchy (version 2) is not mounted on /sys/fs/cgroup";
        return fail(name, meaning, "boot without systemd.unified_cgroup_hierarchy=0 on the kernel's command line");
    };
    let missing: Vec<&str> =
        CONTROLLERS.into_iter().filter(|wanted| !found.iter().any(|found| found == wanted)).collect();
    if missing.is_empty() {
        return ok(name, format!("version 2 with {}", CONTROLLERS.join(", ")));
    }
    let missing = missing.join(", ");
    let action = format!("remove cgroup_disable= from the kernel's command line, or use a kernel with {missing}");
    fail(name, format!("no controller for {missing}: limits would not hold"), action)
}

fn user_namespaces(facts: &Facts) -> Finding {
    let name = "user namespaces";
    match facts.max_user_namespaces {
        Some(0) => fail(
            name,
            "switched off: no service could be kept from being root",
            "set user.max_user_namespaces to 10000 or more in /etc/sysctl.d",
        ),
        Some(most) => ok(name, format!("up to {most}")),
        None => fail(name, "this kernel has none", "use a kernel of the distribution"),
    }
}

fn layers(facts: &Facts) -> Finding {
    let (name, place) = ("layers", facts.data_dir.display());
    match &facts.layers {
        Tried::Works => ok(name, format!("an overlay of id-mapped layers works in {place}")),
        Tried::NeedsRoot => warn(name, "only root can try an overlay of id-mapped layers", "run it again with sudo"),
        Tried::Fails(said) => fail(
            name,
            format!("an overlay of id-mapped layers does not work in {place}: {said}"),
            "keep Berth's data on a local XFS, btrfs or ext4; util-linux must be 2.39 or newer to try",
        ),
    }
}

fn modules(facts: &Facts) -> Finding {
    let name = "kernel modules";
    let action = "install the full kernel package of the distribution, and reboot";
    match facts.missing_modules.as_deref() {
        Some([]) => ok(name, "bridge, overlay and veth are there"),
        Some(missing) => fail(name, format!("missing: {}", missing.join(", ")), action),
        None => warn(name, "this kernel does not tell whether it has bridge, overlay and veth", action),
    }
}

fn packet_filter(facts: &Facts) -> Finding {
    let name = "packet filter";
    match &facts.packet_filter {
        Tried::Works => ok(name, "nftables with address translation works"),
        Tried::NeedsRoot => warn(name, "only root can try nftables", "run it again with sudo"),
        Tried::Fails(said) => fail(
            name,
            format!("nftables does not work: {said}"),
            "install the package nftables, and the full kernel package of the distribution",
        ),
    }
}

fn memory(facts: &Facts) -> Finding {
    let name = "memory";
    match facts.memory_bytes {
        None => warn(name, "how much there is cannot be found out", "have at least 1 GB"),
        Some(bytes) if bytes < LEAST_MEMORY => fail(name, gibibytes(bytes), "have at least 1 GB"),
        Some(bytes) if bytes < GOOD_MEMORY => {
            warn(name, format!("{}: enough for one or two small services", gibibytes(bytes)), "have at least 2 GB")
        }
        Some(bytes) => ok(name, gibibytes(bytes)),
    }
}

fn filesystem(facts: &Facts) -> Finding {
    let (name, place, kind) = ("data filesystem", facts.data_dir.display(), &facts.filesystem);
    let action = "put /var/lib/berth on XFS (made with reflink=1, the default) or btrfs";
    match &facts.reflinks {
        Tried::Works => ok(name, format!("{kind} in {place}, copies share their blocks")),
        Tried::NeedsRoot if matches!(kind.as_str(), "xfs" | "btrfs") => ok(name, format!("{kind} in {place}")),
        Tried::NeedsRoot | Tried::Fails(_) => warn(
            name,
            format!("{kind} in {place} cannot share blocks between copies: snapshots take time and space"),
            action,
        ),
    }
}

fn space(facts: &Facts) -> Finding {
    let (name, place) = ("free space", facts.data_dir.display());
    let action = "free some, or put /var/lib/berth on a larger disk";
    match facts.free_bytes {
        None => warn(name, format!("how much there is in {place} cannot be found out"), "have at least 10 GB"),
        Some(bytes) if bytes < LEAST_SPACE => {
            fail(name, format!("{} in {place}: images would not fit", gibibytes(bytes)), action)
        }
        Some(bytes) if bytes < GOOD_SPACE => {
            warn(name, format!("{} in {place}: room for a few images", gibibytes(bytes)), action)
        }
        Some(bytes) => ok(name, format!("{} in {place}", gibibytes(bytes))),
    }
}

fn port(facts: &Facts) -> Finding {
    let (name, number) = ("port", facts.port_number);
    match &facts.port {
        Port::Free => ok(name, format!("{number} is free for the API")),
        Port::Ours => ok(name, format!("{number} is Berth's own")),
        Port::Taken(said) => fail(
            name,
            format!("{number} cannot be had for the API: {said}"),
            format!("see who has it with: ss -ltnp sport = :{number}"),
        ),
    }
}

fn addresses(facts: &Facts) -> Finding {
    let (name, range) = ("addresses", &facts.range);
    match &facts.clashes {
        Ok(clashes) if clashes.is_empty() => ok(name, format!("{range} is free for services")),
        Ok(clashes) => {
            let list: Vec<String> = clashes.iter().map(|(link, network)| clash(link, network)).collect();
            let meaning = format!("{range} is meant for services, but {} overlaps", list.join(", "));
            fail(name, meaning, "give that link other addresses")
        }
        Err(why) => warn(name, format!("the machine's addresses are not known: {why}"), "run it again as root"),
    }
}

fn clash(link: &str, network: &Network) -> String {
    format!("{network} on {link}")
}

fn gibibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / GIB;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// One line per finding, and one below it for what to do.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { name, level, meaning, action } in findings {
        text += &format!("{:<4}  {name:<width$}  {meaning}\n", level.word());
        if let Some(action) = action {
            text += &format!("      {:<width$}  -> {action}\n", "");
        }
    }
    text + &verdict(findings) + "\n"
}

fn verdict(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "This machine can hold Berth.".to_owned(),
        (0, warnings) => format!("This machine can hold Berth, with {warnings} to look at."),
        (failures, _) => format!("This machine cannot hold Berth: {failures} to put right."),
    }
}

/// The same for programs.
pub fn json(findings: &[Finding]) -> String {
    let ok = findings.iter().all(|finding| finding.level != Level::Fail);
    let value = serde_json::json!({"ok": ok, "findings": findings});
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            root: true,
            installed: false,
            architecture: "x86_64".to_owned(),
            kernel: "6.12.107+deb13-amd64".to_owned(),
            systemd_runs: true,
            systemd_version: Some(257),
            controllers: Some(["cpuset", "cpu", "io", "memory", "pids"].map(str::to_owned).to_vec()),
            max_user_namespaces: Some(15_000),
            layers: Tried::Works,
            reflinks: Tried::Works,
            packet_filter: Tried::Works,
            missing_modules: Some(Vec::new()),
            memory_bytes: Some(4 * GIB),
            data_dir: "/var/lib/berth".into(),
            filesystem: "xfs".to_owned(),
            free_bytes: Some(40 * GIB),
            port_number: 6443,
            port: Port::Free,
            range: "10.213.0.0/16".parse().unwrap(),
            clashes: Ok(Vec::new()),
        }
    }

    /// What is not well after a change to a good machine: name, level and meaning.
    fn complaints(change: impl Fn(&mut Facts)) -> Vec<(&'static str, Level, String)> {
        let mut facts = good();
        change(&mut facts);
        let findings = judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok);
        findings
            .map(|finding| {
                assert!(finding.action.is_some(), "{} does not say what to do", finding.name);
                (finding.name, finding.level, finding.meaning)
            })
            .collect()
    }

    fn one(change: impl Fn(&mut Facts)) -> (&'static str, Level) {
        match complaints(change).as_slice() {
            [(name, level, _)] => (name, *level),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_machine_gets_no_complaint() {
        assert_eq!(complaints(|_| {}), []);
        assert!(table(&judge(&good())).ends_with("This machine can hold Berth.\n"));
    }

    #[test]
    fn what_makes_berth_impossible_is_a_failure() {
        assert_eq!(one(|facts| facts.architecture = "riscv64".to_owned()), ("architecture", Level::Fail));
        assert_eq!(one(|facts| facts.kernel = "6.1.0-40-amd64".to_owned()), ("kernel", Level::Fail));
        assert_eq!(one(|facts| facts.systemd_version = Some(252)), ("systemd", Level::Fail));
        assert_eq!(one(|facts| facts.systemd_runs = false), ("systemd", Level::Fail));
        assert_eq!(one(|facts| facts.controllers = None), ("control groups", Level::Fail));
        assert_eq!(one(|facts| facts.max_user_namespaces = Some(0)), ("user namespaces", Level::Fail));
        assert_eq!(one(|facts| facts.layers = Tried::Fails("no".to_owned())), ("layers", Level::Fail));
        assert_eq!(one(|facts| facts.missing_modules = Some(vec!["veth".to_owned()])), ("kernel modules", Level::Fail));
        assert_eq!(one(|facts| facts.packet_filter = Tried::Fails("no".to_owned())), ("packet filter", Level::Fail));
        assert_eq!(one(|facts| facts.memory_bytes = Some(GIB / 2)), ("memory", Level::Fail));
        assert_eq!(one(|facts| facts.free_bytes = Some(GIB)), ("free space", Level::Fail));
        assert_eq!(one(|facts| facts.port = Port::Taken("no".to_owned())), ("port", Level::Fail));
    }

    #[test]
    fn what_only_makes_berth_less_good_is_a_warning() {
        assert_eq!(one(|facts| facts.root = false), ("rights", Level::Warn));
        assert_eq!(one(|facts| facts.memory_bytes = Some(GIB)), ("memory", Level::Warn));
        assert_eq!(one(|facts| facts.free_bytes = Some(5 * GIB)), ("free space", Level::Warn));
        assert_eq!(one(|facts| facts.missing_modules = None), ("kernel modules", Level::Warn));
        assert_eq!(one(|facts| facts.reflinks = Tried::Fails("no".to_owned())), ("data filesystem", Level::Warn));
    }

    #[test]
    fn the_port_is_fine_when_berth_itself_has_it() {
        assert_eq!(complaints(|facts| facts.port = Port::Ours), []);
    }

    #[test]
    fn a_full_disk_does_not_keep_installed_services_from_coming_back() {
        let full = |facts: &mut Facts| facts.free_bytes = Some(GIB);
        assert_eq!(one(full), ("free space", Level::Fail));
        let installed = |facts: &mut Facts| {
            full(facts);
            facts.installed = true;
        };
        assert_eq!(one(installed), ("free space", Level::Warn));
    }

    #[test]
    fn missing_controllers_are_named() {
        let complaints = complaints(|facts| facts.controllers = Some(vec!["cpu".to_owned(), "memory".to_owned()]));
        let meaning = "no controller for io, pids: limits would not hold".to_owned();
        assert_eq!(complaints, [("control groups", Level::Fail, meaning)]);
    }

    #[test]
    fn a_clash_of_addresses_names_both() {
        let complaints = complaints(|facts| {
            facts.clashes = Ok(vec![("eth0".to_owned(), "10.213.4.5/24".parse().unwrap())]);
        });
        let meaning = "10.213.0.0/16 is meant for services, but 10.213.4.5/24 on eth0 overlaps".to_owned();
        assert_eq!(complaints, [("addresses", Level::Fail, meaning)]);
    }

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, expected) in [
            ("6.12.107+deb13-amd64", Some((6, 12))),
            ("6.7", Some((6, 7))),
            ("6.8.0-45-generic", Some((6, 8))),
            ("unknown", None),
        ] {
            assert_eq!(kernel_version(release), expected, "{release}");
        }
    }

    #[test]
    fn a_failure_and_its_remedy_are_readable_and_exit_codes_follow_them() {
        let mut facts = good();
        facts.max_user_namespaces = Some(0);
        let findings = judge(&facts);
        let text = table(&findings);
        let expected = "\
fail  user namespaces  switched off: no service could be kept from being root
                       -> set user.max_user_namespaces to 10000 or more in /etc/sysctl.d
";
        assert!(text.contains(expected), "{text}");
        assert!(text.ends_with("This machine cannot hold Berth: 1 to put right.\n"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&json(&findings)).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["findings"][5]["level"], "fail");
        assert_eq!(value["findings"][0].get("action"), None);
    }
}
