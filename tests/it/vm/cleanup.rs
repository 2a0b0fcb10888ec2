//! What nothing needs goes after a while, or at once when the disk fills up; what runs and what ran before it stays.
//!
//! Ages and thresholds are set low instead of waiting for a week or filling a disk.

use berth_tests::machine::Machine;
use berth_tests::saved::REGISTRY;

use super::{eventually, install, own, page, ready, refused, uninstall};

#[test]
#[ignore = "long tier"]
fn what_nothing_needs_goes_as_told_and_a_disk_that_fills_up_takes_no_image_in_until_it_has_room() {
    let (machine, _alone) = own("cleanup");
    install(&machine, "web", &format!("127.0.0.1:{REGISTRY}/nginx:1 --publish 8081:80"));
    machine.ok(&format!("berth update web --image 127.0.0.1:{REGISTRY}/nginx:2 --timeout 10m")).unwrap();
    what_is_told_goes(&machine);
    a_disk_that_fills_up(&machine);
    assert_eq!(page(&machine, 8081), "nginx under Berth, image 2");
    machine.remove().unwrap();
}

fn testbox() -> String {
    format!("127.0.0.1:{REGISTRY}/testbox:latest")
}

fn set(machine: &Machine, cleanup: &str) {
    let settings = "kind: Settings, apiVersion: berth.dev/v1, metadata: {name: berth}";
    machine.ok(&format!("echo '{{{settings}, spec: {{cleanup: {cleanup}}}}}' | berth apply -f -")).unwrap();
}

/// Names of the images, the image of the revision that serves and of the one before it among them.
fn images(machine: &Machine) -> Vec<String> {
    let names = machine.ok("berth image list -o name").unwrap();
    let mut names: Vec<String> = names.lines().filter_map(|name| Some(name.rsplit_once('/')?.1.to_owned())).collect();
    names.sort();
    names
}

/// Installs a service and removes it: its image is unused then.
fn come_and_go(machine: &Machine) {
    install(machine, "other", &testbox());
    uninstall(machine, "other");
    assert_eq!(images(machine), ["nginx:1", "nginx:2", "testbox:latest"]);
}

fn what_is_told_goes(machine: &Machine) {
    come_and_go(machine);
    let young = machine.ok("berth system cleanup 2>&1").unwrap();
    assert!(young.contains("nothing is old enough") && young.contains("data disk: "), "{young}");
    set(machine, "{unusedImageDays: 0, finishedOperationDays: 0}");
    let told = machine.ok("berth system cleanup --dry-run").unwrap();
    assert!(told.contains("testbox:latest") && told.contains("would be removed: "), "{told}");
    assert!(!told.contains("nginx") && told.contains("finished ") && told.contains("unused for "), "{told}");
    let what = "jq -c '.items | map([.kind, .name, .id])'";
    let told = machine.ok(&format!("berth system cleanup --dry-run -o json | {what}")).unwrap();
    assert_eq!(images(machine).len(), 3, "a dry run has removed an image");
    let gone = machine.ok(&format!("berth system cleanup -o json | {what}")).unwrap();
    assert_eq!(gone, told, "a real run removes what a dry run tells");
    assert_eq!(images(machine), ["nginx:1", "nginx:2"]);
    let operations = machine.ok("berth get operations -o name").unwrap();
    assert!(operations.contains("web-") && !operations.contains("other-"), "{operations}");
    let events = machine.ok("berth events").unwrap();
    assert!(events.contains("CleanedUp") && events.contains("1 image; the data disk has "), "{events}");
}

fn a_disk_that_fills_up(machine: &Machine) {
    set(machine, "null");
    come_and_go(machine);
    // What is allocated is used, so that is a twentieth of the disk at once.
    install(machine, "room", &format!("127.0.0.1:{REGISTRY}/nginx:1 --volume data:/data:1Gi"));
    set(machine, "{disk: {warnPercent: 3, cleanPercent: 4, pausePercent: 4}}");
    let paused = || machine.ok("berth events").unwrap().contains("PullsPaused");
    eventually(&true, paused);
    eventually(&vec!["nginx:1".to_owned(), "nginx:2".to_owned()], || images(machine));
    let said = refused(machine, &format!("install {} --name late --timeout 5m", testbox()));
    assert!(said.contains("DiskPressure") && said.contains("from 4 % on no image is taken in"), "{said}");
    assert!(said.contains("try: Make room") && said.contains("berth system cleanup"), "{said}");
    let metrics = machine.ok("curl -s --unix-socket /run/berth/api.sock http://berth/metrics").unwrap();
    assert!(metrics.contains("berth_data_disk_level 3"), "{metrics}");
    set(machine, "null");
    eventually(&"True StartCompleted".to_owned(), || ready(machine, "late"));
    assert!(machine.ok("berth events").unwrap().contains("PullsResumed"));
}
