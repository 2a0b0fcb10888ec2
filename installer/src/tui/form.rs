//! Rows that are filled in: text, hidden text, and one of a few.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use zeroize::Zeroizing;

/// The longest that is typed into one row, in bytes.
const LONGEST: usize = 1024;

/// What a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something within the screen.
    Stay,
    /// The screen is done.
    Forward,
}

/// What is filled in.
#[derive(Clone)]
enum Input {
    Text { text: Zeroizing<String>, secret: bool },
    Choice { options: &'static [&'static str], at: usize },
}

/// One row.
#[derive(Clone)]
struct Row {
    label: &'static str,
    input: Input,
    shown: bool,
}

/// Some rows, one of which has the focus. No `Debug`: passwords are typed here.
#[derive(Clone)]
pub(super) struct Form {
    rows: Vec<Row>,
    focus: usize,
}

/// Lines of a screen, and which must be seen.
#[derive(Default)]
pub(super) struct Page {
    pub lines: Vec<Line<'static>>,
    pub focus: usize,
}

impl Page {
    pub(super) fn text(&mut self, text: &str, width: u16) {
        self.lines.extend(wrapped(text, width).into_iter().map(Line::from));
    }

    pub(super) fn styled(&mut self, text: &str, style: Style, width: u16) {
        self.lines.extend(wrapped(text, width).into_iter().map(|line| Line::styled(line, style)));
    }

    pub(super) fn gap(&mut self) {
        self.lines.push(Line::default());
    }
}

impl Form {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new(), focus: 0 }
    }

    pub(super) fn text(self, label: &'static str, text: &str) -> Self {
        self.row(label, Input::Text { text: Zeroizing::new(text.to_owned()), secret: false })
    }

    pub(super) fn secret(self, label: &'static str) -> Self {
        self.row(label, Input::Text { text: Zeroizing::new(String::with_capacity(LONGEST)), secret: true })
    }

    pub(super) fn choice(self, label: &'static str, options: &'static [&'static str], at: usize) -> Self {
        self.row(label, Input::Choice { options, at })
    }

    fn row(mut self, label: &'static str, input: Input) -> Self {
        self.rows.push(Row { label, input, shown: true });
        self
    }

    /// What is typed into a row.
    pub(super) fn typed(&self, at: usize) -> &str {
        match self.rows.get(at).map(|row| &row.input) {
            Some(Input::Text { text, .. }) => text,
            _ => "",
        }
    }

    /// Which of the few is chosen.
    pub(super) fn chosen(&self, at: usize) -> usize {
        match self.rows.get(at).map(|row| &row.input) {
            Some(Input::Choice { at, .. }) => *at,
            _ => 0,
        }
    }

    /// Shows or hides a row.
    pub(super) fn show(&mut self, at: usize, shown: bool) {
        if let Some(row) = self.rows.get_mut(at) {
            row.shown = shown;
        }
    }

    /// Empties a row.
    pub(super) fn clear(&mut self, at: usize) {
        if let Some(Row { input: Input::Text { text, .. }, .. }) = self.rows.get_mut(at) {
            text.clear();
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        match key.code {
            KeyCode::Down | KeyCode::Tab => self.go(1),
            KeyCode::Up | KeyCode::BackTab => self.go(-1),
            KeyCode::Enter if self.is_last() => return Step::Forward,
            KeyCode::Enter => self.go(1),
            _ => self.edit(key),
        }
        Step::Stay
    }

    fn is_last(&self) -> bool {
        self.rows.iter().rposition(|row| row.shown) == Some(self.focus)
    }

    /// To the next row that is shown, in one direction; none beyond the ends.
    fn go(&mut self, by: isize) {
        let mut at = self.focus;
        while let Some(next) = at.checked_add_signed(by).filter(|next| *next < self.rows.len()) {
            at = next;
            if self.rows[at].shown {
                self.focus = at;
                return;
            }
        }
    }

    fn edit(&mut self, key: KeyEvent) {
        let Some(row) = self.rows.get_mut(self.focus) else { return };
        match (&mut row.input, key.code) {
            (Input::Choice { options, at }, KeyCode::Right | KeyCode::Char(' ')) => *at = (*at + 1) % options.len(),
            (Input::Choice { options, at }, KeyCode::Left) => *at = (*at + options.len() - 1) % options.len(),
            (Input::Text { text, .. }, KeyCode::Char('u')) if key.modifiers.contains(KeyModifiers::CONTROL) => {
                text.clear()
            }
            (Input::Text { text, .. }, KeyCode::Char(sign)) if is_typed(key) && text.len() < LONGEST => text.push(sign),
            (Input::Text { text, .. }, KeyCode::Backspace) => drop(text.pop()),
            _ => {}
        }
    }

    /// Puts the rows on a page, each with what is wrong with it.
    pub(super) fn onto(&self, page: &mut Page, problems: &[Option<String>], width: u16) {
        let label = self.rows.iter().map(|row| row.label.len()).max().unwrap_or(0);
        for (at, row) in self.rows.iter().enumerate().filter(|(_, row)| row.shown) {
            let here = at == self.focus;
            if here {
                page.focus = page.lines.len() + 1;
            }
            page.lines.push(row.line(label, here, width));
            if let Some(problem) = problems.get(at).and_then(Option::as_ref) {
                let indent = u16::try_from(label + 4).unwrap_or(0);
                for line in wrapped(problem, width.saturating_sub(indent)) {
                    page.lines.push(Line::from(format!("{:1$}{line}", "", label + 4)));
                }
            }
        }
    }
}

impl Row {
    fn line(&self, label: usize, here: bool, width: u16) -> Line<'static> {
        let style = if here { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let mark = if here { "> " } else { "  " };
        let room = usize::from(width).saturating_sub(label + 5);
        let value = match &self.input {
            Input::Choice { options, at } => format!("< {} >", options.get(*at).copied().unwrap_or_default()),
            Input::Text { text, secret } => {
                let signs = text.chars().count();
                let from = signs.saturating_sub(room.saturating_sub(1));
                let seen: String = match secret {
                    true => "•".repeat(signs - from),
                    false => text.chars().skip(from).collect(),
                };
                format!("{seen}_")
            }
        };
        Line::from(vec![Span::raw(format!("{mark}{:<label$}  ", self.label)), Span::styled(value, style)])
    }
}

/// Whether a key stands for its letter.
pub(super) fn is_typed(key: KeyEvent) -> bool {
    !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
}

/// A text in lines that are not wider than this.
pub(super) fn wrapped(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width.max(1));
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let signs: Vec<char> = word.chars().collect();
        for part in signs.chunks(width) {
            let part: String = part.iter().collect();
            let Some(last) = lines.last_mut() else { continue };
            if last.is_empty() {
                *last = part;
            } else if last.chars().count() + 1 + part.chars().count() <= width {
                *last = format!("{last} {part}");
            } else {
                lines.push(part);
            }
        }
    }
    lines
}
