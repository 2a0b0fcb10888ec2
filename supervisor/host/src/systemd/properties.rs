//! The properties of a unit as a plain value: built by the caller, compared and read by tests,
//! turned into D-Bus variants last.
//!
//! The names and types are those of the D-Bus interface, which differ from the ones in unit
//! files: `RestartSec=` is `RestartUSec`, in microseconds; `CPUQuota=` is `CPUQuotaPerSecUSec`.

use std::fmt;
use std::time::Duration;

use zbus::Variant;

/// A program with its arguments, run by systemd without a shell.
///
/// systemd expands `$`, `%` and `\` in arguments: hand over nothing but plain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Absolute path; also the first argument.
    pub path: String,
    /// The arguments after the first.
    pub args: Vec<String>,
}

impl Exec {
    /// A program with its arguments.
    #[must_use]
    pub fn new<S: Into<String>>(path: impl Into<String>, args: impl IntoIterator<Item = S>) -> Exec {
        Exec { path: path.into(), args: args.into_iter().map(Into::into).collect() }
    }
}

/// A value in one of the D-Bus types that unit properties use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `i`
    Signed(i32),
    /// `u`
    Small(u32),
    /// `t`: bytes, counts, weights, microseconds.
    Count(u64),
    /// `as`
    Texts(Vec<String>),
    /// `aay`: `NAME=value` fields.
    Fields(Vec<(String, String)>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(sasb)`
    Exec(Exec),
    /// `(aiai)`: exit codes, signals.
    Statuses(Vec<i32>, Vec<i32>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Text(_) => "s",
            Value::Flag(_) => "b",
            Value::Signed(_) => "i",
            Value::Small(_) => "u",
            Value::Count(_) => "t",
            Value::Texts(_) => "as",
            Value::Fields(_) => "aay",
            Value::Pairs(_) => "a(ss)",
            Value::Exec(_) => "a(sasb)",
            Value::Statuses(..) => "(aiai)",
        }
    }

    fn to_variant(&self) -> Variant<'static> {
        match self.clone() {
            Value::Text(text) => text.into(),
            Value::Flag(flag) => flag.into(),
            Value::Signed(number) => number.into(),
            Value::Small(number) => number.into(),
            Value::Count(number) => number.into(),
            Value::Texts(texts) => texts.into(),
            Value::Fields(fields) => fields
                .into_iter()
                .map(|(name, value)| format!("{name}={value}").into_bytes())
                .collect::<Vec<_>>()
                .into(),
            Value::Pairs(pairs) => pairs.into(),
            Value::Exec(Exec { path, args }) => {
                let mut argv = vec![path.clone()];
                argv.extend(args);
                vec![(path, argv, false)].into()
            }
            Value::Statuses(codes, signals) => Variant::from((codes, signals)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Signed(number) => write!(f, "{number}"),
            Value::Small(number) => write!(f, "{number}"),
            Value::Count(number) => write!(f, "{number}"),
            Value::Texts(texts) => write!(f, "{texts:?}"),
            Value::Fields(fields) | Value::Pairs(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "{fields:?}")
            }
            Value::Exec(Exec { path, args }) => write!(f, "{path:?} {args:?}"),
            Value::Statuses(codes, signals) => write!(f, "codes {codes:?} signals {signals:?}"),
        }
    }
}

/// When systemd starts a unit again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    No,
    /// After any end but a clean exit.
    OnFailure,
    /// After any end but an asked-for stop.
    Always,
}

/// Which user-visible service type: when is a start job done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// As soon as the program was executed.
    Exec,
    /// When the program says `READY=1`.
    Notify,
    /// When the program has ended well.
    Oneshot,
}

/// Whose readiness messages systemd believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyAccess {
    /// The main process alone.
    Main,
    /// Every process of the unit.
    All,
}

/// The properties of one unit, in the order they were given.
///
/// `Display` gives one line per property: name, D-Bus type, value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitProperties(Vec<(&'static str, Value)>);

impl UnitProperties {
    /// No properties yet.
    #[must_use]
    pub fn new() -> UnitProperties {
        UnitProperties::default()
    }

    /// Any property that has no method of its own here.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: Value) -> UnitProperties {
        self.0.push((name, value));
        self
    }

    fn text(self, name: &'static str, text: impl Into<String>) -> UnitProperties {
        self.set(name, Value::Text(text.into()))
    }

    fn time(self, name: &'static str, time: Duration) -> UnitProperties {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.set(name, Value::Count(microseconds))
    }

    /// The line that `systemctl` shows.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> UnitProperties {
        self.text("Description", text)
    }

    /// The slice the unit lives in; it is made with its parents when missing.
    #[must_use]
    pub fn slice(self, slice: impl Into<String>) -> UnitProperties {
        self.text("Slice", slice)
    }

    /// When a start is done.
    #[must_use]
    pub fn service_type(self, service_type: ServiceType) -> UnitProperties {
        let name = match service_type {
            ServiceType::Exec => "exec",
            ServiceType::Notify => "notify",
            ServiceType::Oneshot => "oneshot",
        };
        self.text("Type", name)
    }

    /// Whose notifications count.
    #[must_use]
    pub fn notify_access(self, access: NotifyAccess) -> UnitProperties {
        let name = match access {
            NotifyAccess::Main => "main",
            NotifyAccess::All => "all",
        };
        self.text("NotifyAccess", name)
    }

    /// What a start runs.
    #[must_use]
    pub fn exec_start(self, exec: Exec) -> UnitProperties {
        self.set("ExecStart", Value::Exec(exec))
    }

    /// What an asked-for stop runs while the main process still lives.
    #[must_use]
    pub fn exec_stop(self, exec: Exec) -> UnitProperties {
        self.set("ExecStop", Value::Exec(exec))
    }

    /// What every end runs, whatever its reason.
    #[must_use]
    pub fn exec_stop_post(self, exec: Exec) -> UnitProperties {
        self.set("ExecStopPost", Value::Exec(exec))
    }

    /// Variables of the programs above. Everybody on the machine can read them: no secrets.
    #[must_use]
    pub fn environment<N: Into<String>, V: Into<String>>(
        self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> UnitProperties {
        let variables =
            variables.into_iter().map(|(name, value)| format!("{}={}", name.into(), value.into())).collect();
        self.set("Environment", Value::Texts(variables))
    }

    /// When and after what pause to start again.
    #[must_use]
    pub fn restart(self, restart: Restart, pause: Duration) -> UnitProperties {
        let name = match restart {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        };
        self.text("Restart", name).time("RestartUSec", pause)
    }

    /// After how many starts within which time to give up; 0 starts: never.
    #[must_use]
    pub fn start_limit(self, burst: u32, interval: Duration) -> UnitProperties {
        self.set("StartLimitBurst", Value::Small(burst)).time("StartLimitIntervalUSec", interval)
    }

    /// How long a start may take.
    #[must_use]
    pub fn start_timeout(self, limit: Duration) -> UnitProperties {
        self.time("TimeoutStartUSec", limit)
    }

    /// How long each step of a stop may take before it is forced.
    #[must_use]
    pub fn stop_timeout(self, limit: Duration) -> UnitProperties {
        self.time("TimeoutStopUSec", limit)
    }

    /// The signal that asks the main process to end; the rest is killed after it (`mixed`).
    #[must_use]
    pub fn kill(self, signal: i32) -> UnitProperties {
        self.text("KillMode", "mixed").set("KillSignal", Value::Signed(signal))
    }

    /// Exit codes and signals that count as a clean end beside 0.
    #[must_use]
    pub fn success_statuses(self, codes: Vec<i32>, signals: Vec<i32>) -> UnitProperties {
        self.set("SuccessExitStatus", Value::Statuses(codes, signals))
    }

    /// Let the unit manage the control groups below its own.
    #[must_use]
    pub fn delegate(self) -> UnitProperties {
        self.set("Delegate", Value::Flag(true))
    }

    /// A mount namespace of its own.
    #[must_use]
    pub fn private_mounts(self) -> UnitProperties {
        self.set("PrivateMounts", Value::Flag(true))
    }

    /// Out of memory ends the whole unit and is its result, also with delegation.
    #[must_use]
    pub fn oom_kills_unit(self) -> UnitProperties {
        self.text("OOMPolicy", "kill")
    }

    /// A clean end unloads the unit unless it is referenced; a failed unit stays readable.
    #[must_use]
    pub fn collect_when_inactive(self) -> UnitProperties {
        self.text("CollectMode", "inactive")
    }

    /// Hold a reference to the unit for as long as this connection lives.
    #[must_use]
    pub fn add_ref(self) -> UnitProperties {
        self.set("AddRef", Value::Flag(true))
    }

    /// Only the pseudo devices (`null`, `zero`, `random`, `tty` and the like) and these: path
    /// and `rwm` rights. Also decides which block devices the unit may mount.
    #[must_use]
    pub fn devices<S: Into<String>>(self, allowed: impl IntoIterator<Item = (S, S)>) -> UnitProperties {
        let allowed: Vec<(String, String)> =
            allowed.into_iter().map(|(path, rights)| (path.into(), rights.into())).collect();
        let closed = self.text("DevicePolicy", "closed");
        if allowed.is_empty() {
            return closed;
        }
        closed.set("DeviceAllow", Value::Pairs(allowed))
    }

    /// Hard limit of memory, bytes.
    #[must_use]
    pub fn memory_max(self, bytes: u64) -> UnitProperties {
        self.set("MemoryMax", Value::Count(bytes))
    }

    /// Hard limit of swap, bytes.
    #[must_use]
    pub fn memory_swap_max(self, bytes: u64) -> UnitProperties {
        self.set("MemorySwapMax", Value::Count(bytes))
    }

    /// Hard limit of processes and threads.
    #[must_use]
    pub fn tasks_max(self, tasks: u64) -> UnitProperties {
        self.set("TasksMax", Value::Count(tasks))
    }

    /// Processor time per second of time; two whole processors are two seconds.
    #[must_use]
    pub fn cpu_quota(self, per_second: Duration) -> UnitProperties {
        self.time("CPUQuotaPerSecUSec", per_second)
    }

    /// Share of the disk against its siblings, 1 to 10000; 100 is everybody's.
    #[must_use]
    pub fn io_weight(self, weight: u64) -> UnitProperties {
        self.set("IOWeight", Value::Count(weight))
    }

    /// The name in front of each journal line.
    #[must_use]
    pub fn syslog_identifier(self, name: impl Into<String>) -> UnitProperties {
        self.text("SyslogIdentifier", name)
    }

    /// Fields that every journal entry of the unit gets.
    #[must_use]
    pub fn log_fields<N: Into<String>, V: Into<String>>(
        self,
        fields: impl IntoIterator<Item = (N, V)>,
    ) -> UnitProperties {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.set("LogExtraFields", Value::Fields(fields))
    }

    pub(super) fn to_variants(&self) -> Vec<(&'static str, Variant<'static>)> {
        self.0.iter().map(|(name, value)| (*name, value.to_variant())).collect()
    }
}

impl fmt::Display for UnitProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            writeln!(f, "{name} {} {value}", value.signature())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> UnitProperties {
        UnitProperties::new()
            .description("a service with \"all\" of it")
            .slice(r"x-my\x2dteam.slice")
            .service_type(ServiceType::Notify)
            .notify_access(NotifyAccess::All)
            .exec_start(Exec::new("/usr/bin/env", ["sleep", "1000"]))
            .exec_stop(Exec::new("/usr/bin/true", ["--asked"]))
            .exec_stop_post(Exec::new("/usr/bin/true", Vec::<String>::new()))
            .environment([("A", "1"), ("B", "two words")])
            .restart(Restart::OnFailure, Duration::from_millis(200))
            .start_limit(5, Duration::from_secs(60))
            .start_timeout(Duration::from_secs(90))
            .stop_timeout(Duration::from_secs(30))
            .kill(15)
            .success_statuses(vec![143], vec![15])
            .delegate()
            .private_mounts()
            .oom_kills_unit()
            .collect_when_inactive()
            .add_ref()
            .devices([("/dev/mapper/x", "rwm")])
            .memory_max(64 << 20)
            .memory_swap_max(0)
            .tasks_max(64)
            .cpu_quota(Duration::from_millis(500))
            .io_weight(100)
            .syslog_identifier("x")
            .log_fields([("TEAM", "my-team")])
    }

    #[test]
    fn the_properties_of_a_unit_read_as_in_the_golden_file() {
        let golden = include_str!("../../tests/golden/unit-properties.txt");
        assert_eq!(everything().to_string(), golden);
    }

    #[test]
    fn every_value_has_the_dbus_type_that_its_text_claims() {
        let properties = everything();
        for ((name, value), (_, variant)) in properties.0.iter().zip(properties.to_variants()) {
            assert_eq!(variant.value_signature().to_string(), value.signature(), "{name}");
        }
    }

    #[test]
    fn the_same_properties_are_equal_and_other_ones_are_not() {
        assert_eq!(everything(), everything());
        assert_ne!(everything(), everything().memory_max(1));
    }

    #[test]
    fn a_unit_without_devices_of_its_own_allows_none() {
        let properties = UnitProperties::new().devices(Vec::<(String, String)>::new());
        assert_eq!(properties.to_string(), "DevicePolicy s \"closed\"\n");
    }
}
