//! Berth's own kinds.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::core::{ALL_VERBS, DEFAULT_NAMESPACE};
use super::table::{Column, age, count, number, since, text};
use super::{Kind, Permanent, Registration, Shape};
use crate::patch::Merge;
use crate::policy::Verb;
use crate::quantity;
use crate::resource::operation::OperationState;
use crate::resource::{self, Bundle, ChangeSet, Operation, Revision, Schedule, Settings, Volume};

/// On every Bundle from its creation: taken off when all that belongs to it is gone.
pub const TEARDOWN_FINALIZER: &str = "berth.dev/teardown";

/// On every Volume from its creation: taken off when its key and its file are destroyed, so that no
/// deletion of anything, a namespace included, loses data.
pub const DATA_FINALIZER: &str = "berth.dev/data";

/// How long a finished Operation is kept.
pub const OPERATION_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What clients may do with records that Berth writes.
const RECORD_VERBS: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Update, Verb::Patch];

/// A registration of `berth.dev` with nothing special; each kind overrides what it needs.
pub(super) const PLAIN: Registration = Registration {
    group: resource::GROUP,
    version: resource::VERSION,
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    label_name: false,
    verbs: ALL_VERBS,
    instead: "",
    columns: &[],
    cells: |_, _| Vec::new(),
    selectable: &[],
    status: true,
    immutable_spec: false,
    record: false,
    life: |_| None,
    finalizers: &[],
    sealed: &[],
    permanent: &[],
    view: None,
    reading: None,
    chained: false,
    review: false,
    complete: |_, _| (),
    lists: &[],
    shape: Shape::of::<Bundle>(),
    default: |_| (),
    validate: |_, _| Vec::new(),
};

/// Services.
pub static BUNDLE: Registration = Registration {
    kind: "Bundle",
    plural: "bundles",
    singular: "bundle",
    short_names: &["bd"],
    categories: &["all"],
    label_name: true,
    columns: &[
        Column::NAME,
        Column::text("Phase", "Pending, Progressing, Running, Stopped, Failed or Terminating."),
        Column::text("Ready", "Whether it serves."),
        Column::number("Restarts", "Restarts by systemd of the running unit."),
        Column::text("Address", "Address on this machine."),
        Column::AGE,
        Column::text("Reason", "Why it is not ready.").wide(),
        Column::text("Unit", "Its systemd unit.").wide(),
        Column::text("Image", "What it runs.").wide(),
    ],
    cells: bundle_cells,
    selectable: &["status.phase"],
    finalizers: &[TEARDOWN_FINALIZER],
    lists: &[
        ("spec.dependsOn", Merge::Set),
        ("spec.env", Merge::By("name")),
        ("spec.ports", Merge::By("name")),
        ("spec.security.devices", Merge::Set),
        ("spec.security.extraCapabilities", Merge::Set),
        ("spec.volumeMounts", Merge::By("mountPath")),
        ("spec.volumes", Merge::By("name")),
    ],
    shape: Shape::of::<Bundle>(),
    validate: resource::bundle::validate,
    ..PLAIN
};

/// Immutable states of bundles.
pub static REVISION: Registration = Registration {
    kind: "Revision",
    plural: "revisions",
    singular: "revision",
    short_names: &["rev"],
    verbs: RECORD_VERBS,
    instead: "revisions are made and removed by Berth: change or delete the bundle instead",
    columns: &[
        Column::NAME,
        Column::text("Bundle", "Whose state it is."),
        Column::number("Number", "Counted within the bundle."),
        Column::text("State", "Candidate, Active, Superseded or Failed."),
        Column::text("Address", "Address on this machine."),
        Column::AGE,
        Column::text("Image", "What it runs.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/bundle"),
            number(object, "/spec/number"),
            text(object, "/status/state"),
            text(object, "/spec/allocation/address"),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/spec/image/reference"),
        ]
    },
    selectable: &["spec.bundle", "status.state"],
    immutable_spec: true,
    shape: Shape::of::<Revision>(),
    ..PLAIN
};

/// Disks of bundles.
pub static VOLUME: Registration = Registration {
    kind: "Volume",
    plural: "volumes",
    singular: "volume",
    short_names: &["vol"],
    verbs: RECORD_VERBS,
    instead: "volumes are made for bundles that ask for them (spec.volumes), and outlive these: \
              POST .../volumes/NAME/actions/erase destroys one with all its data",
    columns: &[
        Column::NAME,
        Column::text("Bundle", "Whose it is."),
        Column::text("Size", "The room it has."),
        Column::text("State", "Creating, Ready, Growing, Locked, Damaged or Erasing."),
        Column::AGE,
        Column::text("Message", "What is wrong with it.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/bundle"),
            Value::from(object.pointer("/status/size").and_then(Value::as_u64).map(quantity::show_bytes)),
            text(object, "/status/state"),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/status/message"),
        ]
    },
    selectable: &["spec.bundle", "status.state"],
    immutable_spec: true,
    finalizers: &[DATA_FINALIZER],
    shape: Shape::of::<Volume>(),
    ..PLAIN
};

/// All that may be changed while Berth runs: one object.
pub static SETTINGS: Registration = Registration {
    kind: "Settings",
    plural: "settings",
    singular: "settings",
    namespaced: false,
    label_name: true,
    verbs: RECORD_VERBS,
    instead: "there is one Settings, named berth, and it is always there: change it, or leave its fields out \
              (`spec: {}`) to have the defaults back",
    columns: &[
        Column::NAME,
        Column::text("Open-Namespaces", "Namespaces whose bundles reach one another without a declared dependency."),
        Column::AGE,
    ],
    cells: |object, now| {
        let open = object.pointer("/spec/network/openNamespaces").and_then(Value::as_array);
        let open: Vec<&str> = open.into_iter().flatten().filter_map(Value::as_str).collect();
        vec![
            text(object, "/metadata/name"),
            Value::from(if open.is_empty() { "<none>".to_owned() } else { open.join(",") }),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    status: false,
    shape: Shape::of::<Settings>(),
    validate: resource::settings::validate,
    ..PLAIN
};

/// Edits that are made together.
pub static CHANGE_SET: Registration = Registration {
    kind: "ChangeSet",
    plural: "changesets",
    singular: "changeset",
    short_names: &["cs"],
    label_name: true,
    columns: &[
        Column::NAME,
        Column::text("State", "Open or Applied."),
        Column::number("Entries", "Edits in it."),
        Column::text("Authors", "Who made them."),
        Column::AGE,
        Column::text("Description", "What it is for."),
        Column::text("Operation", "What applied it.").wide(),
    ],
    cells: change_set_cells,
    selectable: &["status.state"],
    life: |object| (object["status"]["state"] == "Applied").then_some(OPERATION_LIFE),
    complete: |body, _| {
        if let Some(fields) = body.as_object_mut() {
            fields.entry("spec").or_insert_with(|| json!({}));
        }
    },
    shape: Shape::of::<ChangeSet>(),
    ..PLAIN
};

/// Records of long work.
pub static OPERATION: Registration = Registration {
    kind: "Operation",
    plural: "operations",
    singular: "operation",
    short_names: &["op"],
    verbs: RECORD_VERBS,
    instead: "operations are made by actions, e.g. POST .../bundles/NAME/actions/restart, and go \
              away by themselves",
    columns: &[
        Column::NAME,
        Column::text("Kind", "Which list of steps."),
        Column::text("Target", "What it works on."),
        Column::text("State", "Pending, Held, Running, Succeeded, Failed or Cancelled."),
        Column::text("Step", "The step it is at, and how many there are."),
        Column::AGE,
        Column::text("Actor", "Who asked for it.").wide(),
        Column::text("Message", "What it waits for, or why it failed.").wide(),
    ],
    cells: operation_cells,
    selectable: &["spec.kind", "spec.target.kind", "spec.target.name", "status.state"],
    immutable_spec: true,
    record: true,
    life: |object| is_finished(object).then_some(OPERATION_LIFE),
    shape: Shape::of::<Operation>(),
    ..PLAIN
};

/// Work that begins by itself.
pub static SCHEDULE: Registration = Registration {
    kind: "Schedule",
    plural: "schedules",
    singular: "schedule",
    short_names: &["sched"],
    columns: &[
        Column::NAME,
        Column::text("Schedule", "When it runs."),
        Column::text("Action", "What it begins."),
        Column::text("Next-Run", "Time until it runs again."),
        Column::text("Last-Run", "Time since it last ran."),
        Column::text("Last-Result", "How that went."),
        Column::AGE,
        Column::text("Operation", "What it last began.").wide(),
        Column::text("Message", "Why it was skipped, or is tried again.").wide(),
    ],
    cells: schedule_cells,
    selectable: &["spec.action.kind"],
    permanent: &[Permanent {
        namespace: DEFAULT_NAMESPACE,
        name: resource::schedule::CLEANUP,
        instead: "suspend it instead: spec.suspend: true",
    }],
    shape: Shape::of::<Schedule>(),
    validate: resource::schedule::validate,
    ..PLAIN
};

impl Kind for Bundle {
    fn registration() -> &'static Registration {
        &BUNDLE
    }
}

impl Kind for Revision {
    fn registration() -> &'static Registration {
        &REVISION
    }
}

impl Kind for Volume {
    fn registration() -> &'static Registration {
        &VOLUME
    }
}

impl Kind for ChangeSet {
    fn registration() -> &'static Registration {
        &CHANGE_SET
    }
}

impl Kind for Schedule {
    fn registration() -> &'static Registration {
        &SCHEDULE
    }
}

impl Kind for Settings {
    fn registration() -> &'static Registration {
        &SETTINGS
    }
}

impl Kind for Operation {
    fn registration() -> &'static Registration {
        &OPERATION
    }
}

fn is_finished(operation: &Value) -> bool {
    OperationState::deserialize(&operation["status"]["state"]).is_ok_and(OperationState::finished)
}

fn bundle_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = |condition: &&Value| condition.get("type") == Some(&json!("Ready"));
    let ready = conditions.into_iter().flatten().find(is_ready).cloned().unwrap_or(Value::Null);
    let shown = |cell: Value, empty: &str| if cell == "" { Value::from(empty) } else { cell };
    let reason = if ready["status"] == "True" { json!("") } else { text(&ready, "/reason") };
    vec![
        text(object, "/metadata/name"),
        shown(text(object, "/status/phase"), "Pending"),
        shown(text(&ready, "/status"), "False"),
        number(object, "/status/restarts"),
        text(object, "/status/address"),
        since(object, "/metadata/creationTimestamp", now),
        reason,
        text(object, "/status/unit"),
        shown(text(object, "/status/image"), object["spec"]["image"].as_str().unwrap_or("")),
    ]
}

fn change_set_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = object.pointer("/status/entries").and_then(Value::as_array);
    let author = |entry: &Value| entry["author"]["identity"].as_str().unwrap_or_default().to_owned();
    let authors: std::collections::BTreeSet<String> = entries.into_iter().flatten().map(author).collect();
    let state = text(object, "/status/state");
    vec![
        text(object, "/metadata/name"),
        if state == "" { Value::from("Open") } else { state },
        Value::from(count(object, "/status/entries")),
        Value::from(authors.into_iter().collect::<Vec<_>>().join(",")),
        since(object, "/metadata/creationTimestamp", now),
        text(object, "/spec/description"),
        text(object, "/status/operation"),
    ]
}

fn schedule_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let when = match (word("/spec/cron"), word("/spec/interval")) {
        ("", interval) => format!("every {interval}"),
        (cron, _) => format!("{cron} {}", word("/spec/timezone")),
    };
    let time = |pointer: &str| word(pointer).parse::<Timestamp>().ok();
    let next = match time("/status/nextRun") {
        _ if object.pointer("/spec/suspend") == Some(&json!(true)) => "suspended".to_owned(),
        Some(time) => format!("in {}", age(time.duration_since(now).as_secs())),
        None => "<unknown>".to_owned(),
    };
    let last = time("/status/lastRun").map(|time| format!("{} ago", age(now.duration_since(time).as_secs())));
    vec![
        text(object, "/metadata/name"),
        Value::from(when),
        Value::from([word("/spec/action/kind"), word("/spec/action/bundle")].join(" ").trim_end()),
        Value::from(next),
        Value::from(last.unwrap_or_else(|| "never".to_owned())),
        text(object, "/status/lastResult"),
        since(object, "/metadata/creationTimestamp", now),
        text(object, "/status/lastOperation"),
        text(object, "/status/message"),
    ]
}

fn operation_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let steps = object.pointer("/status/steps").and_then(Value::as_array);
    let total = count(object, "/status/steps");
    let open = |step: &Value| !matches!(step["state"].as_str(), Some("Succeeded" | "Skipped" | "Compensated"));
    let at = steps.and_then(|steps| steps.iter().position(open));
    let step = match at.and_then(|at| steps?.get(at).map(|step| (at + 1, step))) {
        Some((number, step)) => format!("{number}/{total} {}", step["name"].as_str().unwrap_or("")),
        None => format!("{total}/{total}"),
    };
    let target = |part: &str| text(object, &format!("/spec/target/{part}")).as_str().unwrap_or("").to_owned();
    vec![
        text(object, "/metadata/name"),
        text(object, "/spec/kind"),
        Value::from(format!("{}/{}", target("kind").to_lowercase(), target("name"))),
        text(object, "/status/state"),
        Value::from(step),
        since(object, "/metadata/creationTimestamp", now),
        text(object, "/spec/actor/identity"),
        text(object, if is_finished(object) { "/status/error/message" } else { "/status/waiting" }),
    ]
}
