use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::config::{Action, Bus, PasswordHash, Role, Size, Unlock};
use crate::findings::{Finding, Level};
use crate::seam::{Disk, Outcome, Progress};

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$\
                    1BVEj1jSsY5pEKDUY5pTqMIG8Ulg0q4RNM0aNQm2hIU";
const CODE: &str = "dlhbktjr-ghfdcvnj-kebtulih-cdefghij-klnrtuvb-icndthgb-fkrlvjdu-tbcegikn";
const PASSWORD: &str = "correct horse battery";
const RICH: Look = Look { unicode: true, colours: true };
const SERIAL_CONSOLE: Look = Look { unicode: false, colours: false };

/// Somebody before the screen: presses keys, and sees what there is.
struct Person {
    state: State,
    effects: Vec<Effect>,
}

impl Person {
    fn before(look: Look) -> Self {
        let (state, effects) = State::new(look);
        Self { state, effects }
    }

    fn happens(mut self, event: Event) -> Self {
        (self.state, self.effects) = update(self.state, event);
        self
    }

    fn presses(self, code: KeyCode) -> Self {
        self.happens(Event::Key(KeyEvent::from(code)))
    }

    fn enters(self) -> Self {
        self.presses(KeyCode::Enter)
    }

    fn types(self, text: &str) -> Self {
        text.chars().fold(self, |person, sign| person.presses(KeyCode::Char(sign)))
    }

    fn clears(self) -> Self {
        self.with_control('u')
    }

    fn with_control(self, sign: char) -> Self {
        self.happens(Event::Key(KeyEvent::new(KeyCode::Char(sign), KeyModifiers::CONTROL)))
    }

    fn found(self) -> Self {
        self.happens(Event::Findings(findings(Level::Warn))).happens(Event::Disks(disks()))
    }

    fn at_hardware(self) -> Self {
        self.found().enters().clears().types("attic").enters().clears().types("Europe/Berlin").enters().enters()
    }

    fn at_disks(self) -> Self {
        self.at_hardware().enters()
    }

    fn at_network(self) -> Self {
        self.at_disks().presses(KeyCode::Down).enters().types("S1-4242").enters()
    }

    fn at_account(self) -> Self {
        self.at_network().enters()
    }

    fn with_account(self) -> Self {
        self.at_account().enters().types("alex").enters().types(PASSWORD).enters().types(PASSWORD)
    }

    fn at_review(self) -> Self {
        self.with_account().enters().happens(Event::Hashed(Ok(PasswordHash::try_from(HASH.to_owned()).unwrap())))
    }

    fn at_progress(self) -> Self {
        self.at_review().enters()
    }

    fn at_code(self) -> Self {
        let claim = Some("QRST-4711-UVWX".to_owned());
        let url = "https://attic.local:6443".to_owned();
        self.at_progress().hears(Progress::Finished(Outcome { recovery_code: CODE.to_owned(), url, claim }))
    }

    fn hears(self, progress: Progress) -> Self {
        self.happens(Event::Progress(progress))
    }

    fn sees(&self, columns: u16, lines: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| view(&self.state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(usize::from(columns));
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    fn screen(&self) -> Screen {
        self.state.screen
    }

    #[track_caller]
    fn is_told(&self, what: &str) {
        let seen = self.sees(80, 24);
        let text = seen.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(what), "{what} is not in\n{seen}");
    }
}

fn findings(level: Level) -> Vec<Finding> {
    let finding = |name, level, meaning: &str, action: Option<&str>| Finding {
        name,
        level,
        meaning: meaning.to_owned(),
        action: action.map(str::to_owned),
    };
    vec![
        finding("rights", Level::Ok, "running as root", None),
        finding("architecture", Level::Ok, "x86_64", None),
        finding(
            "memory",
            level,
            "1.9 GiB of memory: enough for a few small services",
            Some("add memory for more than a few services"),
        ),
        finding("packet filter", Level::Ok, "rules, maps and address translation work", None),
    ]
}

fn disks() -> Vec<Disk> {
    let disk = |name: &str, serial: Option<&str>, content: Option<&str>| Disk {
        path: PathBuf::from(format!("/dev/{name}")),
        ids: serial.map(|serial| PathBuf::from(format!("/dev/disk/by-id/virtio-{serial}"))).into_iter().collect(),
        serial: serial.map(str::to_owned),
        model: None,
        bus: Some(Bus::Virtio),
        bytes: 64 << 30,
        removable: false,
        boots_this: false,
        content: content.map(str::to_owned),
        unfinished: false,
        installed: None,
    };
    let medium = Disk {
        boots_this: true,
        removable: true,
        bus: Some(Bus::Usb),
        ..disk("sda", Some("STICK"), Some("vfat, 4 partitions"))
    };
    vec![medium, disk("vda", Some("S1-4242"), Some("ext4, 3 partitions")), disk("vdb", None, None)]
}

/// Compares with `golden/<name>.txt`; with `BERTH_BLESS` set, writes it instead.
fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"));
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs; if that is meant: BERTH_BLESS=1 cargo test -p berth-installer\n{text}",
        path.display()
    );
}

/// A way to a screen from the first.
type Way = fn(Person) -> Person;

#[test]
fn every_screen_looks_as_it_did_in_every_size_and_without_unicode() {
    let screens: [(&str, Way); 13] = [
        ("1-welcome", |person| person),
        ("2-hardware", Person::at_hardware),
        ("3-disk", Person::at_disks),
        ("3-disk-confirm", |person| person.at_disks().presses(KeyCode::Down).enters().types("S1")),
        ("4-network", Person::at_network),
        ("4-network-fixed", |person| {
            let fixed = person.at_network().presses(KeyCode::Right).enters().enters().types("192.0.2.5/24").enters();
            fixed.types("198.51.100.1")
        }),
        ("5-account", |person| person.at_account().enters().types("alex").enters().types("short")),
        ("6-review", Person::at_review),
        ("7-progress", |person| {
            let copying = Phase::ALL[..2].iter().fold(person.at_progress(), |person, phase| {
                person.hears(Progress::Began(*phase)).hears(Progress::Ended(*phase))
            });
            copying.hears(Progress::Began(Phase::System)).hears(Progress::Part {
                phase: Phase::System,
                done: 1,
                total: 3,
            })
        }),
        ("7-failed", failed),
        ("7-recovery-code", |person| person.at_code().types("wrong")),
        ("7-result", |person| person.at_code().types("tbcegikn").enters()),
        ("leave", |person| person.at_network().with_control('c')),
    ];
    for (name, way) in screens {
        golden(name, &way(Person::before(RICH)).sees(80, 24));
        golden(&format!("{name}-small"), &way(Person::before(RICH)).sees(60, 20));
        let plain = way(Person::before(SERIAL_CONSOLE)).sees(60, 20);
        assert!(plain.is_ascii(), "{name}:\n{plain}");
        golden(&format!("{name}-plain"), &plain);
    }
}

fn failed(person: Person) -> Person {
    person.at_progress().hears(Progress::Began(Phase::Check)).hears(Progress::Failed {
        phase: Phase::Check,
        what: "The disk is gone.".to_owned(),
        remedy: "Connect it again, and go back to try again.".to_owned(),
    })
}

#[test]
fn a_terminal_that_is_too_small_is_told_how_large_it_must_be() {
    assert!(Person::before(RICH).sees(59, 20).contains("60x20 at least"));
    assert!(Person::before(RICH).sees(60, 19).contains("60x20 at least"));
    assert!(Person::before(RICH).sees(200, 60).contains("Hostname"));
    assert!(Person::before(RICH).sees(1, 1).len() < 9);
}

#[test]
fn the_machine_is_looked_at_while_the_first_screen_is_shown() {
    assert_eq!(Person::before(RICH).effects, [Effect::Look, Effect::FindDisks]);
}

#[test]
fn the_whole_way_ends_in_what_was_said_on_each_screen() {
    let person = Person::before(RICH).at_review();
    assert_eq!(person.screen(), Screen::Review);
    let config = person.state.config();
    let text = config.to_toml().unwrap();
    assert_eq!(Config::parse(&text, "berth.toml").as_ref(), Ok(&config));
    assert_eq!(config.hostname.as_ref().map(|name| name.as_str()), Some("attic"));
    assert_eq!(config.timezone.as_ref().map(|name| name.as_str()), Some("Europe/Berlin"));
    let disk = config.disk.as_ref().unwrap();
    assert_eq!((disk.serial.as_deref(), disk.erase, disk.bus), (Some("S1-4242"), true, Some(Bus::Virtio)));
    assert_eq!((config.users[0].name.as_str(), config.users[0].role), ("alex", Role::Owner));
    assert_eq!(person.enters().effects, [Effect::Install(Box::new(config))]);
}

#[test]
fn leaving_the_first_screen_uses_the_keyboard_that_was_chosen() {
    let person = Person::before(RICH)
        .found()
        .presses(KeyCode::Right)
        .presses(KeyCode::Right)
        .enters()
        .enters()
        .enters()
        .enters();
    assert_eq!(person.effects, [Effect::UseKeyboard("de".parse().unwrap())]);
}

#[test]
fn a_name_or_a_timezone_that_is_none_keeps_one_on_the_first_screen() {
    let person = Person::before(RICH).found().enters().clears().types("My Host").enters().enters().enters();
    assert_eq!(person.screen(), Screen::Welcome);
    person.is_told("is not a DNS label");
    let person = Person::before(RICH).enters().enters().clears().types("Europe/Berln").enters().enters();
    person.is_told("did you mean `Europe/Berlin`?");
}

#[test]
fn a_machine_that_cannot_hold_berth_is_not_installed_and_may_be_looked_at_again() {
    let person = Person::before(RICH).at_hardware().happens(Event::Findings(findings(Level::Fail))).enters();
    assert_eq!(person.screen(), Screen::Hardware);
    person.is_told("cannot hold Berth before");
    assert_eq!(person.types("r").effects, [Effect::Look]);
    let early = Person::before(RICH).enters().enters().enters().enters().enters();
    early.is_told("still being looked at");
}

#[test]
fn a_disk_is_taken_only_when_its_name_or_serial_number_is_typed() {
    let chosen = || Person::before(RICH).at_disks().presses(KeyCode::Down).enters();
    chosen().is_told("ALL THAT IS ON IT WILL BE DESTROYED: ext4, 3 partitions.");
    for wrong in ["", "vdb", "S1-424", "yes"] {
        let person = chosen().types(wrong).enters();
        assert_eq!(person.screen(), Screen::Target, "{wrong}");
        person.is_told("Type its serial number S1-4242, or its name vda");
    }
    for right in ["S1-4242", "vda", "/dev/vda"] {
        assert_eq!(chosen().types(right).enters().screen(), Screen::Network, "{right}");
    }
}

#[test]
fn what_was_typed_for_one_disk_does_not_hold_for_another() {
    let back = Person::before(RICH).at_disks().presses(KeyCode::Down).enters().types("vda").presses(KeyCode::Esc);
    let other = back.presses(KeyCode::Down).enters().enters();
    assert_eq!(other.screen(), Screen::Target);
    let same = Person::before(RICH).at_disks().presses(KeyCode::Down).enters().types("vda").presses(KeyCode::Esc);
    assert_eq!(same.enters().enters().screen(), Screen::Target);
    let found_again = Person::before(RICH).at_network().presses(KeyCode::Esc).happens(Event::Disks(disks()));
    assert_eq!(found_again.enters().screen(), Screen::Target);
}

#[test]
fn the_disk_that_this_system_runs_from_cannot_be_chosen() {
    let person = Person::before(RICH).at_disks().enters();
    assert_eq!(person.screen(), Screen::Target);
    person.is_told("This system runs from that disk");
    Person::before(RICH).at_disks().happens(Event::Disks(Vec::new())).enters().is_told("There is no disk");
}

#[test]
fn a_blank_disk_without_a_serial_number_is_known_by_its_bus_and_size_and_not_erased() {
    let person =
        Person::before(RICH).at_disks().presses(KeyCode::Down).presses(KeyCode::Down).enters().types("vdb").enters();
    let disk = person.state.config().disk.unwrap();
    assert_eq!((disk.id, disk.serial, disk.erase), (None, None, false));
    assert_eq!(disk.min_size.map(Size::bytes), Some(64 << 30));
    assert_eq!(disk.max_size, disk.min_size);
}

#[test]
fn fixed_addresses_are_checked_as_they_are_typed() {
    let fixed = |address: &str, gateway: &str| {
        let person =
            Person::before(RICH).at_network().presses(KeyCode::Right).enters().enters().types(address).enters();
        person.types(gateway).enters()
    };
    fixed("192.0.2.5", "").is_told("no address with the length of its prefix");
    fixed("192.0.2.5/24", "198.51.100.1").is_told("is in none of the networks");
    fixed("", "").is_told("write e.g. 192.0.2.5/24");
    let wrong = fixed("192.0.2.5", "").enters();
    assert_eq!(wrong.screen(), Screen::Network);
    let right = fixed("192.0.2.5/24, 2001:db8::5/64", "192.0.2.1").types("192.0.2.1").enters();
    assert_eq!(right.screen(), Screen::Account);
    assert_eq!(right.state.config().network.unwrap().address.len(), 2);
}

#[test]
fn a_password_must_be_strong_and_be_typed_the_same_twice() {
    let typed = |password: &str, again: &str| {
        let person =
            Person::before(RICH).at_account().enters().types("alex").enters().types(password).enters().types(again);
        person.enters()
    };
    typed("short", "short").is_told("use 10 characters or more");
    typed("alex-is-the-best", "alex-is-the-best").is_told("nobody guesses");
    typed(PASSWORD, "correct horse batter").is_told("is not the same as above");
    let right = typed(PASSWORD, PASSWORD);
    assert_eq!(right.effects, [Effect::Hash(PASSWORD.to_owned().into())]);
    right.is_told("is being hashed");
}

#[test]
fn a_password_is_never_seen_and_is_not_in_the_configuration() {
    let person = Person::before(RICH).with_account();
    assert!(!person.sees(80, 24).contains("horse"));
    let person = Person::before(RICH).at_review();
    assert!(person.state.config().users[0].password.is_none());
    assert!(!person.state.config().to_toml().unwrap().contains("horse"));
}

#[test]
fn without_an_administrator_the_machine_waits_to_be_claimed() {
    let person = Person::before(RICH)
        .at_account()
        .presses(KeyCode::Right)
        .presses(KeyCode::Right)
        .enters()
        .enters()
        .enters()
        .enters();
    assert_eq!(person.screen(), Screen::Review);
    let config = person.state.config();
    assert!(config.users.is_empty());
    assert_eq!(config.encryption.unwrap().unlock, Some(Unlock::RecoveryCode));
}

#[test]
fn another_password_is_hashed_anew_and_the_same_is_not() {
    let back = || Person::before(RICH).at_review().presses(KeyCode::Esc);
    assert_eq!(back().enters().screen(), Screen::Review);
    let other = back().types("!").presses(KeyCode::Up).types("!").presses(KeyCode::Down).enters();
    assert_eq!(other.effects, [Effect::Hash(format!("{PASSWORD}!").into())]);
}

#[test]
fn the_review_hides_secrets_until_they_are_asked_for_and_hides_them_again() {
    let person = Person::before(RICH).at_review();
    assert!(!person.sees(80, 60).contains("argon2id") && person.sees(80, 60).contains("••••"));
    let shown = person.types("s");
    assert!(shown.sees(80, 60).contains("$argon2id$"));
    let again = shown.presses(KeyCode::Esc).enters();
    assert!(!again.sees(80, 60).contains("argon2id"));
}

#[test]
fn the_interface_is_left_only_by_who_says_so_twice() {
    let asked = Person::before(RICH).at_network().with_control('c');
    asked.is_told("Leave the installer? Nothing was written.");
    let stayed = asked.types("n");
    assert_eq!((stayed.effects.as_slice(), stayed.screen()), ([].as_slice(), Screen::Network));
    assert_eq!(stayed.with_control('c').types("y").effects, [Effect::Quit(None)]);
    let first = Person::before(RICH).presses(KeyCode::Esc);
    first.is_told("Leave the installer?");
    assert_eq!(first.enters().screen(), Screen::Welcome);
}

#[test]
fn an_installation_that_writes_is_not_left_and_one_that_failed_can_be_tried_again() {
    let writing = Person::before(RICH).at_progress().with_control('c');
    writing.is_told("cannot be left now");
    assert_eq!(writing.presses(KeyCode::Esc).screen(), Screen::Progress);
    let failed = failed(Person::before(RICH));
    failed.is_told("Connect it again");
    let again = failed.presses(KeyCode::Esc);
    assert_eq!(again.screen(), Screen::Review);
    assert!(matches!(again.enters().effects.as_slice(), [Effect::Install(_)]));
}

#[test]
fn one_that_failed_is_left_with_the_phase_that_failed() {
    assert_eq!(failed(Person::before(RICH)).with_control('c').types("y").effects, [Effect::Quit(Some(Phase::Check))]);
}

#[test]
fn the_recovery_code_must_have_been_written_down_before_the_rest_is_shown() {
    let code = Person::before(RICH).at_code();
    code.is_told("dlhbktjr");
    let wrong = code.types("tbcegik").enters();
    wrong.is_told("That is not the last group");
    let right = wrong.types("n").enters();
    assert!(!right.sees(80, 24).contains("dlhbktjr"));
    right.is_told("https://attic.local:6443");
    right.is_told("QRST-4711-UVWX");
    assert_eq!(right.enters().effects, [Effect::Finish(Action::Reboot)]);
}

#[test]
fn an_installation_that_ends_without_a_word_is_told_as_failed_where_it_was() {
    let (sender, progress) = channel();
    let (events, heard) = channel();
    sender.send(Progress::Began(Phase::System)).unwrap();
    drop(sender);
    passed_on(progress, &events);
    drop(events);
    let person = heard.into_iter().fold(Person::before(RICH).at_progress(), Person::happens);
    person.is_told("FAILED Copy the system");
    person.is_told("ended without saying why");
}

#[test]
fn what_is_longer_than_its_row_is_seen_from_its_end() {
    let person = Person::before(RICH).enters().clears().types(&"x".repeat(200)).types("end");
    person.is_told("xxxend_");
}
