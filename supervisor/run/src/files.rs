//! The three small files that every container is given: host name, hosts, resolv.conf.

use std::fmt::Write as _;

use berth_model::plan::Plan;

/// Names below `/etc`, and contents.
pub fn render(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut files = vec![("hostname", format!("{}\n", plan.hostname)), ("hosts", hosts(plan))];
    if let Some(text) = resolv_conf(plan) {
        files.push(("resolv.conf", text));
    }
    files
}

fn hosts(plan: &Plan) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let addresses = plan.network.iter().flat_map(|network| &network.addresses);
    let mut named = false;
    for address in addresses {
        named = true;
        push_line(&mut text, &address.address.to_string(), &plan.hostname);
    }
    if !named {
        push_line(&mut text, "127.0.1.1", &plan.hostname);
    }
    text
}

fn push_line(text: &mut String, address: &str, name: &str) {
    // Writing to a string cannot fail.
    let _: Result<(), std::fmt::Error> = writeln!(text, "{address}\t{name}");
}

fn resolv_conf(plan: &Plan) -> Option<String> {
    let servers = &plan.network.as_ref()?.nameservers;
    (!servers.is_empty()).then(|| servers.iter().map(|server| format!("nameserver {server}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;

    #[test]
    fn every_address_gets_the_host_name() {
        let files = render(&plan());
        assert_eq!(
            files,
            vec![
                ("hostname", "web\n".to_owned()),
                (
                    "hosts",
                    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                     10.213.0.5\tweb\nfd00:213::5\tweb\n"
                        .to_owned()
                ),
                ("resolv.conf", "nameserver 10.213.0.1\n".to_owned()),
            ]
        );
    }

    #[test]
    fn without_a_network_the_host_name_is_a_loopback_address_and_the_image_keeps_its_resolv_conf() {
        let mut plan = plan();
        plan.network = None;
        let files = render(&plan);
        assert_eq!(files.len(), 2);
        assert!(files[1].1.ends_with("127.0.1.1\tweb\n"));
    }
}
