//! The seventh screen: how far it is, and what its owner has to know when it is done.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::form::{Form, Page, Step};
use super::look::Look;
use crate::seam::{Outcome, Phase, Progress};

/// The least that is left for words beside a code, in columns.
const LEAST_BESIDE: u16 = 20;

/// How a phase went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Waits,
    Runs,
    Done,
    Failed,
}

#[derive(Clone)]
pub(super) struct Running {
    marks: [Mark; Phase::ALL.len()],
    part: Option<(u64, u64)>,
    failure: Option<(Phase, String, String)>,
    outcome: Option<Outcome>,
    typed: Form,
    confirmed: bool,
}

impl Running {
    pub(super) fn new() -> Self {
        Self {
            marks: [Mark::Waits; Phase::ALL.len()],
            part: None,
            failure: None,
            outcome: None,
            typed: Form::new().text("Last group", ""),
            confirmed: false,
        }
    }

    pub(super) fn heard(&mut self, progress: Progress) {
        match progress {
            Progress::Began(phase) => self.mark(phase, Mark::Runs),
            Progress::Part { done, total, .. } => self.part = Some((done, total)),
            Progress::Ended(phase) => self.mark(phase, Mark::Done),
            Progress::Failed { phase, what, remedy } => {
                self.mark(phase, Mark::Failed);
                self.failure = Some((phase, what, remedy));
            }
            Progress::Finished(outcome) => self.outcome = Some(outcome),
        }
    }

    fn mark(&mut self, phase: Phase, mark: Mark) {
        self.part = None;
        let at = Phase::ALL.iter().position(|other| *other == phase);
        if let Some(place) = at.and_then(|at| self.marks.get_mut(at)) {
            *place = mark;
        }
    }

    /// Whether it writes, so that it cannot be left.
    pub(super) fn writes(&self) -> bool {
        self.failure.is_none() && self.outcome.is_none()
    }

    /// The phase that failed.
    pub(super) fn failed(&self) -> Option<Phase> {
        self.failure.as_ref().map(|(phase, ..)| *phase)
    }

    pub(super) fn is_installed(&self) -> bool {
        self.outcome.is_some()
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        match &self.outcome {
            Some(_) if self.confirmed && key.code == KeyCode::Enter => Step::Forward,
            Some(_) if self.confirmed => Step::Stay,
            Some(outcome) => {
                let entered = self.typed.key(key) == Step::Forward;
                self.confirmed = entered && is_last_group(&outcome.recovery_code, self.typed.typed(0));
                if entered && !self.confirmed { Step::Forward } else { Step::Stay }
            }
            None => Step::Stay,
        }
    }

    /// Why this screen cannot be left.
    pub(super) fn problem(&self) -> Option<String> {
        let asked = !self.confirmed;
        asked.then(|| "That is not the last group of the code. Look at what you wrote down.".to_owned())
    }

    pub(super) fn page(&self, look: Look, width: u16, height: u16) -> Page {
        let mut page = Page::default();
        match (&self.outcome, &self.failure) {
            (Some(outcome), _) if self.confirmed => result(&mut page, outcome, look, width, height),
            (Some(outcome), _) => self.recovery(&mut page, outcome, width),
            (None, failure) => {
                self.phases(&mut page, width);
                if let Some((_, what, remedy)) = failure {
                    page.gap();
                    page.styled(what, Style::new().add_modifier(Modifier::BOLD), width);
                    page.text(remedy, width);
                    page.focus = page.lines.len();
                }
            }
        }
        page
    }

    fn phases(&self, page: &mut Page, width: u16) {
        for (phase, mark) in Phase::ALL.into_iter().zip(self.marks) {
            let (word, style) = match mark {
                Mark::Waits => ("      ", Style::new()),
                Mark::Runs => ("now   ", Style::new().add_modifier(Modifier::BOLD)),
                Mark::Done => ("done  ", Style::new()),
                Mark::Failed => ("FAILED", Style::new().add_modifier(Modifier::BOLD)),
            };
            page.lines.push(Line::styled(format!("{word}  {}", phase.words()), style));
            if let Some((done, total)) = self.part.filter(|_| mark == Mark::Runs) {
                page.lines.push(Line::from(format!("        {}", bar(done, total, width.saturating_sub(16)))));
            }
        }
    }

    fn recovery(&self, page: &mut Page, outcome: &Outcome, width: u16) {
        page.text("Berth is installed. This is the recovery code of its data:", width);
        page.gap();
        let groups: Vec<&str> = outcome.recovery_code.split('-').collect();
        let fitting = if usize::from(width) > outcome.recovery_code.len() + 4 { groups.len() } else { 4 };
        let lines: Vec<String> = groups.chunks(fitting.max(1)).map(|line| line.join("-")).collect();
        for line in lines.join("-\n").lines() {
            page.lines.push(Line::styled(format!("    {line}"), Style::new().add_modifier(Modifier::BOLD)));
        }
        page.gap();
        page.text("Write it down now and keep it elsewhere: it is not shown again, and without it nobody opens the data when the TPM is gone.", width);
        page.gap();
        page.text("Type its last group, to see that it is written down.", width);
        page.gap();
        self.typed.onto(page, &[], width);
    }
}

fn is_last_group(code: &str, typed: &str) -> bool {
    let last = code.rsplit('-').next().unwrap_or_default();
    !last.is_empty() && typed.trim().eq_ignore_ascii_case(last)
}

fn bar(done: u64, total: u64, width: u16) -> String {
    let percent = (u128::from(done) * 100 / u128::from(total.max(1))).min(100);
    let full = usize::try_from(u128::from(width) * percent / 100).unwrap_or(0);
    format!("[{}{}] {percent:>3} %", "█".repeat(full), " ".repeat(usize::from(width) - full))
}

/// The code stands beside the text: all of it, or it would be of no use.
fn result(page: &mut Page, outcome: &Outcome, look: Look, width: u16, height: u16) {
    let code = if look.unicode { code(&outcome.url, look) } else { Vec::new() };
    let wide = u16::try_from(code.first().map_or(0, Line::width)).unwrap_or(u16::MAX);
    let left = width.saturating_sub(wide.saturating_add(2));
    if wide == 0 || left < LEAST_BESIDE || code.len() > usize::from(height) {
        return told(page, outcome, width);
    }
    told(page, outcome, left);
    let mut text = std::mem::take(&mut page.lines).into_iter();
    for picture in code {
        let mut line = text.next().unwrap_or_default();
        let gap = usize::from(left + 2).saturating_sub(line.width());
        let style = line.style;
        line.spans = line.spans.into_iter().map(|span| span.patch_style(style)).collect();
        line.style = Style::new();
        line.spans.push(Span::raw(" ".repeat(gap)));
        line.spans.extend(picture.spans);
        page.lines.push(line);
    }
    page.lines.extend(text);
}

fn told(page: &mut Page, outcome: &Outcome, width: u16) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    page.text("Take the installation medium out when the screen goes dark. The panel will be at:", width);
    page.gap();
    page.styled(&outcome.url, bold, width);
    page.gap();
    if let Some(claim) = &outcome.claim {
        page.text("Who types this code there first owns the machine:", width);
        page.gap();
        page.styled(claim, bold, width);
    }
}

/// What a phone reads, light on dark, with the margin that it needs.
fn code(text: &str, look: Look) -> Vec<Line<'static>> {
    let Ok(lines) = berth_model::qr::lines(text) else { return Vec::new() };
    let style = if look.colours { Style::new().fg(Color::White).bg(Color::Black) } else { Style::new() };
    lines.into_iter().map(|line| Line::from(Span::styled(line, style))).collect()
}
