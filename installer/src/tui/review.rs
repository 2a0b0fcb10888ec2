//! The sixth screen: all that was said, as the berth.toml that would say the same.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::form::{Page, Step};
use crate::config::Config;

#[derive(Clone, Default)]
pub(super) struct Review {
    shown: bool,
    /// The line at the top.
    at: usize,
}

impl Review {
    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        match key.code {
            KeyCode::Down => self.at += 1,
            KeyCode::Up => self.at = self.at.saturating_sub(1),
            KeyCode::Char('s') if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() => self.shown = !self.shown,
            KeyCode::Enter => return Step::Forward,
            _ => {}
        }
        Step::Stay
    }

    /// Secrets are hidden again when the screen is come to anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn page(&self, config: &Config, width: u16) -> Page {
        let shown = if self.shown { config.clone() } else { config.hidden() };
        let mut page = Page::default();
        match shown.to_toml() {
            Ok(text) => {
                let lines: Vec<&str> = text.lines().collect();
                let from = self.at.min(lines.len().saturating_sub(1));
                lines.iter().skip(from).for_each(|line| pieces(&mut page, line, width));
            }
            Err(error) => page.text(&format!("This cannot be written as berth.toml: {error}"), width),
        }
        page
    }
}

/// A line as it is, broken where it is too wide.
fn pieces(page: &mut Page, line: &str, width: u16) {
    let signs: Vec<char> = line.chars().collect();
    if signs.is_empty() {
        page.gap();
    }
    let parts = signs.chunks(usize::from(width.max(1)));
    page.lines.extend(parts.map(|part| part.iter().collect::<String>().into()));
}
