//! Users, programs and the record of what they do, on a real machine over TLS.

use berth_tests::machine::Machine;

use super::{Flavor, Parts, Place, Plan, REGISTRY, eventually, own, plan, shared};

const HOME: &str = "/run/accounts";
const SERVER: &str = "--server https://localhost:6443 --ca /var/lib/berth/ca.crt";

/// A command of somebody who is no root here: his home is another, and he asks over the network.
fn as_alice(machine: &Machine, line: &str) -> (i32, String) {
    at_home(machine, HOME, line)
}

fn at_home(machine: &Machine, home: &str, line: &str) -> (i32, String) {
    let out = machine.sh(&format!("export HOME={home} KUBECONFIG={home}/config; {line}")).unwrap();
    (out.code(), out.text() + &out.errors())
}

#[test]
fn a_user_logs_in_does_what_his_role_allows_with_berth_and_kubectl_and_all_of_it_is_recorded() {
    let (_lock, machine) = shared();
    machine.ok("berth apply -f - <<'END'\napiVersion: v1\nkind: Namespace\nmetadata: {name: accounts}\nEND").unwrap();
    let create = "berth user create alice --role operator --in accounts --password-file -";
    machine.ok(&format!("mkdir -m 700 -p {HOME}; printf 'correct horse battery' | {create}")).unwrap();

    let wrong =
        format!("printf 'wrong horse battery' | berth {SERVER} login --name box --user alice --password-file -");
    let (code, said) = as_alice(machine, &wrong);
    assert!(code == 4 && said.contains("no such user with that password"), "{code} {said}");
    let login = wrong.replace("wrong horse", "correct horse");
    let (code, said) = as_alice(machine, &login);
    assert!(code == 0 && said.contains("alice is logged in"), "{code} {said}");
    let (code, said) = as_alice(machine, "berth --context box whoami");
    assert_eq!((code, said.as_str()), (0, "user:alice\n  role operator in the namespace accounts\n"));

    let install =
        format!("berth --context box -n accounts install 127.0.0.1:{REGISTRY}/nginx:1 --name page --timeout 10m");
    let (code, said) = as_alice(machine, &install);
    assert_eq!(code, 0, "{said}");
    let (code, said) = as_alice(machine, "kubectl --context box -n accounts get bundles");
    assert!(code == 0 && said.contains("page"), "{said}");
    let (code, said) = as_alice(machine, "kubectl --context box auth whoami");
    assert!(code == 0 && said.contains("user:alice"), "{said}");
    for forbidden in ["kubectl --context box -n default get bundles", "kubectl --context box get users"] {
        let (code, said) = as_alice(machine, forbidden);
        assert!(code == 1 && said.contains("(Forbidden)") && said.contains("user:alice may not list"), "{said}");
    }
    let (code, said) = as_alice(machine, "berth --context box can-i delete namespaces");
    assert!(code == 4 && said.starts_with("no\n"), "{said}");

    machine.ok("berth user disable alice").unwrap();
    let (code, said) = as_alice(machine, "berth --context box -n accounts status");
    assert!(code == 4 && said.contains("this user is disabled"), "{code} {said}");
    machine.ok("berth user enable alice").unwrap();
    let (code, said) = as_alice(machine, "berth logout --context box");
    assert_eq!((code, said.as_str()), (0, "logged out of box\n"));

    let recorded = machine.ok("berth audit list --by user:alice").unwrap();
    for deed in ["/auth/login alice", "bundles accounts page", "/auth/logout"] {
        assert!(recorded.contains(deed), "{deed}: {recorded}");
    }
    let denied = machine.ok("berth audit list --by user:alice --denied").unwrap();
    assert!(denied.contains("users") && !denied.contains("logout"), "{denied}");
    let leaked = "journalctl --boot | grep -c 'horse battery\\|berth_access_\\|berth_refresh_' || true";
    assert_eq!(machine.ok(leaked).unwrap().trim(), "0");
    machine
        .ok(&format!("berth delete user/alice; berth delete namespace/accounts --timeout 10m; rm -r {HOME}"))
        .unwrap();
    machine.ok("berth role revoke operator alice --in accounts").unwrap();
}

/// What an authenticator app with this secret shows, so many seconds from now as the machine counts them.
fn app_shows(machine: &Machine, secret: &str, seconds: u64) -> String {
    let secret = totp_rs::Secret::Encoded(secret.to_owned()).to_bytes().unwrap();
    let app = totp_rs::TOTP::new(totp_rs::Algorithm::SHA1, 6, 1, 30, secret, None, "erin".into()).unwrap();
    app.generate(machine.ok("date +%s").unwrap().trim().parse::<u64>().unwrap() + seconds)
}

#[test]
fn who_has_set_up_an_app_needs_its_code_to_log_in_or_one_for_recovery_until_it_is_taken_away() {
    let (_lock, machine) = shared();
    let home = "/run/accounts-of-erin";
    let as_erin = |line: &str| at_home(machine, home, line);
    let create = "berth user create erin --role viewer --password-file -";
    machine
        .ok(&format!("mkdir -m 700 -p {home}; printf 'correct horse battery' > {home}/word; {create} < {home}/word"))
        .unwrap();
    let login = format!("berth {SERVER} login --name erins --user erin --password-file {home}/word");
    let (code, said) = as_erin(&login);
    assert_eq!(code, 0, "{said}");
    let (code, said) = as_erin("berth --context erins user totp enable");
    assert!(code == 0 && said.contains("otpauth://totp/Berth%20"), "{code} {said}");
    let secret = said.lines().find_map(|line| line.strip_prefix("secret: ")).unwrap().to_owned();
    let confirm =
        format!("printf {} | berth --context erins user totp confirm --code-file -", app_shows(machine, &secret, 0));
    let (code, said) = as_erin(&confirm);
    let codes: Vec<&str> = said.lines().filter(|line| line.len() == 19 && !line.contains(' ')).collect();
    assert!(code == 0 && codes.len() == 10, "{said}");
    let (code, said) = as_erin("berth --context erins whoami");
    assert_eq!((code, said.as_str()), (0, "user:erin\n  role viewer\n  second factor: totp\n"));

    let (code, said) = as_erin(&login);
    assert!(code == 2 && said.contains("give --code-file"), "{code} {said}");
    let with = |code: &str| format!("printf %s '{code}' | {login} --code-file -");
    let (code, said) = as_erin(&with("000000"));
    assert!(code == 4 && said.contains("the code is wrong"), "{code} {said}");
    let (code, said) = as_erin(&with(&app_shows(machine, &secret, 30)));
    assert!(code == 0 && said.contains("erin is logged in"), "{code} {said}");
    let (code, said) = as_erin(&with(codes[3]));
    assert_eq!(code, 0, "{said}");
    let needle = format!("{secret}\\|{}", codes[0]);
    let leaks = format!("(journalctl --boot; cat /var/lib/berth/berth.db*) | grep -c -a '{needle}' || true");
    assert_eq!(machine.ok(&leaks).unwrap().trim(), "0");

    machine.ok("berth user totp disable erin").unwrap();
    let (code, said) = as_erin(&login);
    assert_eq!(code, 0, "{said}");
    machine.ok(&format!("berth user delete erin; berth role revoke viewer erin; rm -r {home}")).unwrap();
}

#[test]
fn whoever_is_invited_sets_his_password_with_the_link_and_has_the_role_that_he_was_given() {
    let (_lock, machine) = shared();
    let home = "/run/accounts-of-nina";
    let as_nina = |line: &str| at_home(machine, home, line);
    machine.ok(&format!("mkdir -m 700 -p {home}; printf 'correct horse battery' > {home}/word")).unwrap();
    machine.ok(&format!("berth invite nina --role viewer > {home}/link")).unwrap();
    assert!(machine.ok("berth invitation list").unwrap().contains("local-root"));
    let accept = format!("berth {SERVER} accept --link-file {home}/link --password-file {home}/word");
    let (code, said) = as_nina(&accept);
    assert!(code == 0 && said.contains("the account nina is made"), "{code} {said}");
    let (code, said) = as_nina(&accept);
    assert!(code == 4 && said.contains("it was used, taken back, or is over"), "{code} {said}");
    let (code, said) = as_nina(&format!("berth {SERVER} login --name ninas --user nina --password-file {home}/word"));
    assert_eq!(code, 0, "{said}");
    let (code, said) = as_nina("berth --context ninas whoami");
    assert_eq!((code, said.as_str()), (0, "user:nina\n  role viewer\n"));
    let leaks = format!("(journalctl --boot; cat /var/lib/berth/berth.db*) | grep -c -a -F -f {home}/link || true");
    assert_eq!(machine.ok(&leaks).unwrap().trim(), "0");
    machine.ok(&format!("berth user delete nina; berth role revoke viewer nina; rm -r {home}")).unwrap();
}

#[test]
fn a_machine_that_shows_a_code_comes_in_as_the_user_who_lets_it_in() {
    let (_lock, machine) = shared();
    let (home, lamp) = ("/run/accounts-of-lena", "/run/accounts-of-a-lamp");
    let create = "berth user create lena --role viewer --password-file -";
    machine.ok(&format!("mkdir -m 700 -p {home} {lamp}; printf 'correct horse battery' > {home}/word")).unwrap();
    machine.ok(&format!("{create} < {home}/word")).unwrap();
    let login = format!("berth {SERVER} login --name lenas --user lena --password-file {home}/word");
    let (code, said) = at_home(machine, home, &login);
    assert_eq!(code, 0, "{said}");
    let waits = format!(
        "systemd-run --quiet --collect --unit lamp --setenv HOME={lamp} --property StandardError=file:{lamp}/said -- \
         berth {SERVER} login --device --name lamps"
    );
    machine.ok(&waits).unwrap();
    let code =
        machine.ok(&format!("until grep -o '[A-Z2-9]\\{{4\\}}-[A-Z2-9]\\{{4\\}}$' {lamp}/said; do sleep 0.2; done"));
    let code = code.unwrap().lines().next().unwrap().to_owned();
    let (exit, said) = at_home(machine, home, &format!("berth --context lenas device approve {code} --yes"));
    assert!(exit == 0 && said.contains(" with berth/") && said.contains("comes in as lena"), "{said}");
    machine.ok("while systemctl is-active --quiet lamp; do sleep 0.2; done").unwrap();
    let (exit, said) = at_home(machine, lamp, "berth --context lamps whoami");
    assert_eq!((exit, said.as_str()), (0, "user:lena\n  role viewer\n"));
    let recorded = machine.ok("berth audit list --by user:lena").unwrap();
    assert!(recorded.contains("users/devicelogins/approve") && recorded.contains("/auth/device/token"), "{recorded}");
    machine.ok(&format!("berth user delete lena; berth role revoke viewer lena; rm -r {home} {lamp}")).unwrap();
}

#[test]
fn a_service_account_and_a_key_are_made_by_kubectl_and_berth_and_end_when_they_are_deleted() {
    let (_lock, machine) = shared();
    let kubectl = "kubectl --server https://localhost:6443 --certificate-authority /var/lib/berth/ca.crt";
    let owner = format!("{kubectl} --token $(cat /var/lib/berth/token)");
    machine.ok(&format!("{owner} create serviceaccount robot")).unwrap();
    let token = machine.ok(&format!("{owner} create token robot --duration 1h")).unwrap();
    let robot = format!("{kubectl} --token {}", token.trim());
    assert!(machine.ok(&format!("{robot} auth whoami")).unwrap().contains("system:serviceaccount:default:robot"));
    let refused = machine.sh(&format!("{robot} get bundles")).unwrap();
    assert!(refused.code() == 1 && refused.errors().contains("(Forbidden)"), "{}", refused.errors());
    machine.ok("berth role grant viewer default/robot --in default").unwrap();
    machine.ok(&format!("{robot} get bundles")).unwrap();
    assert!(machine.ok(&format!("{robot} auth can-i create bundles || true")).unwrap().starts_with("no"));
    machine
        .ok(&format!("{owner} delete serviceaccount robot; berth role revoke viewer default/robot --in default"))
        .unwrap();
    let gone = machine.sh(&format!("{robot} get bundles")).unwrap();
    assert!(gone.errors().contains("Unauthorized") || gone.errors().contains("logged in"), "{}", gone.errors());

    machine.ok("berth user create carol --role viewer").unwrap();
    let key = machine.ok("berth apikey create carol --name ci --expires-in 1h").unwrap();
    let carol = format!("{kubectl} --token {}", key.trim());
    machine.ok(&format!("{carol} get nodes")).unwrap();
    assert!(machine.ok("berth apikey list").unwrap().contains("carol.ci"));
    machine.ok("berth apikey delete carol.ci").unwrap();
    let gone = machine.sh(&format!("{carol} get nodes")).unwrap();
    assert_eq!(gone.code(), 1, "{}", gone.text());
    machine.ok("berth user delete carol; berth role revoke viewer carol").unwrap();
    let whole = machine.ok("berth audit verify").unwrap();
    assert!(whole.contains("are whole"), "{whole}");
}

#[test]
#[ignore = "long tier"]
fn a_machine_that_nobody_owns_is_claimed_with_the_code_on_its_console() {
    let (machine, _place) = own("claim");
    let issue = machine.ok("cat /run/issue.d/50-berth.issue").unwrap();
    let code = machine.ok("cat /run/berth/claim").unwrap();
    assert!(issue.contains(code.trim()), "{issue}");
    assert!(machine.ok("script --quiet --command 'agetty --show-issue' /dev/null").unwrap().contains(code.trim()));
    let claim = |user: &str| {
        format!(
            "printf 'correct horse battery' | berth {SERVER} claim --code {} --user {user} --password-file -",
            code.trim()
        )
    };
    assert_eq!(machine.ok(&claim("olivia")).unwrap(), "olivia owns the machine");
    assert_ne!(machine.sh(&claim("mallory")).unwrap().code(), 0);
    machine.ok("systemctl restart berthd").unwrap();
    assert_eq!(machine.ok("ls /run/issue.d /run/berth | grep -c 'berth.issue\\|^claim' || true").unwrap().trim(), "0");
    let (code, said) = as_alice(&machine, "mkdir -m 700 -p $HOME");
    assert_eq!(code, 0, "{said}");
    let login =
        format!("printf 'correct horse battery' | berth {SERVER} login --name box --user olivia --password-file -");
    let (code, said) = as_alice(&machine, &login);
    assert_eq!(code, 0, "{said}");
    let (code, said) = as_alice(&machine, "berth --context box user list");
    assert!(code == 0 && said.contains("olivia"), "{said}");
    let (code, said) = as_alice(&machine, "berth --context box user delete olivia");
    assert!(code == 4 && said.contains("make another user one first"), "{said}");
}

/// Reads what comes on port 6514 to the end of each connection, as a syslog server does, and keeps it.
const RECEIVER: &str = r#"
import socket
listener = socket.create_server(("127.0.0.1", 6514))
while True:
    stream, _ = listener.accept()
    with stream, open("/run/mirrored", "ab") as kept:
        while piece := stream.recv(65536):
            kept.write(piece)
"#;

#[test]
#[ignore = "long tier"]
fn audit_records_arrive_at_a_syslog_server_once_each_also_when_it_was_away_or_the_supervisor_was_replaced() {
    let (machine, _place) = own("mirror");
    machine.put("/run/receiver.py", RECEIVER.as_bytes(), 0o644).unwrap();
    let settings = "apiVersion: berth.dev/v1\nkind: Settings\nmetadata: {name: berth}\n\
                    spec: {audit: {mirror: {syslog: {server: '127.0.0.1:6514', transport: tcp}}}}\n";
    machine.put("/run/settings.yaml", settings.as_bytes(), 0o644).unwrap();
    machine.ok("berth apply -f /run/settings.yaml").unwrap();
    let events = || machine.ok("berth get events -A -o json").unwrap();
    eventually(&true, || events().contains("AuditMirrorFailed"));

    machine.ok("systemd-run --unit=receiver python3 /run/receiver.py").unwrap();
    machine.ok("berth configmap create first").unwrap();
    machine.ok("systemctl restart berthd && berth configmap create second").unwrap();
    let known = || {
        let exported = machine.ok("berth audit export").unwrap();
        exported.lines().map(|line| line.to_owned()).collect::<Vec<_>>()
    };
    let arrived = || {
        let text = machine.ok("cat /run/mirrored 2>/dev/null || true").unwrap();
        let lines = text.split(" berth - audit - ").skip(1);
        lines.filter_map(|line| Some(line[..=line.rfind('}')?].to_owned())).collect::<Vec<_>>()
    };
    eventually(&true, || arrived() == known());
    assert!(arrived().iter().any(|line| line.contains("second")));
}

/// A repository behind SSH that root may write to by a key, and a Secret with that key.
const REPOSITORY: &str = "
set -e
git init --quiet --bare --initial-branch=main /run/audit.git
mkdir -p -m 700 /root/.ssh /run/ssh
cd /run/ssh
dropbearkey -t ed25519 -f host >/dev/null
dropbearkey -t ed25519 -f own | grep '^ssh-' >/root/.ssh/authorized_keys
dropbearconvert dropbear openssh own own.pem
printf '127.0.0.1 %s\n' \"$(dropbearkey -y -f host | grep '^ssh-')\" >known_hosts
systemd-run --quiet --unit=git-server dropbear -F -E -s -p 127.0.0.1:2222 -r /run/ssh/host
berth secret create mirror --from-file ssh-privatekey=own.pem --from-file known_hosts=known_hosts
";

#[test]
#[ignore = "long tier"]
fn audit_records_arrive_as_signed_commits_over_ssh_and_at_a_server_with_another_key_none_do() {
    let parts = Parts::build(Flavor::Git).unwrap();
    let _place = Place::whole();
    let machine = parts.ready(&Plan { durable: true, ..plan("commits") }).unwrap();
    machine.ok(REPOSITORY).unwrap();
    let settings = "apiVersion: berth.dev/v1\nkind: Settings\nmetadata: {name: berth}\n\
                    spec: {audit: {mirror: {git: {url: 'ssh://root@127.0.0.1:2222/run/audit.git', \
                    secret: {namespace: default, name: mirror}}}}}\n";
    machine.put("/run/settings.yaml", settings.as_bytes(), 0o644).unwrap();
    machine.ok("berth apply -f /run/settings.yaml").unwrap();
    let git = |line: &str| machine.ok(&format!("git -C /run/audit.git {line}")).unwrap();
    let arrived =
        || git("ls-tree -r --name-only main 2>/dev/null | sed 's/^/main:/' | xargs -r git -C /run/audit.git show");
    let exported = || machine.ok("berth audit export").unwrap();
    eventually(&true, || arrived() == exported());

    machine.ok("berth configmap create second && systemctl restart berthd && berth configmap create third").unwrap();
    eventually(&true, || arrived() == exported());
    assert!(arrived().contains("third"));
    assert!(machine.ok("berth audit verify").unwrap().contains("\nsigned by ssh-ed25519 "));
    assert!(git("cat-file commit main").contains("-----BEGIN SSH SIGNATURE-----"));

    let pushed = git("rev-parse main");
    machine.ok("cd /run/ssh && dropbearkey -t ed25519 -f other >/dev/null && systemctl stop git-server").unwrap();
    machine
        .ok("systemd-run --quiet --unit=git-impostor dropbear -F -E -s -p 127.0.0.1:2222 -r /run/ssh/other")
        .unwrap();
    machine.ok("berth configmap create fourth").unwrap();
    let failure =
        "berth get events -A -o json | jq -r '.items[] | select(.reason == \"AuditMirrorFailed\") | .message'";
    eventually(&true, || machine.ok(failure).unwrap().contains("not in known_hosts"));
    assert_eq!(git("rev-parse main"), pushed);
}
