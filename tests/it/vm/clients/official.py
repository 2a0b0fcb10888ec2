"""What a program does that was written with Kubernetes' own client for Python, in a namespace of its own."""
import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

CONFIG, IMAGE = sys.argv[1:]
PLACE, GROUP, VERSION, BUNDLES = "python", "berth.dev", "v1", "bundles"
config.load_kube_config(CONFIG)
core, apps, custom = client.CoreV1Api(), client.AppsV1Api(), client.CustomObjectsApi()


def refused(code, act, *words, **named):
    try:
        act(*words, **named)
    except ApiException as error:
        assert error.status == code, error
        return error.body
    raise AssertionError(f"{act.__name__} was not refused")


def configuration():
    made = core.create_namespaced_config_map(PLACE, client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name="settings"), data={"colour": "green", "size": "small"}))
    assert made.metadata.uid and made.metadata.creation_timestamp, made
    refused(409, core.create_namespaced_config_map, PLACE, client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name="settings")))
    changed = core.patch_namespaced_config_map("settings", PLACE, {"data": {"size": "large"}})
    assert changed.data == {"colour": "green", "size": "large"}, changed
    core.patch_namespaced_config_map("settings", PLACE, [{"op": "remove", "path": "/data/size"}])
    # `made` is of an older version by now.
    made.data = {"colour": "red"}
    assert "settings" in refused(409, core.replace_namespaced_config_map, "settings", PLACE, made)
    assert core.read_namespaced_config_map("settings", PLACE).data == {"colour": "green"}


def secret():
    core.create_namespaced_secret(PLACE, client.V1Secret(
        metadata=client.V1ObjectMeta(name="door"), string_data={"key": "sesame"}))
    assert "c2VzYW1l" not in str(core.read_namespaced_secret("door", PLACE)), "a secret is told to who did not ask for it"


def in_parts():
    for number in range(7):
        core.create_namespaced_config_map(PLACE, client.V1ConfigMap(
            metadata=client.V1ObjectMeta(name=f"part-{number}", labels={"part": "yes"})))
    names, token = [], None
    while token != "":
        some = core.list_namespaced_config_map(PLACE, label_selector="part=yes", limit=3, _continue=token)
        assert len(some.items) <= 3
        names += [one.metadata.name for one in some.items]
        token = some.metadata._continue or ""
    assert names == [f"part-{number}" for number in range(7)], names
    core.delete_collection_namespaced_config_map(PLACE, label_selector="part=yes")
    left = core.list_namespaced_config_map(PLACE).items
    assert [one.metadata.name for one in left] == ["settings"], left


def service():
    bundle = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "Bundle", "metadata": {"name": "box"},
        "spec": {
            "image": IMAGE,
            "command": ["/usr/bin/sh", "-c", "echo began; exec busybox httpd -f -p 8080 -h /etc"],
            "ports": [{"name": "web", "containerPort": 8080}],
            "volumes": [{"name": "data", "mountPath": "/data", "size": "64Mi"}],
        },
    }
    begun = custom.create_namespaced_custom_object(GROUP, VERSION, PLACE, BUNDLES, bundle)
    look = watch.Watch()
    since = begun["metadata"]["resourceVersion"]
    for event in look.stream(custom.list_namespaced_custom_object, GROUP, VERSION, PLACE, BUNDLES,
                             resource_version=since, timeout_seconds=600):
        conditions = event["object"].get("status", {}).get("conditions", [])
        if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            look.stop()
            break
    else:
        raise AssertionError("it did not become ready while it was watched")


def views():
    """Each is read into the client's own types, which refuse what lacks a field that they need."""
    pod = core.read_namespaced_pod("box", PLACE)
    assert pod.status.phase == "Running" and pod.status.container_statuses[0].ready, pod.status
    assert core.list_namespaced_service(PLACE).items[0].spec.ports[0].port == 8080
    assert core.list_namespaced_persistent_volume_claim(PLACE).items[0].status.phase == "Bound"
    assert apps.read_namespaced_stateful_set("box", PLACE).status.ready_replicas == 1
    assert core.list_node().items[0].status.node_info.kubelet_version
    assert any(event.involved_object.name == "box" for event in core.list_namespaced_event(PLACE).items)
    may = client.AuthorizationV1Api().create_self_subject_access_review(client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(
            namespace=PLACE, verb="delete", group=GROUP, resource=BUNDLES))))
    assert may.status.allowed, may


def inside():
    assert core.read_namespaced_pod_log("box", PLACE).splitlines()[0] == "began"
    begin = core.connect_get_namespaced_pod_exec
    said = stream(begin, "box", PLACE, command=["/usr/bin/sh", "-c", "echo out; echo err >&2"],
                  stdin=False, stdout=True, stderr=True, tty=False)
    assert sorted(said.split()) == ["err", "out"], said
    session = stream(begin, "box", PLACE, command=["/usr/bin/sh", "-c", "read word; echo heard $word; exit 7"],
                     stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
    session.write_stdin("sesame\n")
    session.run_forever(timeout=120)
    assert (session.read_stdout(), session.returncode) == ("heard sesame\n", 7)


def forwarded():
    begin = core.connect_get_namespaced_pod_portforward
    both = portforward(begin, "box", PLACE, ports="8080,9")
    served, nobody = both.socket(8080), both.socket(9)
    served.setblocking(True)
    served.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
    said = b""
    while piece := served.recv(4096):
        said += piece
    assert b"200 OK" in said and b"root:" in said, said
    assert both.error(8080) is None, both.error(8080)
    nobody.setblocking(True)
    assert nobody.recv(1) == b"" and "port 9 failed" in both.error(9), both.error(9)


def applied():
    """On the server, by the client that finds out by itself what kinds there are."""
    kinds = dynamic.DynamicClient(client.ApiClient())
    bundles = kinds.resources.get(api_version=f"{GROUP}/{VERSION}", kind="Bundle")
    wish = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Bundle", "metadata": {"name": "box", "labels": {"team": "a"}}}
    bundles.server_side_apply(body=wish, namespace=PLACE, field_manager="team-a")
    wish["metadata"]["labels"] = {"team": "b"}
    try:
        bundles.server_side_apply(body=wish, namespace=PLACE, field_manager="team-b")
        raise AssertionError("what another owns was taken")
    except dynamic.exceptions.ConflictError:
        pass
    bundles.server_side_apply(body=wish, namespace=PLACE, field_manager="team-b", force_conflicts=True)
    assert bundles.get(name="box", namespace=PLACE).metadata.labels.team == "b"


def gone():
    custom.delete_namespaced_custom_object(GROUP, VERSION, PLACE, BUNDLES, "box")
    look = watch.Watch()
    for event in look.stream(custom.list_namespaced_custom_object, GROUP, VERSION, PLACE, BUNDLES, timeout_seconds=600):
        if event["type"] == "DELETED":
            look.stop()
    refused(404, custom.get_namespaced_custom_object, GROUP, VERSION, PLACE, BUNDLES, "box")


groups = [group.name for group in client.ApisApi().get_api_versions().groups]
assert GROUP in groups and "apps" in groups, groups
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=PLACE)))
for step in [configuration, secret, in_parts, service, views, inside, forwarded, applied, gone]:
    step()
print("all is as it should be")
