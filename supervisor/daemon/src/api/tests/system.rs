use berth_model::usage::{BundleUsage, MachineUsage, Usage};

use super::*;

/// A machine on which one bundle runs.
pub(super) struct FakeSystem;

impl SystemPort for FakeSystem {
    fn usage(&self) -> BoxFuture<'_, Result<Usage, PortError>> {
        let web = BundleUsage { namespace: "default".into(), name: "web".into(), tasks: Some(2), ..Default::default() };
        std::future::ready(Ok(Usage::new(5, MachineUsage { cores: 2, ..MachineUsage::default() }, vec![web]))).boxed()
    }
}

#[tokio::test]
async fn what_is_used_is_told_and_what_is_not_counted_is_left_out() {
    let world = World::new();
    let told = world.get("/apis/berth.dev/v1/system/usage").await.ok();
    assert_eq!(
        (&told["apiVersion"], &told["kind"], &told["takenUs"]),
        (&json!("berth.dev/v1"), &json!("Usage"), &json!(5))
    );
    assert_eq!(told["machine"]["cores"], 2);
    let web = json!({"namespace": "default", "name": "web", "ready": false, "restarts": 0, "tasks": 2});
    assert_eq!(told["bundles"], json!([web]));
}
