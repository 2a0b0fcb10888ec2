//! What changes while it runs: a new image without a failed visit, a wish to stop, an end of its own.

use berth_tests::http::Visit;
use berth_tests::machine::Machine;
use berth_tests::pace;

use super::supervisor::visits;
use super::{eventually, install, is_long, own, page, ready, refused, shared, uninstall};

/// Visits of which none may fail, in the long tier.
const MANY: usize = 10_000;

const NGINX: &str = "127.0.0.1:5000/nginx";
const TESTBOX: &str = "127.0.0.1:5000/testbox:latest";

#[test]
fn an_update_of_a_service_without_data_and_the_way_back_fail_no_visit() {
    let (_lock, machine) = shared();
    let first = format!("{NGINX}:1 --publish 8084:80 --cpu 1");
    install(machine, "site", &first);
    let (seen, failures) = visits(machine.forwarded(8084), || {
        machine.ok(&format!("berth update site --image {NGINX}:2 --timeout 10m")).unwrap();
    });
    assert_eq!(failures, Vec::<String>::new());
    assert!(seen.iter().any(|page| page.ends_with("image 1")), "{seen:?}");
    assert_eq!(page(machine, 8084), "nginx under Berth, image 2");
    let look = "berth get revisions -o json | jq -r '.items[] | select(.spec.bundle == \"site\") | .metadata.name + \" \" + .status.state'";
    assert_eq!(machine.ok(look).unwrap(), "site-r1 Superseded\nsite-r2 Active");
    let units = machine.ok("systemctl list-units --plain --no-legend 'berth.default.site.*' | cut -d' ' -f1").unwrap();
    assert_eq!(units, "berth.default.site.r2.service");
    let (_, failures) = visits(machine.forwarded(8084), || {
        let said = machine.ok("berth rollback site --timeout 10m").unwrap();
        assert_eq!(said, "bundle/site rolled back: revision 3 serves, as revision 1 did");
    });
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(page(machine, 8084), "nginx under Berth, image 1");
    assert_eq!(machine.ok(look).unwrap(), "site-r1 Superseded\nsite-r2 Superseded\nsite-r3 Active");
    let again = machine.ok(&format!("berth install {first} --name site")).unwrap();
    assert!(again.contains("unchanged"), "what it was installed as is what it is again: {again}");
    let said = refused(machine, "rollback site --to 3");
    assert!(said.contains("revision 3 is the one that runs"), "{said}");
    let (mut visited, mut image) = (seen.len(), 2);
    while is_long() && visited < MANY {
        let (seen, failures) = visits(machine.forwarded(8084), || {
            machine.ok(&format!("berth update site --image {NGINX}:{image} --timeout 10m")).unwrap();
        });
        assert_eq!(failures, Vec::<String>::new(), "after {visited} visits");
        (visited, image) = (visited + seen.len(), 3 - image);
    }
    uninstall(machine, "site");
}

#[test]
fn who_asks_slowly_while_a_service_is_replaced_is_answered_by_the_one_it_asked() {
    let (_lock, machine) = shared();
    install(machine, "slowly", &format!("{NGINX}:1 --publish 8087:80 --cpu 1"));
    let visit = Visit::begin(machine.forwarded(8087), "/").unwrap();
    let update = machine.start(&format!("berth update slowly --image {NGINX}:2 --timeout 10m")).unwrap();
    let waits = "berth get operations -o json | jq -r '.items[] | select(.spec.target.name == \"slowly\") | .status.steps[].message' \
                 | grep -c 'connections to revision 1 to end: 1'";
    eventually(&"1".to_owned(), || machine.sh(waits).unwrap().text().trim().to_owned());
    // It is waited for, but not for ever: nothing comes before the rest of the question.
    let (code, answer) = visit.finish(pace::boots(1.0)).unwrap();
    assert_eq!((code, answer.trim()), (200, "nginx under Berth, image 1"));
    assert_eq!(page(machine, 8087), "nginx under Berth, image 2");
    let updated = update.finish(pace::boots(4.0)).unwrap();
    assert!(updated.success(), "{}", updated.errors());
    uninstall(machine, "slowly");
}

#[test]
fn a_failed_update_leaves_the_old_image_serving_and_says_so() {
    let (_lock, machine) = shared();
    install(machine, "steady", &format!("{NGINX}:1 --publish 8086:80 --cpu 1"));
    let said = refused(machine, &format!("update steady --image {NGINX}:nosuch --timeout 10m"));
    assert!(said.contains("nosuch") && said.contains("try:"), "{said}");
    assert_eq!(page(machine, 8086), "nginx under Berth, image 1");
    eventually(&"False Degraded".into(), || ready(machine, "steady"));
    machine.ok("berth rollback steady --timeout 10m").unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "steady"));
    uninstall(machine, "steady");
}

#[test]
#[ignore = "long tier"]
fn a_wish_to_stop_lasts_and_refuses_who_asks_and_the_same_install_changes_nothing() {
    let (_lock, machine) = shared();
    let wished = format!("{NGINX}:1 --publish 8088:80 --cpu 1");
    install(machine, "wished", &wished);
    let again = machine.ok(&format!("berth install {wished} --name wished")).unwrap();
    assert!(again.contains("unchanged"), "{again}");
    machine.ok("berth stop wished --timeout 10m").unwrap();
    eventually(&"False StartSkipped".into(), || ready(machine, "wished"));
    // 7 is curl's word for a connection that was refused; 28 would be one for a silence.
    let asked = "curl --silent --max-time 60 http://$(hostname -I | cut -d ' ' -f 1):8088/ || echo $?";
    eventually(&"7".into(), || machine.ok(asked).unwrap().trim().to_owned());
    machine.ok("berth start wished --timeout 10m").unwrap();
    eventually(&"True StartCompleted".into(), || ready(machine, "wished"));
    assert_eq!(page(machine, 8088), "nginx under Berth, image 1");
    uninstall(machine, "wished");
}

#[test]
#[ignore = "long tier"]
fn a_service_that_ends_at_once_is_told_with_its_exit_code_and_last_words() {
    let (_lock, machine) = shared();
    let said = refused(machine, &format!("install {TESTBOX} --name ended --set 'args=[\"exit\",\"3\"]' --timeout 10m"));
    assert!(said.contains("exit code 3") && said.contains("ending with 3") && said.contains("journalctl"), "{said}");
    eventually(&"False StartFailed".into(), || ready(machine, "ended"));
    assert!(machine.ok("berth events").unwrap().contains("exit code 3"));
    let told = machine.ok("berth revisions ended").unwrap();
    assert!(told.contains("Failed") && told.contains("StartFailed: Error (exit code 3)"), "{told}");
    let number = told.lines().last().and_then(|row| row.split_whitespace().next()).unwrap();
    let told = machine.ok(&format!("berth describe revision ended-r{number}")).unwrap();
    assert!(told.contains("ending with 3"), "{told}");
    uninstall(machine, "ended");
}

#[test]
#[ignore = "long tier"]
fn an_image_that_nothing_needs_is_pruned_and_what_serves_or_served_before_stays() {
    let (machine, _alone) = own("prune");
    install(&machine, "kept", &format!("{NGINX}:1"));
    machine.ok(&format!("berth update kept --image {NGINX}:2 --timeout 10m")).unwrap();
    install(&machine, "passing", TESTBOX);
    uninstall(&machine, "passing");
    let told = machine.ok("berth image prune --dry-run").unwrap();
    assert!(told.contains(TESTBOX) && !told.contains(NGINX), "{told}");
    let before = layers(&machine);
    machine.ok("berth image prune").unwrap();
    assert!(layers(&machine) < before);
    let left = machine.ok("berth image list -o name").unwrap();
    assert_eq!(left, format!("{NGINX}:1\n{NGINX}:2"));
    let said = refused(&machine, &format!("image remove {NGINX}:2"));
    assert!(said.contains("in use"), "{said}");
    install(&machine, "again", TESTBOX);
    machine.remove().unwrap();
}

fn layers(machine: &Machine) -> usize {
    machine.ok("ls /var/lib/berth/images/layers | wc -l").unwrap().parse().unwrap()
}
