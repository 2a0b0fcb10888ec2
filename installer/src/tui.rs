//! The installer's text interface: seven screens from welcome to recovery code.
//!
//! ```text
//!  keys, ticks, what the machine says --Event--> update (pure) --State--> view (pure) --> terminal
//!                                                   |
//!                                                   +--Effect--> the machine, a thread each
//! ```

mod account;
mod form;
mod hardware;
mod look;
mod network;
mod progress;
mod review;
mod state;
mod target;
mod view;
mod welcome;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};
use std::time::Duration;

use crossterm::event;
pub use look::Look;
use ratatui::DefaultTerminal;
pub use state::{Effect, Event, Screen, State, update};
pub use view::view;

use crate::config::{Config, hashed};
use crate::seam::{Machine, Phase, Progress};

/// From one tick to the next, and the longest that anything waits to be seen.
const TICK: Duration = Duration::from_millis(100);

/// Why the interface ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// The terminal could not be used.
    #[error("the terminal could not be used")]
    Terminal(#[source] io::Error),
}

/// How the interface was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is installed, and the machine was told to restart or to switch off.
    Installed,
    /// Somebody left it; with the phase that failed, if one did.
    Left(Option<Phase>),
}

/// Shows the interface on the terminal until it is left.
///
/// # Errors
/// The terminal could not be used; it is given back as it was.
pub fn run(machine: &dyn Machine, look: Look) -> Result<Ending, TuiError> {
    let mut terminal = ratatui::try_init().map_err(TuiError::Terminal)?;
    let ended = thread::scope(|scope| Run::new(machine, scope).to_the_end(&mut terminal, look));
    let restored = ratatui::try_restore();
    let ending = ended.map_err(TuiError::Terminal)?;
    restored.map_err(TuiError::Terminal).map(|()| ending)
}

/// What is at work while the interface is shown.
struct Run<'scope, 'env> {
    machine: &'env dyn Machine,
    scope: &'scope Scope<'scope, 'env>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl<'scope, 'env> Run<'scope, 'env> {
    fn new(machine: &'env dyn Machine, scope: &'scope Scope<'scope, 'env>) -> Self {
        let (sender, events) = channel();
        Self { machine, scope, sender, events }
    }

    fn to_the_end(&self, terminal: &mut DefaultTerminal, look: Look) -> io::Result<Ending> {
        let (mut state, mut effects) = State::new(look);
        loop {
            for effect in effects {
                if let Some(ending) = self.carry_out(effect) {
                    return Ok(ending);
                }
            }
            terminal.draw(|frame| view(&state, frame))?;
            (state, effects) = update(state, self.next()?);
        }
    }

    /// What happens next: what the machine said, else a key, else nothing for a moment.
    fn next(&self) -> io::Result<Event> {
        if let Ok(event) = self.events.try_recv() {
            return Ok(event);
        }
        if !event::poll(TICK)? {
            return Ok(Event::Tick);
        }
        Ok(match event::read()? {
            event::Event::Key(key) => Event::Key(key),
            _ => Event::Resized,
        })
    }

    fn carry_out(&self, effect: Effect) -> Option<Ending> {
        let machine = self.machine;
        match effect {
            Effect::Look => self.apart(move || Event::Findings(machine.findings())),
            Effect::FindDisks => self.apart(move || Event::Disks(machine.disks())),
            Effect::UseKeyboard(keymap) => machine.use_keyboard(&keymap),
            Effect::Hash(password) => {
                self.apart(move || Event::Hashed(hashed(&password).map_err(|error| error.to_string())))
            }
            Effect::Install(config) => self.install(*config),
            Effect::Finish(action) => {
                machine.finish(action);
                return Some(Ending::Installed);
            }
            Effect::Quit(failed) => return Some(Ending::Left(failed)),
        }
        None
    }

    /// Does something that takes a while. Nobody hears of it any more when the interface was left.
    fn apart(&self, work: impl FnOnce() -> Event + Send + 'scope) {
        let sender = self.sender.clone();
        self.scope.spawn(move || drop(sender.send(work())));
    }

    fn install(&self, config: Config) {
        let (sender, progress) = channel();
        let (machine, events) = (self.machine, self.sender.clone());
        self.scope.spawn(move || machine.install(config, sender));
        self.scope.spawn(move || passed_on(progress, &events));
    }
}

/// Passes on what an installation says. One that ends without a last word has failed: nobody is to wait for it for ever.
fn passed_on(progress: Receiver<Progress>, events: &Sender<Event>) {
    let mut phase = Phase::Check;
    for said in progress {
        let is_last = matches!(said, Progress::Failed { .. } | Progress::Finished(_));
        if let Progress::Began(begun) = said {
            phase = begun;
        }
        if events.send(Event::Progress(said)).is_err() || is_last {
            return;
        }
    }
    let what = "The installation ended without saying why.".to_owned();
    let remedy = "Look into the journal of this system, and go back to try again.".to_owned();
    drop(events.send(Event::Progress(Progress::Failed { phase, what, remedy })));
}
