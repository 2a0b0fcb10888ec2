//! What must hold between keys: each rule says the key and what is wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_host::link;
use berth_model::field::FieldError;
use berth_model::kinds::{Request, SETTINGS};
use berth_model::resource::settings;
use serde_json::json;

use super::{Bundle, Config, Disk, HostAddress, InterfaceAddress, Network, Notify, Role, User, password};

/// A key and what is wrong with it.
type Said = (String, String);

/// The least that signs a report, in bytes.
const SHORTEST_SECRET: usize = 16;

/// Every rule that is broken.
pub(super) fn broken(config: &Config) -> Vec<Said> {
    let mut said = Vec::new();
    said.extend(config.disk.iter().flat_map(disk));
    said.extend(config.network.iter().flat_map(network));
    said.extend(users(&config.users));
    said.extend(config.bundles.iter().enumerate().flat_map(|(at, bundle)| bundle_rules(at, bundle)));
    said.extend(config.notify.iter().flat_map(notify));
    said.extend(settings_rules(config));
    said
}

/// What is allowed and better otherwise.
pub(super) fn warnings(config: &Config) -> Vec<Said> {
    let mut said = Vec::new();
    for (at, _) in config.users.iter().enumerate().filter(|(_, user)| user.password.is_some()) {
        let message = "whoever reads this file knows the password; give its Argon2id hash as `password-hash` instead";
        said.push((format!("users[{at}].password"), message.to_owned()));
    }
    if config.notify.as_ref().is_some_and(|notify| notify.url.as_str().starts_with("http://")) {
        let message = "the report goes over the network in the clear; use a URL that begins with `https://`";
        said.push(("notify.url".to_owned(), message.to_owned()));
    }
    said
}

fn rule(broken: bool, path: &str, message: &str) -> Option<Said> {
    broken.then(|| (path.to_owned(), message.to_owned()))
}

fn disk(disk: &Disk) -> Vec<Said> {
    let crossed = disk.min_size.zip(disk.max_size).is_some_and(|(least, most)| least > most);
    let rules = [
        rule(!disk.selects(), "disk", "says no disk; give `id`, `serial`, `bus`, `min-size` or `max-size`"),
        rule(crossed, "disk.max-size", "is less than `min-size`, so that no disk fits; exchange them or leave one out"),
    ];
    rules.into_iter().flatten().collect()
}

fn network(network: &Network) -> Vec<Said> {
    let named = network.interface.is_some() || network.mac.is_some();
    let both = network.interface.is_some() && network.mac.is_some();
    let fixed = !network.address.is_empty();
    let rules = [
        rule(both, "network.mac", "stands beside `interface`; leave one of the two out"),
        rule(fixed && !named, "network.address", "does not say of which interface; add `interface` or `mac`"),
        rule(
            !fixed && !network.gateway.is_empty(),
            "network.gateway",
            "has no use with DHCP; add `address` or leave it out",
        ),
        rule(
            network.vlan.is_some() && !named,
            "network.vlan",
            "does not say on which interface; add `interface` or `mac`",
        ),
    ];
    let mut said: Vec<Said> = rules.into_iter().flatten().collect();
    if fixed {
        let gateways: Vec<IpAddr> = network.gateway.iter().filter_map(HostAddress::address).collect();
        said.extend((0..gateways.len()).filter_map(|at| unreachable(network, &gateways[..=at])));
    }
    said
}

/// What is wrong with the last of some gateways.
fn unreachable(network: &Network, gateways: &[IpAddr]) -> Option<Said> {
    let (gateway, before) = gateways.split_last()?;
    let gateway = *gateway;
    let path = format!("network.gateway[{}]", before.len());
    if before.iter().any(|before| before.is_ipv4() == gateway.is_ipv4()) {
        return Some((path, "is the second of its kind; keep one gateway of IPv4 and one of IPv6".to_owned()));
    }
    let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
    let alone = link::Network::new(gateway, if gateway.is_ipv4() { 32 } else { 128 }).ok();
    let networks = network.address.iter().filter_map(InterfaceAddress::network);
    let near = alone.is_some_and(|alone| networks.into_iter().any(|network| network.overlaps(&alone)));
    let message =
        format!("{gateway} is in none of the networks of `address`; use one that the machine reaches directly");
    (!near && !link_local).then_some((path, message))
}

fn users(users: &[User]) -> Vec<Said> {
    let mut said = Vec::new();
    let mut seen = BTreeSet::new();
    for (at, user) in users.iter().enumerate() {
        let path = |key: &str| format!("users[{at}].{key}");
        if at == 0 && user.role != Role::Owner {
            said.push((
                path("role"),
                "the first user must be an owner; put one first, or make this one `owner`".to_owned(),
            ));
        }
        if !seen.insert(&user.name) {
            said.push((path("name"), format!("`{}` is there twice; give each user a name of his own", user.name)));
        }
        match (&user.password, &user.password_hash) {
            (Some(_), Some(_)) => {
                said.push((path("password"), "stands beside `password-hash`; leave it out".to_owned()))
            }
            (None, None) => said.push((format!("users[{at}]"), "has no way in; add `password-hash`".to_owned())),
            (Some(given), None) => {
                let weak = password::weakness(user.name.as_str(), given.reveal());
                said.extend(weak.map(|weak| (path("password"), weak)));
            }
            (None, Some(_)) => {}
        }
    }
    said
}

fn bundle_rules(at: usize, bundle: &Bundle) -> Option<Said> {
    match (&bundle.manifest, &bundle.file) {
        (Some(_), Some(_)) => {
            Some((format!("bundles[{at}].file"), "stands beside `manifest`; leave one of the two out".into()))
        }
        (None, None) => Some((format!("bundles[{at}]"), "says nothing to install; add `manifest` or `file`".into())),
        _ => None,
    }
}

fn notify(notify: &Notify) -> Option<Said> {
    let short = notify.secret.reveal().len() < SHORTEST_SECRET;
    rule(short, "notify.secret", "can be guessed; use 16 characters or more that are drawn at random")
}

/// What the API would say of the settings, in the words of the file.
fn settings_rules(config: &Config) -> Vec<Said> {
    let mut said = Vec::new();
    let table = config.settings.clone().unwrap_or_default();
    if config.updates.is_some() && table.contains_key("updates") {
        said.push(("settings.updates".to_owned(), "stands beside `[updates]`; say it in one of the two".to_owned()));
    }
    let object = json!({ "metadata": { "name": settings::NAME }, "spec": config.settings_patch() });
    let renamed = |field: &str| match field.strip_prefix("spec.") {
        Some(field) => renamed(config, field),
        None => "settings".to_owned(),
    };
    match SETTINGS.admit(object, &Request::Create) {
        Ok(admitted) => {
            let unknown = admitted
                .unknown
                .iter()
                .map(|field| (renamed(field), "is no field of Settings; leave it out".to_owned()));
            said.extend(unknown);
        }
        Err(errors) => {
            said.extend(errors.into_iter().map(|FieldError { field, message, .. }| (renamed(&field), message)));
        }
    }
    said
}

/// A field of Settings as the file has it: from `[updates]`, where that says it.
fn renamed(config: &Config, field: &str) -> String {
    match field.strip_prefix("updates.").filter(|_| config.updates.is_some()) {
        Some("healthTimeoutSeconds") => "updates.health-timeout-seconds".to_owned(),
        Some(key) => format!("updates.{key}"),
        None => format!("settings.{field}"),
    }
}
