//! What namespaces give their services and let them use, on a real machine.

use super::kubectl::Kubectl;
use super::{REGISTRY, eventually, shared};

#[test]
fn services_of_a_namespace_share_its_variables_and_are_held_to_its_quota_by_api_and_kernel() {
    let (_lock, machine) = shared();
    let kubectl = Kubectl::configured(machine, "quotas");
    let team = |spec: &str| {
        let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: quotas}}\nspec: {spec}\n");
        kubectl.with("apply", &manifest);
    };
    let limits = "systemctl show -P TasksMax -P MemoryMax -P CPUQuotaPerSecUSec berth-quotas.slice | xargs";
    let until = |wanted: &str| eventually(&wanted.to_owned(), || machine.ok(limits).unwrap().trim().to_owned());
    team("{env: [{name: TZ, value: UTC}, {name: MODE, value: theirs}], quota: {cpu: '2', memory: 768Mi, pids: 600}}");
    until("2s 805306368 600");

    let install =
        format!("berth -n quotas install 127.0.0.1:{REGISTRY}/nginx:1 --name page --env MODE=own --timeout 10m 2>&1");
    machine.ok(&install).unwrap();
    let inside = machine.ok("berth -n quotas exec page -- sh -c 'echo $TZ $MODE'").unwrap();
    assert_eq!(inside.trim(), "UTC own");
    let told = machine.ok("berth -n quotas status page --env").unwrap();
    let from = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!([from("TZ"), from("MODE"), from("PATH")], ["Namespace", "Bundle", "Image"], "{told}");

    let second = machine.sh(&install.replace("--name page", "--name other")).unwrap();
    let said = second.text() + &second.errors();
    assert!(second.code() == 4 && said.contains("exceeded quota: quotas, requested: memory=512Mi"), "{said}");
    let used = kubectl.run("get namespace quotas -o wide");
    assert!(used.contains("memory: 512Mi/768Mi") && used.contains("pids: 512/600"), "{used}");

    team("{env: [{name: TZ, value: CET}], quota: {memory: 1Gi}}");
    until("infinity 1073741824 infinity");
    let changed = "timeout 300 sh -c 'until [ \"$(berth -n quotas exec page -- sh -c \"echo \\$TZ\")\" = CET ]; do sleep 0.5; done'";
    machine.ok(changed).unwrap();
    machine.ok("systemctl restart berthd && berth -n quotas uninstall page --timeout 5m").unwrap();
    until("infinity 1073741824 infinity");
    kubectl.run("delete namespace quotas");
}
