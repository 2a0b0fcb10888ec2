//! What a machine is for, and what follows from that.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Config, words};

const GIB: u64 = 1 << 30;

/// What a machine is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Profile {
    /// A small machine: 1 processor, 1 GiB. Little is done at a time, and nothing unneeded is kept for long.
    Minimal,
    /// One person's services: 2 processors, 4 GiB. All of Settings is as it comes.
    #[default]
    Solo,
    /// Services that many people use: 4 processors, 8 GiB. More may be open at a time.
    MultiUser,
    /// A machine that builds and tries images: 8 processors, 16 GiB. More is done at a time, and the disk is cleaned early.
    Builder,
    /// Many services and many people: 16 processors, 32 GiB. More of everything, and a longer memory.
    Enterprise,
}

/// The least that a profile is meant for. A machine that has less works, and is warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minimum {
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
}

impl Profile {
    /// How it is written.
    pub fn word(self) -> String {
        words::written(&self)
    }

    /// The least that it is meant for.
    pub fn minimum(self) -> Minimum {
        let (cpus, gibibytes) = match self {
            Self::Minimal => (1, 1),
            Self::Solo => (2, 4),
            Self::MultiUser => (4, 8),
            Self::Builder => (8, 16),
            Self::Enterprise => (16, 32),
        };
        Minimum { cpus, memory: gibibytes * GIB }
    }

    /// What it sets in the spec of Settings; what it does not name stays as it comes.
    pub fn settings(self) -> Value {
        match self {
            Self::Minimal => json!({
                "operations": { "parallel": 4 },
                "cleanup": { "unusedImageDays": 1, "finishedOperationDays": 7, "eventDays": 3 },
                "api": { "limits": { "streamsPerSubject": 100 } },
            }),
            Self::Solo => json!({}),
            Self::MultiUser => json!({ "api": { "limits": { "requestsPerSecond": 4000 } } }),
            Self::Builder => json!({
                "operations": { "parallel": 32 },
                "cleanup": { "unusedImageDays": 3, "disk": { "warnPercent": 70, "cleanPercent": 80, "pausePercent": 95 } },
            }),
            Self::Enterprise => json!({
                "operations": { "parallel": 64 },
                "cleanup": { "finishedOperationDays": 90, "eventDays": 30 },
                "api": { "limits": {
                    "requestsPerSecond": 8000, "requestsPerSecondPerSubject": 2000, "streamsPerSubject": 1000,
                } },
            }),
        }
    }
}

/// See [`Config::settings_patch`].
pub(super) fn merged(config: &Config) -> Value {
    let mut merged = config.profile().settings();
    if let Some(updates) = &config.updates {
        let mut set = json!({});
        set["source"] = json!(updates.source);
        set["channel"] = json!(updates.channel);
        set["healthTimeoutSeconds"] = json!(updates.health_timeout_seconds);
        let said = set.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let said: serde_json::Map<String, Value> = said.map(|(key, value)| (key.clone(), value.clone())).collect();
        merge(&mut merged, &json!({ "updates": said }));
    }
    merge(&mut merged, &json!(config.settings.clone().unwrap_or_default()));
    merged
}

/// Objects are merged by key, all else is taken as a whole. TOML has no null, which is all that RFC 7396 adds to this.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.as_str()).or_insert_with(|| json!({})), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
