//! Operation: a durable record of work that takes longer than a request.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

crate::resource::object! {
    /// Work that takes longer than a request.
    Operation, "operations", OperationSpec, OperationStatus
}

/// What is to be done, by whom, to what. Never changed after creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationSpec {
    /// Which list of steps.
    pub kind: OperationKind,
    /// To what.
    pub target: Target,
    /// On whose behalf.
    pub actor: Actor,
    /// The target's generation at the time of asking.
    #[serde(default)]
    pub generation: i64,
    /// The store's revision when it was asked for: later wishes have larger numbers, whatever the clock says.
    #[serde(default)]
    pub sequence: u64,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same key for the same target gives the same operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Who waits for it.
    #[serde(default)]
    pub priority: Priority,
    /// How it stands to others.
    #[serde(default, skip_serializing_if = "Relations::is_empty")]
    pub relations: Relations,
    /// The operation whose work this one undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<String>,
    /// The number of the revision that a rollback goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
    /// What a growth that a person asked for wants of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// Where a new version of the machine's system comes from, and when it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemWish>,
}

/// How the machine's system is to be updated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SystemWish {
    /// URL of a folder with a folder for each channel, or the path of a folder on the machine that holds one version; by
    /// default what Settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which channel; by default what Settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The machine is started anew as soon as the version is there and nothing else is at work. Otherwise that waits for
    /// somebody to do it.
    pub restart: bool,
}

impl OperationSpec {
    /// What it wants is noted when it begins, and not when it is asked for: nobody is to act on it before all that it
    /// requires is done.
    pub fn wants_later(&self) -> bool {
        !self.relations.requires.is_empty()
    }
}

/// The room that a volume of a bundle is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// Its name in the bundle's spec.
    pub volume: String,
    /// A quantity of bytes, e.g. `2Gi`.
    pub size: String,
}

/// The kinds of operation; each has its list of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// First revision of a bundle.
    Install,
    /// Every later revision.
    Update,
    /// A later revision that is made as an earlier one was.
    Rollback,
    /// Start of the present revision.
    Start,
    /// Stop.
    Stop,
    /// Stop and start of the present revision.
    Restart,
    /// Removal with all that belongs to it, volumes excepted.
    Uninstall,
    /// More room for the volumes of a bundle, which runs on.
    Grow,
    /// A volume stays closed from now on.
    Lock,
    /// A volume may be opened again.
    Unlock,
    /// A volume is destroyed with its key.
    Erase,
    /// What nothing needs any more and is old enough is removed.
    Cleanup,
    /// The edits of a change set, all in one transaction. It is recorded when it is done, with a step for each
    /// object.
    ApplyChanges,
    /// A new version of the machine's system: fetched, written beside the present one, started, and found good or left
    /// again.
    UpdateSystem,
}

impl OperationKind {
    /// Every kind that is carried out step by step, for tests that are generated from them.
    pub const ALL: [OperationKind; 13] = [
        Self::Install,
        Self::Update,
        Self::Rollback,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Uninstall,
        Self::Grow,
        Self::Lock,
        Self::Unlock,
        Self::Erase,
        Self::Cleanup,
        Self::UpdateSystem,
    ];

    /// Whether it is about a volume, and not about a bundle.
    pub fn is_of_volumes(self) -> bool {
        matches!(self, Self::Lock | Self::Unlock | Self::Erase)
    }

    /// Whether it makes a revision out of what is wanted of a bundle.
    pub fn makes_revision(self) -> bool {
        matches!(self, Self::Install | Self::Update | Self::Rollback)
    }

    /// A wish of this kind does not wait for one of the other to end: a wish to stop or remove not for one to start, nor
    /// one to go back for one to go on.
    pub fn overtakes(self, other: Self) -> bool {
        match self {
            Self::Stop | Self::Uninstall => !matches!(other, Self::Stop | Self::Uninstall),
            Self::Rollback => other == Self::Update,
            _ => false,
        }
    }

    /// The step that brings about what it is for: until then it can be cancelled. Kinds without one cannot be, as they
    /// take away what cannot be given back, or are done at once.
    pub fn commits(self) -> Option<StepName> {
        match self {
            Self::Install | Self::Update | Self::Rollback => Some(StepName::Promote),
            Self::Start | Self::Restart => Some(StepName::AwaitReady),
            Self::UpdateSystem => Some(StepName::RestartMachine),
            _ => None,
        }
    }

    /// The steps in their order. A step is repeatable: after a kill it is simply run again.
    pub fn steps(self) -> &'static [StepName] {
        use StepName as S;
        match self {
            Self::Install | Self::Update | Self::Rollback => &[
                S::ResolveImage,
                S::PullImage,
                S::ProvisionSecrets,
                S::PrepareRevision,
                S::AllocateVolumes,
                S::FormatVolumes,
                S::ConfigureNetwork,
                S::StopOld,
                S::OpenVolumes,
                S::StartUnit,
                S::AwaitReady,
                S::Promote,
                S::RetireOld,
            ],
            Self::Start => &[S::ProvisionSecrets, S::ConfigureNetwork, S::OpenVolumes, S::StartUnit, S::AwaitReady],
            Self::Stop => &[S::StopUnit, S::CloseVolumes],
            // What is missing is found before anything is stopped.
            Self::Restart => {
                &[S::ProvisionSecrets, S::StopUnit, S::ConfigureNetwork, S::OpenVolumes, S::StartUnit, S::AwaitReady]
            }
            Self::Uninstall => &[S::StopUnit, S::CloseVolumes, S::ReleaseNetwork, S::RemoveFiles, S::RemoveRecords],
            Self::Grow => &[S::GrowImages, S::GrowFilesystems],
            Self::Lock => &[S::LockVolume],
            Self::Unlock => &[S::UnlockVolume],
            Self::Erase => &[S::CloseVolume, S::DestroyKey, S::RemoveImage, S::ForgetVolume],
            Self::Cleanup => &[S::RemoveUnneeded],
            Self::ApplyChanges => &[],
            Self::UpdateSystem => {
                &[S::FindRelease, S::DownloadRelease, S::WriteSlot, S::RestartMachine, S::ConfirmVersion]
            }
        }
    }
}

/// A typed action of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepName {
    /// Tag to digest.
    ResolveImage,
    /// Blobs, checked and unpacked.
    PullImage,
    /// All that it takes from ConfigMaps and Secrets is there.
    ProvisionSecrets,
    /// The revision's record, with its address and id range.
    PrepareRevision,
    /// Records, keys and files of volumes that are not there yet.
    AllocateVolumes,
    /// Encryption and filesystems of these.
    FormatVolumes,
    /// Bridge and rules.
    ConfigureNetwork,
    /// The revision before it lets go of volumes that both have.
    StopOld,
    /// Devices of the volumes, decrypted.
    OpenVolumes,
    /// Plan file and transient unit.
    StartUnit,
    /// Active, and its ports answer.
    AwaitReady,
    /// Traffic goes to it.
    Promote,
    /// The revision before it is stopped.
    RetireOld,
    /// Stop of the unit.
    StopUnit,
    /// Devices of the volumes are gone.
    CloseVolumes,
    /// Rules without it.
    ReleaseNetwork,
    /// Plan and marker files.
    RemoveFiles,
    /// Revisions, then the bundle itself.
    RemoveRecords,
    /// More room in the files of volumes, and in the devices on them.
    GrowImages,
    /// Filesystems take it.
    GrowFilesystems,
    /// Noted as locked, and closed.
    LockVolume,
    /// Its key opens it; noted as ready.
    UnlockVolume,
    /// Noted as being erased, and closed.
    CloseVolume,
    /// Its key and the master key of that time are gone.
    DestroyKey,
    /// Its file is gone.
    RemoveImage,
    /// Its record is gone.
    ForgetVolume,
    /// What nothing needs is gone.
    RemoveUnneeded,
    /// One object of a change set.
    ApplyChange,
    /// Which version there is, and that it is signed and newer.
    FindRelease,
    /// Its files, checked.
    DownloadRelease,
    /// Written into the slot that is not in use, with an entry that the firmware tries first.
    WriteSlot,
    /// The machine starts anew.
    RestartMachine,
    /// The new version runs, and everything serves that should.
    ConfirmVersion,
}

/// What an operation works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Kind, e.g. `Bundle`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Tells two objects of one name apart that lived one after the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Who asked, and by what way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// Subject, e.g. `owner` or `local-root`.
    pub identity: String,
    /// `panel`, `cli`, `api`, `mcp`, `schedule` or `reconciler`.
    pub source: String,
}

/// Who waits for an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Priority {
    /// A person.
    #[default]
    Interactive,
    /// A schedule.
    Scheduled,
    /// Nobody.
    Housekeeping,
}

/// How an operation stands to others of its namespace, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Relations {
    /// It begins when all of these have succeeded, and fails without having begun if one of them does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// While both wait and it could begin, these let it go first and wait for its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefers_before: Vec<String>,
    /// It is never at work at the same time as one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts_with: Vec<String>,
}

impl Relations {
    /// It stands alone.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationStatus {
    /// Finished states never change.
    pub state: OperationState,
    /// What it waits for before it begins, if that may take long; for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waiting: String,
    /// One entry per step of the kind.
    pub steps: Vec<Step>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Who let it go on that was held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released_by: Option<Actor>,
    /// The store's revision when it was released: its place among other wishes, instead of when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Who wants it to end before it is done. What is done already is undone then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<Actor>,
    /// Why it failed, or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationError>,
    /// What it came to, e.g. the revision's number.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub result: Value,
}

/// State of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationState {
    /// Waiting for its turn.
    #[default]
    Pending,
    /// Waiting for somebody to release or reject it. Nothing of it is done, and what it wants is not noted yet.
    Held,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Given up; what it had done is undone.
    Failed,
    /// Overtaken by a later wish before it was done, or cancelled by somebody.
    Cancelled,
}

impl OperationStatus {
    /// It has not begun, and nobody knows when it will: whatever else is to be done goes on meanwhile.
    pub fn rests(&self) -> bool {
        self.state == OperationState::Held || self.state == OperationState::Pending && !self.waiting.is_empty()
    }

    /// It ended and left undone what it was to do, with no later wish in its place.
    pub fn gave_up(&self) -> bool {
        let cancelled = self.state == OperationState::Cancelled && self.cancelled_by.is_some();
        cancelled || self.state == OperationState::Failed
    }
}

impl OperationState {
    /// No further change is possible.
    pub fn finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// State of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Which.
    pub name: StepName,
    /// How far.
    pub state: StepState,
    /// 0 to 100, never falling.
    #[serde(default)]
    pub progress: u8,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Starts of this step.
    #[serde(default)]
    pub attempt: u32,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Starts of it that failed and were to be followed by another.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failures: u32,
    /// When it is tried again, RFC 3339; only between two tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
}

/// What becomes of an operation when one of its steps fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It ends, and what it did is undone.
    Stop,
    /// It goes on: what the step was for comes about by itself later.
    Continue,
    /// It is tried again after longer and longer pauses, as long as the error says that this may help; then it ends. A
    /// start that ended with the supervisor's own life is no try.
    Retry {
        /// The first one included.
        tries: u32,
    },
}

impl StepName {
    /// What becomes of the operation when this step fails.
    pub fn on_error(self) -> OnError {
        match self {
            // Registries and the way to them come and go.
            Self::ResolveImage | Self::PullImage | Self::FindRelease | Self::DownloadRelease => {
                OnError::Retry { tries: 4 }
            }
            // Whoever follows the store writes the rules anew until they are as it says.
            Self::ReleaseNetwork => OnError::Continue,
            _ => OnError::Stop,
        }
    }
}

/// The longest pause before a step is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause after so many failures and one more: twice as long each time.
pub fn pause_after(failures: u32, first: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// State of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed,
    /// Not needed.
    Skipped,
    /// Done or begun once, undone since.
    Compensated,
}

/// The code of an operation that was held and rejected.
pub const REJECTED: &str = "Rejected";

/// Why an operation failed, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// A reason of the closed vocabulary.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// The chain of causes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<String>,
    /// Trying again without a change may help.
    #[serde(default)]
    pub retryable: bool,
}
