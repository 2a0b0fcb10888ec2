//! Shows an operation's progress on stderr: a bar where a person watches, else one line per step.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::views::{OperationView, StepView, words};

/// How progress is shown.
#[derive(Debug)]
pub(super) enum Progress {
    /// A bar that moves.
    Bar(ProgressBar),
    /// A line for every step that ended.
    Lines(Told),
}

/// Which steps of which operation have been told.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeSet<(String, usize)>);

impl Progress {
    /// A bar needs a terminal that can move its cursor; any other is told line by line.
    pub fn new(on_terminal: bool) -> Self {
        let bar = bar();
        match on_terminal && !bar.is_hidden() {
            true => Self::Bar(bar),
            false => Self::Lines(Told::default()),
        }
    }

    /// Takes in the operation's newest state.
    pub fn show(&mut self, operation: &OperationView) -> Result<(), Failure> {
        match self {
            Self::Bar(bar) => move_bar(bar, operation),
            Self::Lines(told) => {
                for line in told.lines(operation) {
                    writeln!(std::io::stderr(), "{line}").map_err(Failure::Output)?;
                }
            }
        }
        Ok(())
    }
}

/// The screen belongs to whoever writes next.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} [{bar:30}] {percent:>3}% {wide_msg}");
    let bar = ProgressBar::new(100);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn move_bar(bar: &ProgressBar, operation: &OperationView) {
    let steps = &operation.status.steps;
    bar.set_length(100 * steps.len().max(1) as u64);
    bar.set_position(steps.iter().map(part).sum());
    bar.set_message(now(operation));
}

/// How much of a step is done, of 100.
fn part(step: &StepView) -> u64 {
    match is_over(step) {
        true => 100,
        false => u64::from(step.progress.min(100)),
    }
}

fn is_over(step: &StepView) -> bool {
    !matches!(step.state.as_str(), "Pending" | "Running")
}

/// What is going on, in a few words.
fn now(operation: &OperationView) -> String {
    let subject = &operation.spec.target.name;
    match operation.status.steps.iter().find(|step| step.state == "Running") {
        Some(step) if step.message.is_empty() => format!("{subject}: {}", words(&step.name)),
        Some(step) => format!("{subject}: {}, {}", words(&step.name), step.message),
        None if !operation.status.waiting.is_empty() => format!("{subject}: {}", operation.waits()),
        None => format!("{subject}: {}", words(&operation.status.state)),
    }
}

impl Told {
    /// A line for every step that is over and has not been told.
    fn lines(&mut self, operation: &OperationView) -> Vec<String> {
        let steps = &operation.status.steps;
        let over = steps.iter().enumerate().filter(|(_, step)| is_over(step));
        let fresh = over.filter(|(index, _)| self.0.insert((operation.name().to_owned(), *index)));
        let mut lines: Vec<String> = fresh.map(|(index, step)| line(operation, index, steps.len(), step)).collect();
        // No step has this number.
        let waits = !operation.status.waiting.is_empty();
        if waits && self.0.insert((operation.name().to_owned(), usize::MAX)) {
            lines.push(format!("{}: {}", operation.name(), operation.waits()));
        }
        lines
    }
}

fn line(operation: &OperationView, index: usize, total: usize, step: &StepView) -> String {
    let outcome = match step.state.as_str() {
        "Succeeded" => "done".to_owned(),
        other => words(other),
    };
    let said = if step.message.is_empty() { String::new() } else { format!(" ({})", step.message) };
    let head = format!("{} {}", words(&operation.spec.kind), operation.spec.target.name);
    format!("{head} [{}/{total}] {}: {outcome}{said}", index + 1, words(&step.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operation(states: &[(&str, &str)]) -> OperationView {
        let steps: Vec<_> = ["ResolveImage", "PullImage"]
            .iter()
            .zip(states)
            .map(|(name, (state, message))| json!({"name": name, "state": state, "message": message, "progress": 30}))
            .collect();
        OperationView::of(&json!({
            "metadata": {"name": "install-web-1"},
            "spec": {"kind": "Install", "target": {"kind": "Bundle", "namespace": "default", "name": "web"}},
            "status": {"state": "Running", "steps": steps}
        }))
    }

    #[test]
    fn every_step_is_told_once_when_it_is_over() {
        let mut told = Told::default();
        assert!(told.lines(&operation(&[("Running", ""), ("Pending", "")])).is_empty());
        let later = operation(&[("Succeeded", "sha256:abc"), ("Running", "")]);
        assert_eq!(told.lines(&later), ["install web [1/2] resolve image: done (sha256:abc)"]);
        assert!(told.lines(&later).is_empty());
        let end = operation(&[("Compensated", ""), ("Failed", "no such blob")]);
        assert_eq!(told.lines(&end), ["install web [2/2] pull image: failed (no such blob)"]);
    }

    #[test]
    fn the_bar_counts_steps_and_their_parts() {
        let bar = ProgressBar::hidden();
        move_bar(&bar, &operation(&[("Succeeded", ""), ("Running", "3 of 9 MiB")]));
        assert_eq!((bar.position(), bar.length()), (130, Some(200)));
        assert_eq!(bar.message(), "web: pull image, 3 of 9 MiB");
    }
}
