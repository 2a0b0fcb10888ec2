//! The fourth screen: how the machine reaches its neighbours.

use std::str::FromStr;

use crossterm::event::KeyEvent;

use super::form::{Form, Page, Step};
use crate::config::{Config, HostAddress, InterfaceAddress, InterfaceName, Network};

const MODE: usize = 0;
const INTERFACE: usize = 1;
const ADDRESS: usize = 2;
const GATEWAY: usize = 3;
const DNS: usize = 4;

#[derive(Clone)]
pub(super) struct Wiring {
    form: Form,
}

impl Wiring {
    pub(super) fn new() -> Self {
        let form = Form::new().choice("Addresses", &["DHCP", "fixed"], 0).text("Interface", "en*");
        let mut wiring = Self { form: form.text("Address", "").text("Gateway", "").text("DNS", "") };
        wiring.show();
        wiring
    }

    fn is_fixed(&self) -> bool {
        self.form.chosen(MODE) == 1
    }

    fn show(&mut self) {
        for row in [INTERFACE, ADDRESS, GATEWAY, DNS] {
            self.form.show(row, self.is_fixed());
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        let step = self.form.key(key);
        self.show();
        step
    }

    /// What is wrong with each row, as it is typed.
    pub(super) fn problems(&self) -> [Option<String>; 5] {
        if !self.is_fixed() {
            return Default::default();
        }
        let interface = self.form.typed(INTERFACE).parse::<InterfaceName>().err();
        let missing = self.form.typed(ADDRESS).trim().is_empty().then(|| "write e.g. 192.0.2.5/24".to_owned());
        let address = missing.or_else(|| self.list::<InterfaceAddress>(ADDRESS).err());
        let gateway = self.list::<HostAddress>(GATEWAY).err();
        let dns = self.list::<HostAddress>(DNS).err();
        let mut problems = [None, interface, address, gateway, dns];
        if problems.iter().all(Option::is_none) {
            problems[GATEWAY] = self.broken();
        }
        problems
    }

    /// What does not go together.
    fn broken(&self) -> Option<String> {
        let mut config = Config::new();
        self.write(&mut config);
        let faults = config.checked().err()?;
        faults.into_iter().next().map(|fault| fault.message)
    }

    fn list<T: FromStr<Err = String>>(&self, row: usize) -> Result<Vec<T>, String> {
        self.form.typed(row).split([',', ' ']).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    pub(super) fn write(&self, config: &mut Config) {
        config.network = self.is_fixed().then(|| Network {
            interface: self.form.typed(INTERFACE).parse().ok(),
            mac: None,
            address: self.list(ADDRESS).unwrap_or_default(),
            gateway: self.list(GATEWAY).unwrap_or_default(),
            dns: self.list(DNS).unwrap_or_default(),
            vlan: None,
        });
    }

    pub(super) fn page(&self, width: u16) -> Page {
        let mut page = Page::default();
        page.text("How does the machine get its addresses?", width);
        page.gap();
        self.form.onto(&mut page, &self.problems(), width);
        page.gap();
        page.text(
            match self.is_fixed() {
                true => "Several addresses are written with a comma between them. In the interface's name, * stands for any letters.",
                false => "It asks on every wired interface. No network is needed to install.",
            },
            width,
        );
        page
    }
}
