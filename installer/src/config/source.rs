//! From a text to a configuration, and from a key back to its place in the text.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::schema::{self, prune};
use super::{Config, Fault, rules};

/// See [`Config::parse`].
pub(super) fn parse(text: &str, name: &str) -> Result<Config, Vec<Fault>> {
    let (mut tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(in_order(errors.iter().map(|error| unreadable(text, name, error)).collect()));
    }
    let whole = tree.clone();
    let findings = prune(&schema::schema(), &mut tree);
    let mut faults: Vec<Fault> = findings
        .into_iter()
        .map(|finding| Fault::at(name, text, finding.byte, finding.path, finding.message))
        .collect();
    let read = read(tree, text, name, &mut faults);
    let config = match read {
        Some(config) if faults.is_empty() => config,
        _ => return Err(in_order(faults)),
    };
    let broken = rules::broken(&config);
    if broken.is_empty() { Ok(config) } else { Err(in_order(found(&whole, text, name, broken))) }
}

/// What was said of some keys, at their places in a text.
pub(super) fn placed(text: &str, name: &str, said: Vec<(String, String)>) -> Vec<Fault> {
    let (tree, _) = DeTable::parse_recoverable(text);
    in_order(found(&tree, text, name, said))
}

fn found(tree: &Spanned<DeTable<'_>>, text: &str, name: &str, said: Vec<(String, String)>) -> Vec<Fault> {
    said.into_iter()
        .map(|(path, message)| Fault::at(name, text, byte_of(tree, &path).unwrap_or(0), path, message))
        .collect()
}

fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| (fault.line, fault.column));
    faults
}

/// A text that is no TOML. The parser's words name what it expected, not what the text is.
fn unreadable(text: &str, name: &str, error: &Error) -> Fault {
    let byte = error.span().map_or(0, |span| span.start);
    let message = format!("this is no TOML: {}; put it right, and what comes after it is read", error.message());
    Fault::at(name, text, byte, String::new(), message)
}

/// Reads a tree, takes out what cannot be read, and begins again: so every such value is told at once.
fn read(mut tree: Spanned<DeTable<'_>>, text: &str, name: &str, faults: &mut Vec<Fault>) -> Option<Config> {
    loop {
        let error = match Config::deserialize(Deserializer::from(tree.clone())) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let byte = error.span().map_or(0, |span| span.start);
        let path = taken(tree.get_mut(), byte, "");
        // What is missing was told before, or was taken out here.
        if !error.message().starts_with("missing field") {
            let path = path.clone().unwrap_or_default();
            faults.push(Fault::at(name, text, byte, path, error.message().to_owned()));
        }
        path?;
    }
}

/// Takes out what begins at a byte, and tells its path. With an item of a list goes the list.
fn taken(table: &mut DeTable<'_>, byte: usize, path: &str) -> Option<String> {
    let keys: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
    keys.into_iter().find_map(|key| {
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let value = table.get_mut(key.as_str())?;
        let begins = value.span().start == byte;
        let (found, whole) = match value.get_mut() {
            DeValue::Table(inner) => (taken(inner, byte, &here), false),
            DeValue::Array(items) => taken_from_list(items, byte, &here),
            _ => (None, false),
        };
        let found = found.map(|found| (found, whole)).or_else(|| begins.then_some((here, true)))?;
        if found.1 {
            table.remove(key.as_str());
        }
        Some(found.0)
    })
}

/// The path of what begins at a byte, and whether it is an item of this list itself.
fn taken_from_list(items: &mut [Spanned<DeValue<'_>>], byte: usize, path: &str) -> (Option<String>, bool) {
    for (at, item) in items.iter_mut().enumerate() {
        let here = format!("{path}[{at}]");
        let begins = item.span().start == byte;
        let inner = match item.get_mut() {
            DeValue::Table(inner) => taken(inner, byte, &here),
            _ => None,
        };
        if inner.is_some() || begins {
            return (Some(inner.clone().unwrap_or(here)), inner.is_none());
        }
    }
    (None, false)
}

/// Where the value of a key stands, or what is nearest around it.
fn byte_of(tree: &Spanned<DeTable<'_>>, path: &str) -> Option<usize> {
    let mut parts = path.split(['.', '[', ']']).filter(|part| !part.is_empty());
    let first = tree.get_ref().get(parts.next()?)?;
    let mut at = first;
    for part in parts {
        let inner = match at.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(items) => part.parse().ok().and_then(|at: usize| items.get(at)),
            _ => None,
        };
        let Some(inner) = inner else { break };
        at = inner;
    }
    Some(at.span().start)
}
