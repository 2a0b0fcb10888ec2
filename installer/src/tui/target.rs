//! The third screen: which disk, and whether that is really meant.

use berth_model::quantity;
use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;

use super::form::{Form, Page, Step};
use crate::config::{Config, Disk as Selector, DiskId, Size};
use crate::seam::Disk;

#[derive(Clone)]
pub(super) struct Target {
    disks: Option<Vec<Disk>>,
    at: usize,
    confirming: bool,
    typed: Form,
}

impl Target {
    pub(super) fn new() -> Self {
        Self { disks: None, at: 0, confirming: false, typed: Form::new().text("Its name", "") }
    }

    pub(super) fn found(&mut self, disks: Vec<Disk>) {
        *self = Self { disks: Some(disks), ..Self::new() };
    }

    fn chosen(&self) -> Option<&Disk> {
        self.disks.as_ref()?.get(self.at)
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        if self.confirming {
            return self.typed.key(key);
        }
        let last = self.disks.as_ref().map_or(0, |disks| disks.len().saturating_sub(1));
        match key.code {
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(last),
            KeyCode::Up | KeyCode::BackTab => self.at = self.at.saturating_sub(1),
            KeyCode::Enter if self.chosen().is_some_and(|disk| !disk.boots_this) => self.confirming = true,
            KeyCode::Enter => return Step::Forward,
            _ => {}
        }
        Step::Stay
    }

    /// Whether a disk was chosen and its name is typed now.
    pub(super) fn confirms(&self) -> bool {
        self.confirming
    }

    /// Back to the list; whether there was anything to go back from.
    pub(super) fn back(&mut self) -> bool {
        self.typed.clear(0);
        std::mem::take(&mut self.confirming)
    }

    pub(super) fn problem(&self) -> Option<String> {
        let Some(disk) = self.chosen() else {
            return Some("There is no disk to install onto. Connect one, and press r.".to_owned());
        };
        if disk.boots_this {
            return Some("This system runs from that disk. Choose another.".to_owned());
        }
        let typed = self.typed.typed(0).trim();
        let names = [Some(disk.name()), disk.serial.clone(), Some(disk.path.display().to_string())];
        let meant = !typed.is_empty() && names.into_iter().flatten().any(|name| name == typed);
        (!meant).then(|| format!("Type {} to say that this disk is meant.", named(disk)))
    }

    /// By what stays with the disk; by its place and size only when it has nothing else.
    pub(super) fn write(&self, config: &mut Config) {
        config.disk = self.chosen().map(|disk| {
            let id = disk.ids.iter().find_map(|id| id.to_str()?.parse::<DiskId>().ok());
            let serial = disk.serial.clone();
            let size = if id.is_none() && serial.is_none() { Size::try_from(disk.bytes).ok() } else { None };
            Selector { id, serial, bus: disk.bus, min_size: size, max_size: size, erase: disk.content.is_some() }
        });
    }

    pub(super) fn page(&self, width: u16) -> Page {
        let mut page = Page::default();
        let Some(disks) = &self.disks else {
            page.text("Looking for disks...", width);
            return page;
        };
        match self.chosen().filter(|_| self.confirming) {
            Some(disk) => self.confirm(&mut page, disk, width),
            None => self.list(&mut page, disks, width),
        }
        page
    }

    fn list(&self, page: &mut Page, disks: &[Disk], width: u16) {
        page.text(if disks.is_empty() { "This machine has no disk." } else { "Onto which disk?" }, width);
        page.gap();
        for (at, disk) in disks.iter().enumerate() {
            let here = at == self.at;
            let style = if here { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            page.lines.push(Line::styled(format!("{} {}", if here { ">" } else { " " }, heading(disk)), style));
            page.lines.push(Line::from(format!("    {}", holds(disk))));
            if here {
                page.focus = page.lines.len();
            }
        }
    }

    fn confirm(&self, page: &mut Page, disk: &Disk, width: u16) {
        page.text(&heading(disk), width);
        page.gap();
        let warning = match &disk.content {
            Some(content) => format!("ALL THAT IS ON IT WILL BE DESTROYED: {content}."),
            None => "It is blank. Nothing is lost.".to_owned(),
        };
        page.styled(&warning, Style::new().add_modifier(Modifier::BOLD), width);
        page.gap();
        page.text(&format!("If this is the one, type {}.", named(disk)), width);
        page.gap();
        self.typed.onto(page, &[], width);
    }
}

fn named(disk: &Disk) -> String {
    match &disk.serial {
        Some(serial) => format!("its serial number {serial}, or its name {}", disk.name()),
        None => format!("its name {}", disk.name()),
    }
}

/// What tells one from another.
fn heading(disk: &Disk) -> String {
    let bus = disk.bus.as_ref().map(crate::config::word);
    let parts = [
        Some(disk.path.display().to_string()),
        Some(quantity::about_bytes(disk.bytes)),
        bus,
        disk.model.clone(),
        disk.serial.as_ref().map(|serial| format!("serial {serial}")),
        disk.removable.then(|| "removable".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn holds(disk: &Disk) -> String {
    match &disk.content {
        _ if disk.boots_this => "this system runs from it, so it cannot be written".to_owned(),
        Some(content) => format!("holds {content}"),
        None => "blank".to_owned(),
    }
}
