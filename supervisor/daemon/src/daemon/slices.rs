//! The slices of namespaces, held to their quotas by systemd: the sum of what is allowed to single units is held by the
//! store, what all of them do together by the kernel.
//!
//! systemd keeps what it is told until the machine starts again, also while nothing is in the slice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use berth_host::systemd::{Systemd, SystemdError, UnitProperties};
use berth_model::kinds::NAMESPACE;
use berth_model::quota::{Measure, Quota};
use berth_model::resource::Namespace;
use tracing::error;

use super::properties::slice;
use crate::bundle::seams::Cause;
use crate::store::Store;

/// Where systemd keeps what it was told until the next start of the machine: systemd.unit(5).
const TOLD: &str = "/run/systemd/system.control";
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Changes looked at before all is looked at anyway.
const BATCH: usize = 200;
/// systemd's word for no limit, in every property that has one.
const NO_LIMIT: u64 = u64::MAX;

/// Tells systemd of each quota, whenever one changes. Runs until the store is closed.
pub(super) async fn follow_store(systemd: Systemd, store: Store) {
    let mut newest = store.revision();
    let (mut seen, mut told) = (0, BTreeMap::new());
    loop {
        let until = *newest.borrow_and_update();
        if concerns(&store, seen).await
            && let Err(error) = look(&systemd, &store, &mut told).await
        {
            error!("a slice is not held to its quota; trying again: {}", crate::log::chain(error.as_ref()));
            tokio::time::sleep(RETRY).await;
            continue;
        }
        seen = until;
        if newest.changed().await.is_err() {
            return;
        }
    }
}

async fn look(systemd: &Systemd, store: &Store, told: &mut BTreeMap<String, Quota>) -> Result<(), Cause> {
    let namespaces = store.read(|tx| tx.list::<Namespace>(None)).await?;
    Ok(bring_about(systemd, &namespaces.into_iter().map(quota).collect(), told).await?)
}

/// Whether a namespace is another one. Too many changes to tell are a yes.
async fn concerns(store: &Store, seen: u64) -> bool {
    if seen == 0 {
        return true;
    }
    match store.changes(seen, BATCH).await {
        Ok(changes) => changes.len() == BATCH || changes.iter().any(|change| *change.kind == NAMESPACE),
        Err(_) => true,
    }
}

fn quota(namespace: Namespace) -> (String, Quota) {
    (namespace.metadata.name.unwrap_or_default(), namespace.spec.quota)
}

async fn bring_about(
    systemd: &Systemd,
    quotas: &BTreeMap<String, Quota>,
    told: &mut BTreeMap<String, Quota>,
) -> Result<(), SystemdError> {
    told.retain(|name, _| quotas.contains_key(name));
    for (name, quota) in quotas {
        let slice = slice(name);
        let before = told.get(name);
        let news = match before {
            Some(before) => before != quota,
            // Of a supervisor, or a namespace, that was there before.
            None => !quota.is_empty() || Path::new(TOLD).join(format!("{slice}.d")).exists(),
        };
        if news {
            systemd.set_properties(&slice, &limits(quota)).await?;
        }
        told.insert(name.clone(), quota.clone());
    }
    Ok(())
}

fn limits(quota: &Quota) -> UnitProperties {
    let most = |measure| quota.of(measure).unwrap_or(NO_LIMIT);
    let cpu = quota.of(Measure::Cpu).map_or(NO_LIMIT, |millis| millis.saturating_mul(1000));
    UnitProperties::new()
        .cpu_quota(Duration::from_micros(cpu))
        .memory_max(most(Measure::Memory))
        .tasks_max(most(Measure::Pids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_quota_names_is_a_limit_and_what_it_does_not_name_is_none() {
        let quota = Quota { cpu: Some("1500m".into()), memory: Some("1Gi".into()), ..Quota::default() };
        let told = limits(&quota).to_string();
        let expected =
            format!("CPUQuotaPerSecUSec t {}\nMemoryMax t {}\nTasksMax t {}", 1_500_000, 1_u64 << 30, u64::MAX);
        assert_eq!(told.trim_end(), expected);
    }
}
