use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Value, json};

use super::*;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$\
                    1BVEj1jSsY5pEKDUY5pTqMIG8Ulg0q4RNM0aNQm2hIU";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alex@desk";

/// What is wrong with a file that says its version and this.
fn faults(text: &str) -> Vec<String> {
    let faults = Config::parse(&format!("version = 1\n{text}"), "berth.toml").err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

fn good(text: &str) -> Config {
    Config::parse(&format!("version = 1\n{text}"), "berth.toml").unwrap()
}

/// The only thing that is wrong.
fn fault(text: &str) -> String {
    let [fault] = faults(text).try_into().unwrap_or_else(|faults| panic!("{text}: {faults:#?}"));
    fault
}

#[test]
fn a_file_that_says_only_its_version_leaves_all_as_it_comes() {
    let config = good("");
    assert_eq!(config, Config::new());
    assert_eq!((config.profile(), config.action()), (Profile::Solo, Action::Reboot));
    assert_eq!(config.settings_patch(), json!({}));
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_one_that_was_probably_meant() {
    assert_eq!(
        fault("[disk]\nid = '/dev/disk/by-id/x'\n  eraze = true"),
        "berth.toml:4:3: disk.eraze: is not known; did you mean `erase`?"
    );
    let far = fault("[ssh]\nfoo = 1");
    assert_eq!(far, "berth.toml:3:1: ssh.foo: is not known; use `keys`");
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = "hostname = 'My_Host'\nprofile = 'sole'\n[disk]\nserial = 5\nmin-size = 'x'\n\
                [network]\naddress = ['192.0.2.5/24', 'nope']\nvlan = 5000\n[encryption]\nunlock = true\n\
                [[users]]\nname = 'alex'\nrole = 'boss'\n[[users]]\nnam = 'sam'\n";
    let starts = faults(text)
        .iter()
        .map(|fault| fault.splitn(5, ": ").take(2).collect::<Vec<_>>().join(": "))
        .collect::<Vec<_>>();
    let expected = [
        "berth.toml:2:12: hostname",
        "berth.toml:3:11: profile",
        "berth.toml:5:10: disk.serial",
        "berth.toml:6:12: disk.min-size",
        "berth.toml:8:28: network.address[1]",
        "berth.toml:9:8: network.vlan",
        "berth.toml:11:10: encryption.unlock",
        "berth.toml:14:8: users[0].role",
        "berth.toml:15:1: users[1].name",
        "berth.toml:15:1: users[1].role",
        "berth.toml:16:1: users[1].nam",
    ];
    assert_eq!(starts, expected);
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    assert_eq!(faults("a = \n[b\n").len(), 2);
    assert!(
        fault("hostname = attic").starts_with("berth.toml:2:12: this is no TOML: "),
        "{}",
        fault("hostname = attic")
    );
}

#[test]
fn the_version_must_be_said_and_be_known() {
    let told = |text: &str| Config::parse(text, "berth.toml").unwrap_err()[0].to_string();
    assert_eq!(told(""), "berth.toml:1:1: version: is missing; write 1");
    assert!(told("version = 2").contains("write `version = 1`"));
}

#[test]
fn a_value_of_the_wrong_kind_is_told_without_repeating_it() {
    let wrong = [("hostname = 5", "is a number; write text in quotes"), ("disk = 5", "is a number; write a table")];
    for (text, told) in wrong {
        assert!(fault(text).ends_with(told), "{}", fault(text));
    }
    let secret = fault("[[users]]\nname = 'alex'\nrole = 'owner'\npassword = 424242");
    assert!(!secret.contains("424242"), "{secret}");
    let secret = fault("[[users]]\nname = 'alex'\nrole = 'owner'\npassword-hash = 'hunter2hunter2'");
    assert!(secret.contains("PHC") && !secret.contains("hunter2"), "{secret}");
}

#[test]
fn each_value_is_looked_at_and_said_what_would_be_right() {
    let wrong = [
        ("timezone = 'Europe/Berln'", "did you mean `Europe/Berlin`?"),
        ("keyboard = '../de'", "use one like `de`"),
        ("[disk]\nid = '/dev/sda'", "/dev/disk/by-id"),
        ("[disk]\nserial = ''", "is empty"),
        ("[disk]\nbus = 'nvm'", "did you mean `nvme`?"),
        ("[disk]\nmin-size = 0", "no size of a disk"),
        ("[network]\nmac = '52:54:00'", "six pairs"),
        ("[network]\ninterface = 'en p'", "no name of an interface"),
        ("[network]\nmac = '52:54:00:12:34:56'\naddress = ['127.0.0.1/8']", "cannot be an interface's own"),
        ("[network]\nvlan = 0", "use 1 to 4094"),
        ("[network]\ndns = ['nope']", "no IP address"),
        ("[ssh]\nkeys = ['ssh-ed25519 AAAA']", "one line of a `.pub` file"),
        ("[updates]\nsource = '/srv'", "no URL"),
        ("[updates]\nchannel = '../x'", "not a DNS label"),
        ("[updates]\nhealth-timeout-seconds = 5", "use 30 to 3600"),
        ("[notify]\nurl = 'https://a:b@example.org'\nsecret = '0123456789abcdef'", "use one without"),
        ("[notify]\nurl = 'https://example.org'\nsecret = 'short'", "16 characters"),
        ("[[bundles]]\nfile = '../web.yaml'", "same folder"),
        ("[[bundles]]\nnamespace = 'A'\nfile = 'web.yaml'", "not a DNS label"),
        ("[after]\naction = 'halt'", "`reboot` or `poweroff`"),
    ];
    for (text, told) in wrong {
        assert!(fault(text).contains(told), "{text}: {}", fault(text));
    }
}

#[test]
fn a_disk_must_be_selected_and_its_sizes_leave_room() {
    assert!(fault("[disk]\nerase = true").contains("berth.toml:2:1: disk: says no disk"));
    assert!(fault("[disk]\nmin-size = '2T'\nmax-size = '1T'").contains("disk.max-size: is less than `min-size`"));
    let disk = good("[disk]\nmin-size = '100G'\nmax-size = 2_000_000_000_000").disk.unwrap();
    assert_eq!(disk.min_size.map(Size::bytes), Some(100_000_000_000));
    assert_eq!(disk.max_size.map(Size::bytes), Some(2_000_000_000_000));
}

#[test]
fn addresses_need_an_interface_and_a_gateway_that_is_near() {
    let with = |more: &str| {
        faults(&format!("[network]\ninterface = 'enp*'\naddress = ['192.0.2.5/24', '2001:db8::5/64']\n{more}"))
    };
    assert_eq!(with("gateway = ['192.0.2.1', 'fe80::1']\ndns = ['198.51.100.1']\nvlan = 12"), [""; 0]);
    assert!(
        with("gateway = ['198.51.100.1']")[0].contains("network.gateway[0]: 198.51.100.1 is in none of the networks")
    );
    assert!(with("gateway = ['192.0.2.1', '192.0.2.2']")[0].contains("second of its kind"));
    assert!(with("mac = '52:54:00:12:34:56'")[0].contains("stands beside `interface`"));
    assert!(fault("[network]\naddress = ['192.0.2.5/24']").contains("of which interface"));
    assert!(fault("[network]\ngateway = ['192.0.2.1']").contains("no use with DHCP"));
    assert!(fault("[network]\nvlan = 5").contains("on which interface"));
}

#[test]
fn the_first_user_is_an_owner_and_each_has_one_way_in() {
    let user = |name: &str, role: &str, way: &str| format!("[[users]]\nname = '{name}'\nrole = '{role}'\n{way}\n");
    let hash = format!("password-hash = '{HASH}'");
    let owner = user("alex", "owner", &hash);
    assert_eq!(good(&(owner.clone() + &user("sam", "viewer", &hash))).users.len(), 2);
    assert!(fault(&user("alex", "admin", &hash)).contains("users[0].role: the first user must be an owner"));
    assert!(fault(&(owner.clone() + &owner)).contains("users[1].name: `alex` is there twice"));
    assert!(fault(&user("alex", "owner", "")).contains("users[0]: has no way in"));
    assert!(fault(&user("alex", "owner", "password = 'short'")).contains("users[0].password: is too short"));
    let both = format!("{hash}\npassword = 'correct horse battery'");
    assert!(fault(&user("alex", "owner", &both)).contains("users[0].password: stands beside `password-hash`"));
    assert!(fault(&user("Al ex", "owner", &hash)).contains("users[0].name: `Al ex` is not"));
}

#[test]
fn a_hash_that_takes_too_much_memory_to_check_or_is_of_another_kind_is_refused() {
    let told = |hash: &str| fault(&format!("[[users]]\nname = 'alex'\nrole = 'owner'\npassword-hash = '{hash}'"));
    assert!(told(&HASH.replace("m=19456", "m=4194304")).contains("more than 1 GiB"));
    assert!(told(&HASH.replace("argon2id", "argon2i")).contains("no Argon2id hash"));
    assert!(told(HASH.rsplit_once('$').unwrap().0).contains("no Argon2id hash"));
}

#[test]
fn a_bundle_comes_from_a_manifest_or_a_file() {
    assert!(fault("[[bundles]]").contains("bundles[0]: says nothing to install"));
    assert!(fault("[[bundles]]\nmanifest = 'a'\nfile = 'b'").contains("bundles[0].file: stands beside"));
    let bundles = good("[[bundles]]\nfile = 'web.yaml'\n[[bundles]]\nnamespace = 'team'\nmanifest = 'a'").bundles;
    assert_eq!(bundles.iter().map(|bundle| bundle.namespace.as_str()).collect::<Vec<_>>(), ["default", "team"]);
}

#[test]
fn settings_are_checked_as_the_api_would_and_told_in_the_words_of_the_file() {
    assert!(fault("[settings.network]\nnosuch = 1").contains("settings.network.nosuch: is no field"));
    assert!(
        fault("[settings.network]\nopenNamespaces = ['A']")
            .contains("berth.toml:3:19: settings.network.openNamespaces[0]")
    );
    assert!(fault("[settings.operations]\nparallel = 0").contains("settings.operations.parallel: use 1 to 256"));
    let both = fault("[updates]\nchannel = 'testing'\n[settings.updates]\nchannel = 'stable'");
    assert!(both.contains("settings.updates: stands beside `[updates]`"), "{both}");
}

#[test]
fn settings_go_over_updates_and_updates_over_the_profile() {
    let config = good("profile = 'minimal'\n[updates]\nchannel = 'testing'\n[settings.cleanup]\neventDays = 5");
    let patch = config.settings_patch();
    assert_eq!(patch["cleanup"]["eventDays"], 5);
    assert_eq!(patch["updates"], json!({"channel": "testing"}));
    assert_eq!(patch["cleanup"]["unusedImageDays"], 1);
}

#[test]
fn every_profile_sets_what_the_api_accepts() {
    use clap::ValueEnum;
    for profile in Profile::value_variants() {
        assert_eq!(good(&format!("profile = '{}'", profile.word())).profile(), *profile);
    }
    let least: Vec<u32> = Profile::value_variants().iter().map(|profile| profile.minimum().cpus).collect();
    assert_eq!(least, [1, 2, 4, 8, 16]);
    assert_eq!(Profile::Enterprise.minimum().memory, 32 << 30);
}

#[test]
fn a_password_in_the_clear_is_warned_of_at_its_place() {
    let text = "version = 1\n[[users]]\nname = 'alex'\nrole = 'owner'\npassword = 'correct horse battery'\n";
    let warnings = Config::parse(text, "berth.toml").unwrap().warnings(text, "berth.toml");
    assert_eq!((warnings.len(), warnings[0].line, warnings[0].column), (1, Some(5), Some(12)));
    assert!(!warnings[0].to_string().contains("horse"));
}

#[test]
fn secrets_are_neither_in_what_is_shown_nor_in_what_is_logged() {
    let config = good(&format!(
        "[[users]]\nname = 'alex'\nrole = 'owner'\npassword-hash = '{HASH}'\n\
         [[users]]\nname = 'sam'\nrole = 'viewer'\npassword = 'correct horse battery'\n\
         [notify]\nurl = 'https://example.org/'\nsecret = '0123456789abcdef'\n"
    ));
    let shown = config.hidden().to_toml().unwrap();
    for text in [format!("{config:?}"), shown.to_string()] {
        assert_eq!(text.matches(HIDDEN).count(), 3, "{text}");
        assert!(!text.contains("horse") && !text.contains("argon2id") && !text.contains("012345"), "{text}");
    }
}

fn text(pattern: &str) -> impl Strategy<Value = String> + use<> {
    string_regex(pattern).unwrap()
}

fn parsed<T: std::str::FromStr<Err = String> + std::fmt::Debug>(pattern: &str) -> impl Strategy<Value = T> + use<T> {
    text(pattern).prop_map(|text| text.parse().unwrap())
}

fn any_disk() -> impl Strategy<Value = Disk> {
    let id = prop::option::of(parsed("/dev/disk/by-id/[a-zA-Z0-9_.-]{3,20}"));
    let sizes = (prop::option::of(1..1_u64 << 40), prop::option::of((1_u64 << 40)..1 << 60));
    (id, text("[^\0]{1,12}"), prop::option::of(any_bus()), sizes, any::<bool>()).prop_map(
        |(id, serial, bus, sizes, erase)| Disk {
            id,
            serial: Some(serial),
            bus,
            min_size: sizes.0.map(|size| Size::try_from(size).unwrap()),
            max_size: sizes.1.map(|size| Size::try_from(size).unwrap()),
            erase,
        },
    )
}

fn any_bus() -> impl Strategy<Value = Bus> {
    prop_oneof![Just(Bus::Nvme), Just(Bus::Sata), Just(Bus::Usb), Just(Bus::Virtio), Just(Bus::Scsi), Just(Bus::Mmc)]
}

fn any_network() -> impl Strategy<Value = Network> {
    let fixed =
        (parsed("enp[0-9]{1,2}s[0-9]"), any::<u8>(), prop::option::of(1..4095_i64)).prop_map(|(name, host, vlan)| {
            Network {
                interface: Some(name),
                mac: None,
                address: vec![format!("192.0.2.{host}/24").parse().unwrap()],
                gateway: vec!["192.0.2.1".parse().unwrap()],
                dns: vec!["2001:db8::53".parse().unwrap()],
                vlan: vlan.map(|number| Vlan::try_from(number).unwrap()),
            }
        });
    let dhcp = parsed("[0-9a-f]{2}(:[0-9A-F]{2}){5}").prop_map(|mac| Network { mac: Some(mac), ..Network::default() });
    prop_oneof![fixed, dhcp, Just(Network::default())]
}

fn any_users() -> impl Strategy<Value = Vec<User>> {
    let user = |role| {
        let way = prop_oneof![Just(None), text("[a-z\"'\\\\ \n]{3}[A-Z0-9$ü]{10,20}").prop_map(Some)];
        (text("[a-z]{3,8}"), way).prop_map(move |(name, password)| User {
            name: name.parse().unwrap(),
            role,
            password_hash: password.is_none().then(|| PasswordHash::try_from(HASH.to_owned()).unwrap()),
            password: password.map(Secret::from),
        })
    };
    let some = (user(Role::Owner), prop::collection::vec(user(Role::Auditor), 0..3));
    some.prop_map(|(owner, others)| {
        let mut users = vec![owner];
        for other in others {
            if users.iter().all(|user| user.name != other.name) {
                users.push(other);
            }
        }
        users
    })
}

fn any_bundle() -> impl Strategy<Value = Bundle> {
    let manifest = text("[^\0\r\u{feff}]{1,40}").prop_map(|manifest| (Some(manifest), None));
    let file = parsed("[a-z]{1,8}\\.yaml").prop_map(|file| (None, Some(file)));
    let namespace = prop_oneof![Just(NamespaceName::default()), parsed("[a-z]([a-z0-9-]{0,9}[a-z0-9])?")];
    (namespace, prop_oneof![manifest, file]).prop_map(|(namespace, (manifest, file))| Bundle {
        namespace,
        manifest,
        file,
    })
}

prop_compose! {
    fn any_config()(
        hostname in prop::option::of(parsed("[a-z]([a-z0-9-]{0,9}[a-z0-9])?")),
        timezone in prop::option::of(prop_oneof![Just("UTC"), Just("Europe/Berlin")]),
        profile in prop::option::of(prop_oneof![Just(Profile::Minimal), Just(Profile::MultiUser)]),
        disk in prop::option::of(any_disk()),
        network in prop::option::of(any_network()),
        unlock in prop::option::of(prop::option::of(prop_oneof![Just(Unlock::Tpm), Just(Unlock::RecoveryCode)])),
        ssh in prop::option::of(0..3_usize),
        parallel in prop::option::of(1..256_i64),
        updates in prop::option::of(30..3600_u32),
        secret in prop::option::of(text("[^\0]{16,30}")),
        action in prop::option::of(prop_oneof![Just(Action::Reboot), Just(Action::Poweroff)]),
        users in prop_oneof![Just(Vec::new()), any_users().boxed()],
        bundles in prop::collection::vec(any_bundle(), 0..3),
    ) -> Config {
        Config {
            version: Version,
            hostname,
            timezone: timezone.map(|name| name.parse().unwrap()),
            keyboard: None,
            profile,
            disk,
            network,
            encryption: unlock.map(|unlock| Encryption { unlock }),
            ssh: ssh.map(|keys| Ssh { keys: vec![KEY.parse().unwrap(); keys] }),
            settings: parallel.map(|parallel| toml::toml! { [operations] parallel = parallel }).map(|mut table| {
                table["operations"]["parallel"] = parallel.unwrap_or(1).into();
                table
            }),
            updates: updates.map(|seconds| Updates { health_timeout_seconds: Some(seconds), ..Updates::default() }),
            notify: secret.map(|secret| Notify { url: "https://example.org/x".parse().unwrap(), secret: secret.into() }),
            after: action.map(|action| After { action }),
            users,
            bundles,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(config in any_config()) {
        let text = config.to_toml().unwrap();
        prop_assert_eq!(Config::parse(&text, "berth.toml"), Ok(config), "{}", *text);
    }

    #[test]
    fn whatever_the_text_is_it_is_read_or_told_what_is_wrong(text in "[a-z=\\[\\]\"'.\n 0-9{},é-]{0,60}") {
        if let Err(faults) = Config::parse(&text, "berth.toml") {
            prop_assert!(!faults.is_empty());
        }
    }
}

/// Every key of the schema, as the file has it: `disk.min-size`, `users.name`.
fn keys(schema: &Value, path: &str) -> Vec<String> {
    let items = if schema["items"].is_object() { &schema["items"] } else { schema };
    let properties = items["properties"].as_object().into_iter().flatten();
    properties
        .flat_map(|(key, schema)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let inner = keys(schema, &path);
            if inner.is_empty() { vec![path] } else { inner }
        })
        .collect()
}

#[test]
fn every_key_has_a_description_and_is_on_the_page_and_the_page_names_no_other() {
    let page = include_str!("../../../docs/berth-toml.md");
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let rows: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key)).collect();
    assert_eq!(rows, keys(&schema, ""));
    fn described(schema: &Value, path: &str) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            assert!(schema["description"].is_string(), "{path}.{key}");
            described(if schema["items"].is_object() { &schema["items"] } else { schema }, key);
        }
    }
    described(&schema, "");
}

#[test]
fn the_examples_on_the_page_can_be_used() {
    let page = include_str!("../../../docs/berth-toml.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let config = Config::parse(example, "berth.toml").unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert!(config.warnings(example, "berth.toml").is_empty());
    }
}
