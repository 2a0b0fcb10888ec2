//! The second screen: whether this machine can hold Berth.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Modifier, Style};

use super::form::{Page, Step, wrapped};
use crate::findings::{Finding, Level};

#[derive(Clone, Default)]
pub(super) struct Hardware {
    findings: Option<Vec<Finding>>,
    at: usize,
}

impl Hardware {
    /// What matters comes first.
    pub(super) fn found(&mut self, mut findings: Vec<Finding>) {
        findings.sort_by_key(|finding| match finding.level {
            Level::Fail => 0,
            Level::Warn => 1,
            Level::Ok => 2,
        });
        self.findings = Some(findings);
        self.at = 0;
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        let last = self.findings.as_ref().map_or(0, |findings| findings.len().saturating_sub(1));
        match key.code {
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(last),
            KeyCode::Up | KeyCode::BackTab => self.at = self.at.saturating_sub(1),
            KeyCode::Enter => return Step::Forward,
            _ => {}
        }
        Step::Stay
    }

    pub(super) fn problem(&self) -> Option<String> {
        let Some(findings) = &self.findings else { return Some("The machine is still being looked at.".to_owned()) };
        let failed = findings.iter().any(|finding| finding.level == Level::Fail);
        failed.then(|| "This machine cannot hold Berth before what is marked `fail` is put right.".to_owned())
    }

    pub(super) fn page(&self, width: u16) -> Page {
        let mut page = Page::default();
        let Some(findings) = &self.findings else {
            page.text("Looking at the machine...", width);
            return page;
        };
        page.text(&summary(findings), width);
        page.gap();
        for (at, finding) in findings.iter().enumerate() {
            if at == self.at {
                page.focus = page.lines.len() + 2;
            }
            entry(&mut page, finding, at == self.at, width);
        }
        page
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "This machine can hold Berth.".to_owned(),
        (0, warnings) => format!("This machine can hold Berth, with {warnings} to look at."),
        (failures, _) => format!("This machine cannot hold Berth: {failures} to put right."),
    }
}

fn entry(page: &mut Page, finding: &Finding, here: bool, width: u16) {
    let (word, style) = match finding.level {
        Level::Ok => ("ok  ", Style::new()),
        Level::Warn => ("warn", Style::new().add_modifier(Modifier::BOLD)),
        Level::Fail => ("fail", Style::new().add_modifier(Modifier::BOLD)),
    };
    let mark = if here { ">" } else { " " };
    let action = finding.action.as_ref().map(|action| format!("-> {action}"));
    let text = wrapped(&format!("{}: {}", finding.name, finding.meaning), width.saturating_sub(8));
    for (at, line) in text.into_iter().enumerate() {
        let begin = if at == 0 { format!("{mark} {word}  ") } else { " ".repeat(8) };
        page.lines.push(ratatui::text::Line::styled(format!("{begin}{line}"), style));
    }
    for line in action.iter().flat_map(|action| wrapped(action, width.saturating_sub(8))) {
        page.lines.push(ratatui::text::Line::from(format!("{:8}{line}", "")));
    }
}
