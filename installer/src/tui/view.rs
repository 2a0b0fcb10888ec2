//! How it looks: a title, the screen, what is wrong, and the keys.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

use super::form::{Page, wrapped};
use super::state::{Screen, State};

/// The smallest terminal that all fits into: columns and lines.
const SMALLEST: (u16, u16) = (60, 20);
const TURNS: [&str; 4] = ["|", "/", "-", "\\"];

/// Draws a state.
pub fn view(state: &State, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (columns, lines) = SMALLEST;
        frame.render_widget(Paragraph::new(format!("{columns}x{lines} at least, please")), area);
        return;
    }
    let [title, body, notice, keys] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(2), Constraint::Length(1)])
            .areas(area);
    frame.render_widget(heading(state, area.width), title);
    screen(state, frame, body);
    let said = if state.leaving { Some(leaving(state).to_owned()) } else { state.notice.clone() };
    let lines: Vec<Line<'_>> =
        said.map(|said| wrapped(&said, area.width)).unwrap_or_default().into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).style(Style::new().add_modifier(Modifier::BOLD)), notice);
    frame.render_widget(Paragraph::new(help(state)), keys);
    if !state.look.unicode {
        plain(frame.buffer_mut());
    }
}

fn heading(state: &State, width: u16) -> Line<'static> {
    let at = Screen::ALL.iter().position(|screen| *screen == state.screen).unwrap_or(0) + 1;
    let left = format!(" Berth  {at}/{}  {}", Screen::ALL.len(), title(state.screen));
    let works = state.account.waits || (state.screen == Screen::Progress && state.running.writes());
    let turn = if works { TURNS[state.ticks % TURNS.len()] } else { " " };
    let room = usize::from(width).saturating_sub(2);
    let mut style = Style::new().add_modifier(Modifier::REVERSED);
    if state.look.colours {
        style = style.fg(Color::Cyan);
    }
    Line::styled(format!("{left:<room$}{turn} "), style)
}

fn title(screen: Screen) -> &'static str {
    match screen {
        Screen::Welcome => "Welcome",
        Screen::Hardware => "Hardware",
        Screen::Target => "Disk",
        Screen::Network => "Network",
        Screen::Account => "Encryption and administrator",
        Screen::Review => "Review",
        Screen::Progress => "Installation",
    }
}

fn help(state: &State) -> &'static str {
    match state.screen {
        _ if state.leaving => " y leave   any other key stay",
        Screen::Welcome => " Enter next  Up/Down move  Left/Right choose  Esc leave",
        Screen::Hardware => " Enter next  Up/Down move  r look again  Esc back",
        Screen::Target if state.target.confirms() => " Enter next  Esc another disk  Ctrl-C leave",
        Screen::Target => " Enter choose  Up/Down move  r look again  Esc back",
        Screen::Network | Screen::Account => " Enter next  Up/Down move  Left/Right choose  Esc back",
        Screen::Review => " Enter INSTALL  Up/Down scroll  s secrets  Esc back",
        Screen::Progress if state.running.writes() => " It writes to the disk. Please wait.",
        Screen::Progress if state.running.failed().is_some() => " Esc back, to try again  Ctrl-C leave",
        Screen::Progress => " Enter next",
    }
}

fn leaving(state: &State) -> &'static str {
    match state.screen {
        Screen::Progress if state.running.failed().is_some() => {
            "Leave the installer? The disk may be written in part; installing again begins anew."
        }
        Screen::Progress => "Leave the installer? Berth is installed; the recovery code is not shown again.",
        _ => "Leave the installer? Nothing was written.",
    }
}

fn screen(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered();
    let inner = block.inner(area).inner(ratatui::layout::Margin::new(1, 0));
    let page = page(state, inner.width, inner.height);
    let from = scrolled(&page, inner.height);
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(page.lines).scroll((from, 0)), inner);
}

fn page(state: &State, width: u16, height: u16) -> Page {
    match state.screen {
        Screen::Welcome => state.welcome.page(width),
        Screen::Hardware => state.hardware.page(width),
        Screen::Target => state.target.page(width),
        Screen::Network => state.network.page(width),
        Screen::Account => state.account.page(width),
        Screen::Review => state.review.page(&state.config(), width),
        Screen::Progress => state.running.page(state.look, width, height),
    }
}

/// How many lines are above the first that is seen, so that the line with the focus is.
fn scrolled(page: &Page, height: u16) -> u16 {
    let beyond = (page.focus + 1).saturating_sub(usize::from(height));
    let most = page.lines.len().saturating_sub(usize::from(height));
    u16::try_from(beyond.min(most)).unwrap_or(u16::MAX)
}

/// The same in ASCII, for terminals that know nothing else.
fn plain(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if cell.symbol().is_ascii() {
            continue;
        }
        let sign = match cell.symbol() {
            "─" => "-",
            "│" => "|",
            "┌" | "┐" | "└" | "┘" => "+",
            "•" => "*",
            "█" => "#",
            _ => "?",
        };
        cell.set_symbol(sign);
    }
}
