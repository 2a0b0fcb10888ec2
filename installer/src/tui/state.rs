//! What is on the screen, and what becomes of it: pure.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use zeroize::Zeroizing;

use super::account::Account;
use super::form::Step;
use super::hardware::Hardware;
use super::look::Look;
use super::network::Wiring;
use super::progress::Running;
use super::review::Review;
use super::target::Target;
use super::welcome::Welcome;
use crate::config::{Action, Config, Fault, Keymap, PasswordHash};
use crate::findings::Finding;
use crate::seam::{Disk, Phase, Progress};

/// What happened.
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// A moment went by.
    Tick,
    /// The terminal has another size.
    Resized,
    /// The machine was looked at.
    Findings(Vec<Finding>),
    /// Its disks were looked for.
    Disks(Vec<Disk>),
    /// The password was hashed, or why not.
    Hashed(Result<PasswordHash, String>),
    /// The installation went on.
    Progress(Progress),
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Look at the machine.
    Look,
    /// Look for disks.
    FindDisks,
    /// Type with this keymap from now on.
    UseKeyboard(Keymap),
    /// Hash a password.
    Hash(Zeroizing<String>),
    /// Install.
    Install(Box<Config>),
    /// Leave: restart or switch off.
    Finish(Action),
    /// Leave, with what failed last.
    Quit(Option<Phase>),
}

/// The screens, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Screen {
    /// Keyboard and names.
    Welcome,
    /// Whether the machine can hold Berth.
    Hardware,
    /// Onto which disk.
    Target,
    /// How it reaches its neighbours.
    Network,
    /// What opens the data, and who is the first administrator.
    Account,
    /// All of it once more.
    Review,
    /// How far it is, and what came of it.
    Progress,
}

impl Screen {
    /// All, in their order.
    pub const ALL: [Screen; 7] =
        [Self::Welcome, Self::Hardware, Self::Target, Self::Network, Self::Account, Self::Review, Self::Progress];
}

/// All that the interface knows. No `Debug`: passwords are typed here.
#[derive(Clone)]
pub struct State {
    pub(super) look: Look,
    pub(super) screen: Screen,
    pub(super) welcome: Welcome,
    pub(super) hardware: Hardware,
    pub(super) target: Target,
    pub(super) network: Wiring,
    pub(super) account: Account,
    pub(super) review: Review,
    pub(super) running: Running,
    /// Why the last key did nothing.
    pub(super) notice: Option<String>,
    /// Whether it asks if it is to be left.
    pub(super) leaving: bool,
    /// Moments that went by.
    pub(super) ticks: usize,
}

impl State {
    /// The first screen, and what is to be found out for the next.
    pub fn new(look: Look) -> (Self, Vec<Effect>) {
        let state = Self {
            look,
            screen: Screen::Welcome,
            welcome: Welcome::new(),
            hardware: Hardware::default(),
            target: Target::new(),
            network: Wiring::new(),
            account: Account::new(),
            review: Review::default(),
            running: Running::new(),
            notice: None,
            leaving: false,
            ticks: 0,
        };
        (state, vec![Effect::Look, Effect::FindDisks])
    }

    /// What was said on all screens.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        self.welcome.write(&mut config);
        self.target.write(&mut config);
        self.network.write(&mut config);
        self.account.write(&mut config);
        config
    }

    /// Why the screen cannot be left forward.
    pub(super) fn problem(&self) -> Option<String> {
        let first = |problems: &[Option<String>]| problems.iter().flatten().next().cloned();
        match self.screen {
            Screen::Welcome => first(&self.welcome.problems()),
            Screen::Hardware => self.hardware.problem(),
            Screen::Target => self.target.problem(),
            Screen::Network => first(&self.network.problems()),
            Screen::Account => first(&self.account.problems()),
            Screen::Review => self.config().checked().err().and_then(|faults| faults.first().map(Fault::to_string)),
            Screen::Progress => self.running.problem(),
        }
    }

    fn go(&mut self, by: isize) {
        let at = Screen::ALL.iter().position(|screen| *screen == self.screen);
        let next = at.and_then(|at| at.checked_add_signed(by)).and_then(|at| Screen::ALL.get(at));
        self.screen = next.copied().unwrap_or(self.screen);
        self.review.reset();
    }

    fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        self.notice = None;
        if self.leaving {
            self.leaving = false;
            let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
            return if yes { vec![Effect::Quit(self.running.failed())] } else { Vec::new() };
        }
        match key.code {
            KeyCode::Char('c' | 'q') if key.modifiers.contains(KeyModifiers::CONTROL) => self.leave(),
            KeyCode::Esc => self.back(),
            KeyCode::Char('b') if key.modifiers.contains(KeyModifiers::CONTROL) => self.back(),
            KeyCode::Char('r') if self.screen == Screen::Hardware => return vec![Effect::Look],
            KeyCode::Char('r') if self.screen == Screen::Target && !self.target.confirms() => {
                return vec![Effect::FindDisks];
            }
            _ => return self.typed(key),
        }
        Vec::new()
    }

    fn leave(&mut self) {
        match self.screen {
            Screen::Progress if self.running.writes() => {
                self.notice = Some("It writes to the disk and cannot be left now.".to_owned());
            }
            _ => self.leaving = true,
        }
    }

    fn back(&mut self) {
        match self.screen {
            Screen::Welcome => self.leaving = true,
            Screen::Target if self.target.back() => {}
            Screen::Progress if self.running.writes() => self.leave(),
            Screen::Progress if self.running.is_installed() => {
                self.notice = Some("It is installed; there is nothing to go back to.".to_owned());
            }
            _ if self.account.waits => {}
            _ => self.go(-1),
        }
    }

    fn typed(&mut self, key: KeyEvent) -> Vec<Effect> {
        let step = match self.screen {
            Screen::Welcome => self.welcome.key(key),
            Screen::Hardware => self.hardware.key(key),
            Screen::Target => self.target.key(key),
            Screen::Network => self.network.key(key),
            Screen::Account => self.account.key(key),
            Screen::Review => self.review.key(key),
            Screen::Progress => self.running.key(key),
        };
        match step {
            Step::Stay => Vec::new(),
            Step::Forward => self.forward(),
        }
    }

    fn forward(&mut self) -> Vec<Effect> {
        self.notice = self.problem();
        if self.notice.is_some() {
            return Vec::new();
        }
        let effects = match self.screen {
            Screen::Welcome => self.welcome.keymap().into_iter().map(Effect::UseKeyboard).collect(),
            Screen::Account => {
                if let Some(password) = self.account.unhashed() {
                    self.account.waits = true;
                    return vec![Effect::Hash(password)];
                }
                Vec::new()
            }
            Screen::Review => {
                self.running = Running::new();
                vec![Effect::Install(Box::new(self.config()))]
            }
            Screen::Progress => return vec![Effect::Finish(self.config().action())],
            _ => Vec::new(),
        };
        self.go(1);
        effects
    }

    fn hashed(&mut self, hash: Result<PasswordHash, String>) {
        self.account.waits = false;
        match hash {
            Ok(hash) => {
                self.account.hashed(hash);
                self.go(1);
            }
            Err(why) => self.notice = Some(why),
        }
    }
}

/// What becomes of the state, and what is to be done.
pub fn update(mut state: State, event: Event) -> (State, Vec<Effect>) {
    let mut effects = Vec::new();
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => effects = state.key(key),
        Event::Key(_) | Event::Resized => {}
        Event::Tick => state.ticks = state.ticks.wrapping_add(1),
        Event::Findings(findings) => state.hardware.found(findings),
        Event::Disks(disks) => state.target.found(disks),
        Event::Hashed(hash) => state.hashed(hash),
        Event::Progress(progress) => state.running.heard(progress),
    }
    (state, effects)
}
