//! systemd, the manager of all processes, over the system bus.
//!
//! [`Systemd`] is a handle on one connection that a task of its own keeps alive
//! ([`session`]). A call that starts, stops or restarts a unit returns when its job has ended:
//! the ends of jobs are listened to before the call is made. What a caller has to live with is a
//! value ([`Outcome`], [`Known`]), what it cannot is a [`SystemdError`]. Nothing is tried again
//! here: when the bus is away calls fail at once, and [`Changes`] tells when it is back.
//!
//! A reference to a unit ([`UnitProperties::add_ref`], [`Systemd::ref_unit`]) keeps it loaded
//! after its end, so that its result stays readable. References belong to the connection: they
//! are gone when the handle is dropped, or with [`Change::Everything`].

mod escape;
mod properties;
mod session;
mod state;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use zbus::{DynamicType, Message, OwnedObjectPath, OwnedVariant, Type, Variant};

pub use escape::escape;
pub use properties::{Exec, NotifyAccess, Restart, ServiceType, UnitProperties, Value};
use session::Shared;
pub use session::{Change, Changes};
pub use state::{ActiveState, BadProperty, UnitState, UnitSummary};

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// What went wrong between systemd and here.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// No connection could be made.
    #[error("connecting to systemd over the system bus")]
    Connect(#[source] zbus::Error),
    /// The bus is away at the moment.
    #[error("not connected to the system bus; connecting again")]
    Disconnected,
    /// systemd refused a call, or its answer did not come.
    #[error("asking systemd for {method} of {unit}")]
    Call {
        /// The D-Bus method.
        method: &'static str,
        /// The unit it was about.
        unit: String,
        /// The refusal in systemd's words.
        #[source]
        source: zbus::Error,
    },
    /// The bus went away while a job was running: how it ended has to be read from the unit.
    #[error("lost the connection before the job of {unit} ended")]
    JobLost {
        /// The unit the job was about.
        unit: String,
    },
    /// The unit's properties are not those of a service.
    #[error("reading the state of {unit}")]
    State {
        /// The unit.
        unit: String,
        /// Which one.
        #[source]
        source: BadProperty,
    },
}

impl SystemdError {
    fn has_name(&self, name: &str) -> bool {
        matches!(self, SystemdError::Call { source: zbus::Error::MethodError(found, ..), .. }
            if found.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name))
    }
}

/// How a job ended, in systemd's vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// As asked.
    Done,
    /// Another job took its place.
    Canceled,
    /// It took longer than its limit.
    Timeout,
    /// The unit's program failed.
    Failed,
    /// A unit that this one needs failed.
    Dependency,
    /// It did not apply to the unit's state.
    Skipped,
    /// A result that this version does not know.
    Other(String),
}

impl JobResult {
    fn parse(text: &str) -> JobResult {
        match text {
            "done" => JobResult::Done,
            "canceled" => JobResult::Canceled,
            "timeout" => JobResult::Timeout,
            "failed" => JobResult::Failed,
            "dependency" => JobResult::Dependency,
            "skipped" => JobResult::Skipped,
            other => JobResult::Other(other.to_owned()),
        }
    }
}

/// What became of a request to start, stop or restart a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// There was a job, and it ended.
    Ended(JobResult),
    /// A unit of this name is loaded already; it was left alone.
    UnitExists,
    /// There is no such unit.
    NoSuchUnit,
}

/// Whether the unit that was asked about is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is, and it was done.
    Loaded,
    /// It is not; there was nothing to do.
    NotLoaded,
}

/// Which processes of a unit get a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The main process.
    Main,
    /// All of them.
    All,
}

/// A handle; clones share one connection.
#[derive(Clone, Debug)]
pub struct Systemd {
    shared: Arc<Shared>,
    _keeper: Arc<Keeper>,
}

/// The task that keeps the connection; it ends with the last handle.
#[derive(Debug)]
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Systemd {
    /// Connects to the system bus. Needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SystemdError::Connect`] when there is no bus, or no systemd on it.
    pub async fn connect() -> Result<Systemd, SystemdError> {
        let connection = session::open().await?;
        let shared = Shared::new();
        let keeper = tokio::spawn(session::keep(Arc::clone(&shared), connection));
        let systemd = Systemd { shared, _keeper: Arc::new(Keeper(keeper)) };
        systemd.shared.served().await?;
        Ok(systemd)
    }

    /// Makes a transient unit and starts it.
    ///
    /// # Errors
    /// [`SystemdError`]; a unit that fails to start is none.
    pub async fn start_transient(&self, unit: &str, properties: &UnitProperties) -> Result<Outcome, SystemdError> {
        type Auxiliary = Vec<(&'static str, Vec<(&'static str, Variant<'static>)>)>;
        let body = (unit, "fail", properties.to_variants(), Auxiliary::new());
        self.job("StartTransientUnit", unit, &body).await
    }

    /// Starts a loaded unit.
    ///
    /// # Errors
    /// [`SystemdError`]; a unit that fails to start is none.
    pub async fn start(&self, unit: &str) -> Result<Outcome, SystemdError> {
        self.job("StartUnit", unit, &(unit, "replace")).await
    }

    /// Begins to start a unit, and whatever else that takes stays away meanwhile: how the machine is switched off.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn enqueue(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager("StartUnit", unit, &(unit, "replace-irreversibly")).await.map(drop)
    }

    /// Stops a unit.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn stop(&self, unit: &str) -> Result<Outcome, SystemdError> {
        self.job("StopUnit", unit, &(unit, "replace")).await
    }

    /// Stops a unit and starts it again.
    ///
    /// # Errors
    /// [`SystemdError`]; a unit that fails to start is none.
    pub async fn restart(&self, unit: &str) -> Result<Outcome, SystemdError> {
        self.job("RestartUnit", unit, &(unit, "replace")).await
    }

    /// Sends a signal to processes of a unit.
    ///
    /// # Errors
    /// [`SystemdError`], also when there is no main process.
    pub async fn kill(&self, unit: &str, whom: Whom, signal: i32) -> Result<Known, SystemdError> {
        let whom = match whom {
            Whom::Main => "main",
            Whom::All => "all",
        };
        self.known("KillUnit", unit, &(unit, whom, signal)).await
    }

    /// Keeps a loaded unit loaded for as long as this handle lives.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn ref_unit(&self, unit: &str) -> Result<Known, SystemdError> {
        self.known("RefUnit", unit, &unit).await
    }

    /// Gives one reference back: whether there was one.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn unref_unit(&self, unit: &str) -> Result<bool, SystemdError> {
        match self.known("UnrefUnit", unit, &unit).await {
            Err(error) if error.has_name("NotReferenced") => Ok(false),
            other => other.map(|known| known == Known::Loaded),
        }
    }

    /// Forgets that a unit has failed, which unloads it when nothing refers to it.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn reset_failed(&self, unit: &str) -> Result<Known, SystemdError> {
        self.known("ResetFailedUnit", unit, &unit).await
    }

    /// Changes properties of a loaded unit until it is unloaded.
    ///
    /// # Errors
    /// [`SystemdError`], as with a property that cannot change while the unit runs.
    pub async fn set_properties(&self, unit: &str, properties: &UnitProperties) -> Result<Known, SystemdError> {
        let body = (unit, true, properties.to_variants());
        self.known("SetUnitProperties", unit, &body).await
    }

    /// The loaded units whose names match one of these shell patterns.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn list(&self, patterns: &[&str]) -> Result<Vec<UnitSummary>, SystemdError> {
        type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let method = "ListUnitsByPatterns";
        let unit = patterns.join(" ");
        let states: &[&str] = &[];
        let reply = self.manager(method, &unit, &(states, patterns)).await?;
        let listed: Vec<Listed> = body_of(&reply, method, &unit)?;
        Ok(listed
            .into_iter()
            .filter(|(_, _, load, ..)| load != "not-found")
            .map(|(name, description, _, active, sub, _, _, job, ..)| UnitSummary {
                active: ActiveState::parse(&active),
                job: (job != 0).then_some(job),
                name,
                description,
                sub,
            })
            .collect())
    }

    /// The state of a service, `None` when it is not loaded.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn state(&self, unit: &str) -> Result<Option<UnitState>, SystemdError> {
        // Asked by name first: reading from the path of a unit that is not loaded would load it.
        let method = "GetUnit";
        let path: OwnedObjectPath = match self.manager(method, unit, &unit).await {
            Err(error) if error.has_name("NoSuchUnit") => return Ok(None),
            reply => body_of(&reply?, method, unit)?,
        };
        let (load, active, invocation, main_pid, restarts) = tokio::try_join!(
            self.property::<String>(unit, &path, UNIT, "LoadState"),
            self.property::<String>(unit, &path, UNIT, "ActiveState"),
            self.property::<Vec<u8>>(unit, &path, UNIT, "InvocationID"),
            self.property::<u32>(unit, &path, SERVICE, "MainPID"),
            self.property(unit, &path, SERVICE, "NRestarts"),
        )?;
        Ok((load != "not-found").then(|| UnitState {
            active: ActiveState::parse(&active),
            main_pid: (main_pid != 0).then_some(main_pid),
            restarts,
            invocation: state::hex(&invocation),
        }))
    }

    /// What happens to the units whose names begin with `prefix`, from now on.
    #[must_use]
    pub fn changes(&self, prefix: &str) -> Changes {
        self.shared.follow(prefix)
    }

    /// Whether the machine is shutting down.
    ///
    /// # Errors
    /// [`SystemdError`].
    pub async fn is_stopping(&self) -> Result<bool, SystemdError> {
        let (method, property) = ("Get", "SystemState");
        let body = (MANAGER, property);
        let reply = self.call(PATH, PROPERTIES, method, property, &body).await?;
        let state: OwnedVariant = body_of(&reply, method, property)?;
        Ok(*state == Variant::from("stopping"))
    }

    async fn property<T: TryFrom<OwnedVariant>>(
        &self,
        unit: &str,
        path: &str,
        interface: &str,
        name: &'static str,
    ) -> Result<T, SystemdError> {
        let method = "Get";
        let reply = self.call(path, PROPERTIES, method, unit, &(interface, name)).await?;
        let value: OwnedVariant = body_of(&reply, method, unit)?;
        T::try_from(value).map_err(|_| SystemdError::State { unit: unit.to_owned(), source: BadProperty(name) })
    }

    /// A call that answers with a job, and the end of that job.
    async fn job(
        &self,
        method: &'static str,
        unit: &str,
        body: &(impl Serialize + DynamicType),
    ) -> Result<Outcome, SystemdError> {
        let mut ends = self.shared.job_ends();
        let job: OwnedObjectPath = match self.manager(method, unit, body).await {
            Err(error) if error.has_name("UnitExists") => return Ok(Outcome::UnitExists),
            Err(error) if error.has_name("NoSuchUnit") => return Ok(Outcome::NoSuchUnit),
            reply => body_of(&reply?, method, unit)?,
        };
        while let Some(end) = ends.recv().await {
            if end.job == job {
                return Ok(Outcome::Ended(JobResult::parse(&end.result)));
            }
        }
        Err(SystemdError::JobLost { unit: unit.to_owned() })
    }

    async fn known(
        &self,
        method: &'static str,
        unit: &str,
        body: &(impl Serialize + DynamicType),
    ) -> Result<Known, SystemdError> {
        match self.manager(method, unit, body).await {
            Err(error) if error.has_name("NoSuchUnit") => Ok(Known::NotLoaded),
            reply => reply.map(|_| Known::Loaded),
        }
    }

    async fn manager(
        &self,
        method: &'static str,
        unit: &str,
        body: &(impl Serialize + DynamicType),
    ) -> Result<Message, SystemdError> {
        self.call(PATH, MANAGER, method, unit, body).await
    }

    async fn call(
        &self,
        path: &str,
        interface: &str,
        method: &'static str,
        unit: &str,
        body: &(impl Serialize + DynamicType),
    ) -> Result<Message, SystemdError> {
        self.shared
            .connection()?
            .call_method(Some(DESTINATION), path, Some(interface), method, body)
            .await
            .map_err(|source| call_error(method, unit, source))
    }
}

fn body_of<T: DeserializeOwned + Type>(reply: &Message, method: &'static str, unit: &str) -> Result<T, SystemdError> {
    reply.body().deserialize().map_err(|source| call_error(method, unit, source))
}

fn call_error(method: &'static str, unit: &str, source: zbus::Error) -> SystemdError {
    SystemdError::Call { method, unit: unit.to_owned(), source }
}
