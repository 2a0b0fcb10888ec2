//! What shells and `man` are told of the command line: generated from it, so that it is always true.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;
use super::failure::Failure;

/// Writes the completions for a shell to stdout.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "berth", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script).map_err(Failure::Output)
}

/// Writes a manual page for each command into a directory.
pub(super) fn manual(directory: &Path) -> Result<(), Failure> {
    let written = clap_mangen::generate_to(Cli::command(), directory);
    written.map_err(|source| Failure::Write { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    fn each(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Command)) {
        visit(path, command);
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            each(one, &format!("{path} {}", one.get_name()), visit);
        }
    }

    #[test]
    fn every_command_and_every_flag_says_what_it_is_for() {
        let mut seen = 0;
        each(&Cli::command(), "berth", &mut |path, command| {
            seen += 1;
            assert!(command.get_about().is_some(), "`{path}` has no help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} of `{path}` has no help", argument.get_id());
            }
        });
        assert!(seen > 30, "only {seen} commands");
    }

    #[test]
    fn there_is_a_page_for_every_command_that_people_see() {
        let directory = tempfile::tempdir().unwrap();
        manual(directory.path()).unwrap();
        let mut wanted = Vec::new();
        each(&Cli::command(), "berth", &mut |path, _| wanted.push(path.replace(' ', "-") + ".1"));
        wanted.sort();
        let found = std::fs::read_dir(directory.path()).unwrap();
        let mut found: Vec<String> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, wanted);
        let page = std::fs::read_to_string(directory.path().join("berth-system-cleanup.1")).unwrap();
        assert!(page.contains("Only say what") && page.contains("dry\\-run"), "{page}");
    }
}
