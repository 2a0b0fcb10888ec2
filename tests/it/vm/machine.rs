//! The machine itself: what the package brings, before any service.

use super::shared;

#[test]
fn nothing_failed_at_boot_and_the_supervisor_answers() {
    let (_lock, machine) = shared();
    assert_eq!(machine.ok("systemctl --failed --no-legend --plain").unwrap(), "");
    assert_eq!(machine.ok("systemctl is-active berth-setup berthd").unwrap(), "active\nactive");
    let health = machine.ok("curl --silent --cacert /var/lib/berth/keys/ca.crt https://localhost:6443/readyz").unwrap();
    assert!(health.contains("ok"), "{health}");
}

#[test]
fn the_data_disk_can_share_blocks_between_copies() {
    let (_lock, machine) = shared();
    assert!(machine.ok("xfs_info /var/lib/berth").unwrap().contains("reflink=1"));
}

#[test]
fn keys_and_token_are_for_root_alone() {
    let (_lock, machine) = shared();
    assert_eq!(
        machine.ok("stat -c %a:%U /var/lib/berth/token /var/lib/berth/keys/master.cred").unwrap(),
        "600:root\n600:root"
    );
}

#[test]
fn the_supervisor_lives_in_the_machines_own_mount_namespace_and_is_confined_otherwise() {
    let (_lock, machine) = shared();
    let namespaces = machine.ok("readlink /proc/1/ns/mnt /proc/$(systemctl show -P MainPID berthd)/ns/mnt").unwrap();
    let (of_init, of_berthd) = namespaces.split_once('\n').unwrap();
    assert_eq!(of_init, of_berthd);
    let score = machine.ok("systemd-analyze security --no-pager berthd.service | tail -n 1").unwrap();
    println!("{score}");
    let number: f64 = score.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(number <= 5.5, "berthd.service lost some of its confinement: {score}");
}

#[test]
fn the_package_says_what_it_needs_and_can_be_installed_again() {
    let (_lock, machine) = shared();
    let before = machine.ok("systemctl show -P MainPID berth-agent").unwrap();
    machine.ok("dpkg --audit && dpkg --verify berth").unwrap();
    assert_eq!(machine.ok("systemctl show -P MainPID berth-agent").unwrap(), before);
}
