//! What is wrong with a configuration, and where.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong, as users read it: `berth.toml:4:12: disk.min-size: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, or where else it was said.
    pub name: String,
    /// Line in the file, from 1; none if it was not said in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Character in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The key, e.g. `users[0].role`; empty for the file as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Fault {
    /// One that was not said in a file.
    pub fn elsewhere(name: impl Into<String>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), line: None, column: None, path: path.into(), message: message.into() }
    }

    /// One at a byte of a file.
    pub(super) fn at(name: &str, text: &str, byte: usize, path: String, message: String) -> Self {
        let (line, column) = place(text, byte);
        Self { name: name.to_owned(), line: Some(line), column: Some(column), path, message }
    }
}

/// Line and character of a byte, both from 1.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.name),
            _ => self.name.clone(),
        };
        let parts = [&place, &self.path, &self.message];
        let said: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        f.write_str(&said.join(": "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters_from_one() {
        let text = "a = 1\nö = 2\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, 4), (1, 5));
        assert_eq!(place(text, 8), (2, 2));
        assert_eq!(place(text, text.len()), (3, 1));
        assert_eq!(place(text, 99), (3, 1));
    }
}
