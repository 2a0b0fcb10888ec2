//! `berth-installer validate` and `schema`: what can be said of a `berth.toml` without a machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::{Config, Fault, schema};

/// Which file, and how to tell.
#[derive(Debug, Args)]
pub struct Validate {
    /// The file.
    #[arg(default_value = "berth.toml")]
    pub file: PathBuf,
    /// Tell it to programs.
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether the file can be used.
    pub valid: bool,
    /// What is wrong with it.
    pub errors: Vec<Fault>,
    /// What is allowed and better otherwise.
    pub warnings: Vec<Fault>,
}

impl Verdict {
    fn of(errors: Vec<Fault>, warnings: Vec<Fault>) -> Self {
        Self { valid: errors.is_empty(), errors, warnings }
    }

    /// One line for each thing, and one for all.
    pub fn text(&self, name: &str) -> String {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}\n"));
        let mut text: String = self.errors.iter().map(|error| format!("{error}\n")).chain(warnings).collect();
        text += &match self.errors.len() {
            0 => format!("{name} can be used.\n"),
            1 => format!("{name} cannot be used: 1 thing to put right.\n"),
            many => format!("{name} cannot be used: {many} things to put right.\n"),
        };
        text
    }

    /// The same for programs: `{"valid": false, "errors": [{"name", "line", "column", "path", "message"}], "warnings": []}`.
    pub fn json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }
}

/// Judges a file, and that the files are there which it names.
pub fn judge(file: &Path) -> Verdict {
    let name = file.file_name().map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into_owned());
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("cannot be read: {error}; name a file of text that is there");
            return Verdict::of(vec![Fault::elsewhere(file.display().to_string(), "", message)], Vec::new());
        }
    };
    match Config::parse(&text, &name) {
        Ok(config) => {
            let beside = file.parent().unwrap_or(Path::new("."));
            Verdict::of(config.missing_files(beside, &text, &name), config.warnings(&text, &name))
        }
        Err(faults) => Verdict::of(faults, Vec::new()),
    }
}

fn read(file: &Path) -> io::Result<Zeroizing<String>> {
    fs::read_to_string(file).map(Zeroizing::new)
}

/// The schema as it is printed.
pub fn printed_schema() -> String {
    format!("{:#}\n", schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("berth.toml"), text).unwrap();
        fs::write(folder.path().join("web.yaml"), "kind: Bundle").unwrap();
        judge(&folder.path().join("berth.toml"))
    }

    #[test]
    fn a_file_that_can_be_used_is_said_to_be_and_warnings_do_not_change_that() {
        let good = verdict("version = 1\n[[bundles]]\nfile = 'web.yaml'\n");
        assert_eq!((good.valid, good.text("berth.toml").as_str()), (true, "berth.toml can be used.\n"));
        let warned = verdict("version = 1\n[notify]\nurl = 'http://example.org'\nsecret = '0123456789abcdef'\n");
        assert!(warned.valid);
        assert!(warned.text("berth.toml").starts_with("warning: berth.toml:3:7: notify.url: "), "{}", warned.text(""));
    }

    #[test]
    fn errors_are_counted_and_told_one_a_line_or_as_json() {
        let bad = verdict("version = 1\nhostnam = 'attic'\n[[bundles]]\nfile = 'nosuch.yaml'\n");
        let expected = "berth.toml:2:1: hostnam: is not known; did you mean `hostname`?\n\
                        berth.toml cannot be used: 1 thing to put right.\n";
        assert_eq!(bad.text("berth.toml"), expected);
        let json: serde_json::Value = serde_json::from_str(&bad.json()).unwrap();
        assert_eq!(json["errors"][0]["line"], 2);
        assert_eq!(json["errors"][0]["path"], "hostnam");
    }

    #[test]
    fn a_file_that_is_named_and_not_there_is_an_error() {
        let bad = verdict("version = 1\n[[bundles]]\nfile = 'nosuch.yaml'\n");
        assert!(
            bad.text("berth.toml").starts_with("berth.toml:3:8: bundles[0].file: there is no file"),
            "{}",
            bad.text("")
        );
        let gone = judge(Path::new("/nosuch/berth.toml"));
        assert!(!gone.valid && gone.text("").contains("cannot be read"));
    }
}
