//! A Bundle, found by discovery: made, awaited, looked at as a Pod, entered, and deleted.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, DeleteParams, DynamicObject, LogParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::Discovery;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Outcome, PLACE, same};

/// All of it.
pub async fn whole(client: &Client, image: &str) -> Outcome {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let kind = GroupVersionKind::gvk("berth.dev", "v1", "Bundle");
    let (resource, _) = discovery.resolve_gvk(&kind).ok_or("discovery does not lead to Bundles")?;
    let bundles: Api<DynamicObject> = Api::namespaced_with(client.clone(), PLACE, &resource);
    let wish = json!({
        "image": image,
        "command": ["/usr/bin/sh", "-c", "echo began; exec sleep 1000000"],
    });
    let bundle = DynamicObject::new("box", &resource).data(json!({ "spec": wish }));
    let made = bundles.create(&PostParams::default(), &bundle).await?;
    let ready = |found: Option<&DynamicObject>| {
        let of = found.and_then(|bundle| bundle.data.pointer("/status/conditions")?.as_array());
        of.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    await_condition(bundles.clone(), "box", ready).await?;
    entered(&Api::namespaced(client.clone(), PLACE)).await?;
    bundles.delete("box", &DeleteParams::default()).await?;
    let uid = made.uid().ok_or("the bundle has no uid")?;
    await_condition(bundles, "box", conditions::is_deleted(&uid)).await?;
    Ok(())
}

async fn entered(pods: &Api<Pod>) -> Outcome {
    await_condition(pods.clone(), "box", conditions::is_pod_running()).await?;
    same("its output", pods.logs("box", &LogParams::default()).await?, "began\n".to_owned())?;
    let streams = AttachParams::default().stdin(true).stderr(false);
    let mut inside = pods.exec("box", ["/usr/bin/sh", "-c", "read word; echo heard $word; exit 7"], &streams).await?;
    let ended = inside.take_status().ok_or("nothing tells how the command ends")?;
    let (mut input, mut output) = (inside.stdin().ok_or("no input")?, inside.stdout().ok_or("no output")?);
    input.write_all(b"sesame\n").await?;
    let mut said = String::new();
    output.read_to_string(&mut said).await?;
    same("what the command said", said, "heard sesame\n".to_owned())?;
    let status = ended.await.ok_or("the command ended without a status")?;
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    same("its exit code", code.and_then(|cause| cause.message), Some("7".to_owned()))
}
