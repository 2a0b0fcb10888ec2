//! Client certificates on a real machine, with the real programs over TLS.

use berth_tests::machine::Machine;

use super::disturbed;

const HOME: &str = "/run/certificates";
const TOKEN: &str =
    "berth --server https://localhost:6443 --ca /var/lib/berth/ca.crt --token-file /var/lib/berth/token";

/// A command of somebody whose home is another; code, and all that was said.
fn away(machine: &Machine, line: &str) -> (i32, String) {
    let out = machine.sh(&format!("export HOME={HOME} KUBECONFIG={HOME}/config; {line}")).unwrap();
    (out.code(), out.text() + &out.errors())
}

/// A command that turns the requirement on or off.
fn require(who: &str, required: bool) -> String {
    let spec = format!("{{api: {{requireClientCertificate: {required}}}}}");
    format!(
        "{who} apply -f - <<'END'\napiVersion: berth.dev/v1\nkind: Settings\nmetadata: {{name: berth}}\nspec: {spec}\nEND"
    )
}

#[test]
fn a_certificate_lets_berth_kubectl_and_openssl_in_until_it_is_revoked_and_nobody_else_where_it_is_required() {
    // For a while it lets in nobody without a certificate, so that no other test may be on it.
    let (_alone, machine) = disturbed();
    machine.ok(&format!("mkdir -m 700 -p {HOME}; berth user create cora --role admin")).unwrap();
    let (code, said) = away(
        machine,
        "berth ca cora --name box && berth token --qr --user cora --url https://localhost:6443 >$HOME/word",
    );
    assert!(code == 0 && said.contains("user:cora has a certificate") && said.contains("\u{2588}\u{2588}"), "{said}");
    let (code, said) = away(machine, "berth --context box whoami && kubectl --context box auth whoami");
    assert!(code == 0 && said.matches("user:cora").count() == 2, "{said}");
    let (code, said) =
        away(machine, "berth enrol --from $HOME/word --out $HOME/cora.pem && berth enrol --from $HOME/word --name x");
    assert!(code == 4 && said.contains("cora.pem is good for user:cora") && said.contains("it is good once"), "{said}");
    let curl = "curl -sS --cacert /var/lib/berth/ca.crt --cert $HOME/cora.pem https://localhost:6443/api/v1/nodes";
    let (code, said) = away(machine, curl);
    assert!(code == 0 && said.contains("\"NodeList\""), "{said}");

    let refused = machine.sh(&require(TOKEN, true)).unwrap();
    assert!(refused.code() == 4 && refused.errors().contains("you come without one"), "{}", refused.errors());
    // Nothing is asserted before the door is open again: others use this machine.
    let (turned_on, _) = away(machine, &require("berth --context box", true));
    let (lives, _) = away(machine, "curl -sSf --cacert /var/lib/berth/ca.crt https://localhost:6443/livez");
    let token = machine.sh(&format!("{TOKEN} get nodes")).unwrap();
    let holders = away(machine, "berth --context box get nodes && kubectl --context box get nodes");
    machine.ok(&require("berth", false)).unwrap();
    assert_eq!((turned_on, lives, holders.0, token.code()), (0, 0, 0, 4), "{} {}", holders.1, token.errors());
    assert!(token.errors().contains("nobody gets in here without a client certificate"), "{}", token.errors());
    machine.ok(&format!("{TOKEN} get nodes")).unwrap();

    let list = machine.ok("berth ca list").unwrap();
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("cora."))
        .collect();
    assert_eq!(names.len(), 2, "{list}");
    machine.ok(&format!("berth ca revoke {}", names.join(" "))).unwrap();
    let (code, said) = away(machine, "berth --context box get nodes");
    assert!(code == 4 && said.contains("was revoked"), "{code} {said}");
    let (code, said) = away(machine, "kubectl --context box get nodes");
    assert!(
        code != 0 && (said.contains("was revoked") || said.contains("Unauthorized") || said.contains("logged in")),
        "{said}"
    );
    let (_, said) = away(machine, curl);
    assert!(said.contains("was revoked") && said.contains("401"), "{said}");

    let recorded = machine.ok("berth audit list").unwrap();
    for deed in ["bootstrap:user:cora", "users/bootstraptokens cora", "settings berth"] {
        assert!(recorded.contains(deed), "{deed}: {recorded}");
    }
    let leaked = "journalctl --boot | grep -c 'berth_bootstrap_\\|PRIVATE KEY' || true";
    assert_eq!(machine.ok(leaked).unwrap().trim(), "0");
    machine.ok(&format!("berth user delete cora; berth role revoke admin cora; rm -r {HOME}")).unwrap();
}
