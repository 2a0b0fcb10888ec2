//! The first screen: what is typed on, and what the machine is called and is for.

use crossterm::event::KeyEvent;

use super::form::{Form, Page, Step};
use crate::config::{Config, Hostname, Keymap, Profile, Timezone};

/// Keymaps of the console that are offered, by their names.
const KEYMAPS: [&str; 24] = [
    "us",
    "uk",
    "de",
    "de-latin1",
    "fr",
    "fr-latin9",
    "es",
    "it",
    "pt-latin1",
    "br-abnt2",
    "nl",
    "be-latin1",
    "sg",
    "dk",
    "no",
    "sv-latin1",
    "fi",
    "pl",
    "cz",
    "hu",
    "ru",
    "ua",
    "trq",
    "jp106",
];
const PROFILES: [&str; 5] = ["minimal", "solo", "multi-user", "builder", "enterprise"];
const KEYBOARD: usize = 0;
const HOSTNAME: usize = 1;
const TIMEZONE: usize = 2;
const PROFILE: usize = 3;

#[derive(Clone)]
pub(super) struct Welcome {
    form: Form,
}

impl Welcome {
    pub(super) fn new() -> Self {
        let form = Form::new().choice("Keyboard", &KEYMAPS, 0).text("Hostname", "berth").text("Timezone", "UTC");
        Self { form: form.choice("Profile", &PROFILES, 1) }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        self.form.key(key)
    }

    pub(super) fn problems(&self) -> [Option<String>; 4] {
        let hostname = self.form.typed(HOSTNAME).parse::<Hostname>().err();
        let timezone = self.form.typed(TIMEZONE).parse::<Timezone>().err();
        [None, hostname, timezone, None]
    }

    pub(super) fn keymap(&self) -> Option<Keymap> {
        KEYMAPS.get(self.form.chosen(KEYBOARD))?.parse().ok()
    }

    pub(super) fn write(&self, config: &mut Config) {
        config.keyboard = self.keymap();
        config.hostname = self.form.typed(HOSTNAME).parse().ok();
        config.timezone = self.form.typed(TIMEZONE).parse().ok();
        config.profile = <Profile as clap::ValueEnum>::value_variants().get(self.form.chosen(PROFILE)).copied();
    }

    pub(super) fn page(&self, width: u16) -> Page {
        let mut page = Page::default();
        page.text("This puts Berth onto a disk of this machine. Nothing is written before the sixth screen, where all that was said is seen once more.", width);
        page.gap();
        self.form.onto(&mut page, &self.problems(), width);
        page.gap();
        let profile = <Profile as clap::ValueEnum>::value_variants().get(self.form.chosen(PROFILE)).copied();
        let least = profile.unwrap_or_default().minimum();
        let cpus = if least.cpus == 1 { "processor" } else { "processors" };
        page.text(
            &format!(
                "This profile is meant for {} {cpus} and {} GiB of memory, or more.",
                least.cpus,
                least.memory >> 30
            ),
            width,
        );
        page
    }
}
