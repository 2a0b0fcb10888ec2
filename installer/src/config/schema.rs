//! The schema of the file, made from its types, and what it finds wrong with a file: keys that are not known or are
//! missing, values of the wrong kind, words that are none of a few.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;

/// How alike two words are of which one was meant for the other.
const ALIKE: f64 = 0.8;

/// JSON Schema (2020-12) of `berth.toml`. Its descriptions are what users read.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(without_null as fn(&mut Schema)));
    let mut schema = Value::from(settings.into_generator().into_root_schema_for::<Config>());
    schema["title"] = json!("berth.toml");
    schema
}

/// TOML has no null: what may be left out is of one kind all the same.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("default");
    if let Some(kinds) = object.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            object.insert("type".to_owned(), kind);
        }
    }
    let Some(Value::Array(ways)) = object.get("anyOf").cloned() else { return };
    let mut ways = ways.into_iter().filter(|way| way["type"] != "null");
    if let (Some(Value::Object(only)), None) = (ways.next(), ways.next()) {
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// What a schema finds wrong: where in the text, at which key, and what.
pub(super) struct Finding {
    pub byte: usize,
    pub path: String,
    pub message: String,
}

/// Takes out of a tree all that its schema does not allow.
///
/// # Returns
/// What was taken out or is missing, and why.
pub(super) fn prune(schema: &Value, tree: &mut Spanned<DeTable<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let byte = tree.span().start;
    table(schema, tree.get_mut(), byte, "", &mut findings);
    findings
}

fn table(schema: &Value, table: &mut DeTable<'_>, byte: usize, path: &str, findings: &mut Vec<Finding>) {
    let Some(known) = schema["properties"].as_object() else { return };
    let missing = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for key in missing.filter(|key| !table.contains_key(*key)) {
        findings.push(Finding {
            byte,
            path: joined(path, key),
            message: format!("is missing; {}", example(&known[key])),
        });
    }
    let keys: Vec<(String, usize)> = table.keys().map(|key| (key.get_ref().to_string(), key.span().start)).collect();
    for (key, byte) in keys {
        let path = joined(path, &key);
        let stays = match (known.get(&key), table.get_mut(key.as_str())) {
            (Some(schema), Some(value)) => is_kept(schema, value, &path, findings),
            _ => {
                findings.push(Finding { byte, path, message: unknown(&key, known.keys().map(String::as_str)) });
                false
            }
        };
        if !stays {
            table.remove(key.as_str());
        }
    }
}

/// Looks at one value; whether it may stay.
fn is_kept(schema: &Value, value: &mut Spanned<DeValue<'_>>, path: &str, findings: &mut Vec<Finding>) -> bool {
    let byte = value.span().start;
    if let Some(message) = wrong(schema, value.get_ref()) {
        findings.push(Finding { byte, path: path.to_owned(), message });
        return false;
    }
    match value.get_mut() {
        DeValue::Table(inner) => table(schema, inner, byte, path, findings),
        DeValue::Array(items) => {
            for at in (0..items.len()).rev() {
                let Some(item) = items.get_mut(at) else { continue };
                if !is_kept(&schema["items"], item, &format!("{path}[{at}]"), findings) {
                    return false;
                }
            }
        }
        _ => {}
    }
    true
}

/// What is wrong with a value by itself; never says what a text is, as it may be secret.
fn wrong(schema: &Value, value: &DeValue<'_>) -> Option<String> {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => schema["oneOf"][0]["type"].as_str().into_iter().collect(),
    };
    let (is, named) = kind(value);
    if !kinds.is_empty() && !kinds.contains(&is) {
        return Some(format!("is {named}; {}", example(schema)));
    }
    if schema["minLength"] == 1 && value.as_str() == Some("") {
        return Some("is empty; write something, or leave the key out".to_owned());
    }
    if let (Some(number), Some(least), Some(most)) =
        (integer(value), number(schema, "minimum"), number(schema, "maximum"))
        && !(least..=most).contains(&number)
    {
        return Some(format!("is {number}; use {least} to {most}"));
    }
    let words: Vec<&str> = words(schema);
    let text = value.as_str().filter(|text| !words.is_empty() && !words.contains(text))?;
    let near = closest(text, words.iter().copied());
    let meant = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    Some(format!("`{text}` is not known; {meant}use {}", listed(&words)))
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let digits = value.as_integer()?;
    i128::from_str_radix(digits.as_str(), digits.radix()).ok()
}

fn number(schema: &Value, name: &str) -> Option<i128> {
    schema[name].as_i64().map(i128::from)
}

/// As JSON Schema calls it, and as people do.
fn kind(value: &DeValue<'_>) -> (&'static str, &'static str) {
    match value {
        DeValue::String(_) => ("string", "a text"),
        DeValue::Integer(_) => ("integer", "a number"),
        DeValue::Float(_) => ("number", "a number with a point"),
        DeValue::Boolean(_) => ("boolean", "true or false"),
        DeValue::Datetime(_) => ("date", "a date or time"),
        DeValue::Array(_) => ("array", "a list"),
        DeValue::Table(_) => ("object", "a table"),
    }
}

/// What to write instead of something of the wrong kind.
fn example(schema: &Value) -> String {
    let words = words(schema);
    let kind = schema["type"].as_str().or_else(|| schema["type"][1].as_str()).unwrap_or_default();
    match kind {
        _ if !words.is_empty() => format!("use {}", listed(&words)),
        _ if !schema["const"].is_null() => format!("write {}", schema["const"]),
        "integer" => "write a number without quotes".to_owned(),
        "boolean" => "write true or false, without quotes".to_owned(),
        "array" => "write a list: [ ... ]".to_owned(),
        "object" => "write a table".to_owned(),
        _ => "write text in quotes".to_owned(),
    }
}

/// The words of which a value must be one; none if it may be anything.
pub(super) fn words(schema: &Value) -> Vec<&str> {
    let alone = schema["enum"].as_array().into_iter().flatten();
    let described = schema["oneOf"].as_array().into_iter().flatten().map(|way| &way["const"]);
    alone.chain(described).filter_map(Value::as_str).collect()
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        few => few.join(""),
    }
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match closest(key, known.clone()) {
        Some(near) => format!("is not known; did you mean `{near}`?"),
        None => format!("is not known; use {}", listed(&known.collect::<Vec<_>>())),
    }
}

/// The one of many that was probably meant.
pub(super) fn closest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let likeness = known.map(|name| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name));
    let best = likeness.filter(|(alike, _)| *alike >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, name)| name)
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
