//! The `berth` command as a person runs it, against a server that is scripted per test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "cli/accounts.rs"]
mod accounts;
#[path = "cli/cancelling.rs"]
mod cancelling;
#[path = "cli/certificates.rs"]
mod certificates;
#[path = "cli/changesets.rs"]
mod changesets;
#[path = "cli/cleaning.rs"]
mod cleaning;
#[path = "cli/connecting.rs"]
mod connecting;
#[path = "cli/curling.rs"]
mod curling;
#[path = "cli/declaring.rs"]
mod declaring;
#[path = "cli/diagnosing.rs"]
mod diagnosing;
#[path = "cli/editing.rs"]
mod editing;
#[path = "cli/enrolling.rs"]
mod enrolling;
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/following.rs"]
mod following;
#[path = "cli/health.rs"]
mod health;
#[path = "cli/logging.rs"]
mod logging;
#[path = "cli/reading.rs"]
mod reading;
#[path = "cli/revisions.rs"]
mod revisions;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/supporting.rs"]
mod supporting;
#[path = "cli/topping.rs"]
mod topping;
#[path = "cli/values.rs"]
mod values;
#[path = "cli/versions.rs"]
mod versions;
#[path = "cli/volumes.rs"]
mod volumes;
#[path = "cli/watching.rs"]
mod watching;
