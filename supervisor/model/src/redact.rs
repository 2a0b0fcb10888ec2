//! What may be shown to others: objects and texts without what could be secret.
//!
//! The safe choice throughout: values of Secrets, ConfigMaps and environment variables go whole, whatever they are, and
//! only their names stay. Where a text may hold what a service wrote, it is cut there, unless that is wanted.

use serde_json::{Value, json};

/// What stands in place of a value.
pub const REDACTED: &str = "(redacted)";
/// What comes after this in an error was written by a service.
pub const LAST_OUTPUT: &str = "its last output was:";
/// What comes after this in an error was said by a command in a service.
pub const AND_SAID: &str = "and said:";

/// Lists of words that a program is started with.
const COMMANDS: [&str; 4] = ["args", "command", "entrypoint", "cmd"];
/// The sides of a change.
const BOTH: [&str; 2] = ["before", "after"];
/// Maps from names to values that may be anything, wherever they are: a change set holds whole objects.
const MAPS: [&str; 3] = ["data", "stringData", "binaryData"];
/// An annotation that holds the whole object once more.
const WHOLE: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// A name with one of these in it is that of a secret.
const TELLING: [&str; 6] = ["pass", "secret", "token", "key", "credential", "auth"];

/// The object without what could be secret; with `output` what services wrote stays.
#[must_use]
pub fn object(object: &Value, output: bool) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove(WHOLE);
        }
    }
    clean(&mut object, output);
    object
}

/// The text without what a service wrote, and without what stands between `://` and `@`.
#[must_use]
pub fn text(text: &str, output: bool) -> String {
    let cut = [LAST_OUTPUT, AND_SAID].into_iter().filter_map(|mark| text.find(mark).map(|at| at + mark.len())).min();
    let text = match cut {
        Some(at) if !output => format!("{} {REDACTED}", text.get(..at).unwrap_or_default()),
        _ => text.to_owned(),
    };
    without_user(&text)
}

fn hide(value: &mut Value) {
    *value = Value::from(REDACTED);
}

fn clean(value: &mut Value, output: bool) {
    match value {
        Value::String(said) => *said = text(said, output),
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, output)),
        Value::Object(fields) => {
            if fields.contains_key("reference") {
                // Where a reference of a variable led.
                fields.get_mut("value").into_iter().for_each(hide);
            }
            if fields.contains_key("field") {
                // What a change set found in a field, and what it puts there.
                BOTH.into_iter().for_each(|side| fields.get_mut(side).into_iter().for_each(hide));
            }
            for (name, field) in fields {
                match (name.as_str(), &mut *field) {
                    (name, Value::Object(values)) if MAPS.contains(&name) => values.values_mut().for_each(hide),
                    ("env", Value::Array(variables)) => variables.iter_mut().for_each(variable),
                    ("output", Value::Array(lines)) if !output => {
                        *field = json!([format!("{} lines {REDACTED}", lines.len())])
                    }
                    (name, Value::Array(words)) if COMMANDS.contains(&name) => command(words),
                    _ => clean(field, output),
                }
            }
        }
        _ => {}
    }
}

/// `NAME=value`, or an object with a value.
fn variable(variable: &mut Value) {
    match variable {
        Value::String(text) => *text = format!("{}={REDACTED}", text.split('=').next().unwrap_or_default()),
        Value::Object(fields) => fields.get_mut("value").into_iter().for_each(hide),
        _ => {}
    }
}

/// `--password=x`, `--password x`, and `PASSWORD=x` anywhere in a word, as in a line of shell.
fn command(words: &mut [Value]) {
    let mut next_is_secret = false;
    for word in words {
        let Some(said) = word.as_str() else { continue };
        let told = if next_is_secret { REDACTED.to_owned() } else { without_user(&assignments(said)) };
        next_is_secret = said.starts_with('-') && !said.contains('=') && tells(said);
        *word = Value::from(told);
    }
}

/// Of every `name=value` whose name tells, without the value.
fn assignments(word: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) if tells(name) => format!("{name}={REDACTED}"),
        _ => part.to_owned(),
    };
    word.split(' ').map(part).collect::<Vec<_>>().join(" ")
}

fn tells(name: &str) -> bool {
    let name = name.to_lowercase();
    TELLING.iter().any(|telling| name.contains(telling))
}

/// `https://user:password@host` without the user.
fn without_user(text: &str) -> String {
    let mut parts = text.split("://");
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c.is_whitespace() || c == '"').unwrap_or(part.len());
        let (host, rest) = part.split_at(end);
        let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, host)| format!("{REDACTED}@{host}"));
        told = format!("{told}://{host}{rest}");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_and_values_go() {
        let secret = json!({"metadata": {"name": "db", "managedFields": [1], "annotations": {WHOLE: "canary"}},
                            "data": {"password": "canary"}, "stringData": {"a": "canary"}});
        let shown = object(&secret, true);
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(shown["data"], json!({"password": REDACTED}));
        assert_eq!(shown["metadata"], json!({"name": "db", "annotations": {}}));
    }

    #[test]
    fn variables_and_arguments_are_found_wherever_they_are() {
        let revision = json!({"spec": {
            "bundleSpec": {
                "env": [{"name": "MODE", "value": "canary"}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
                "args": ["--password", "canary", "--api-token=canary", "--port", "80", "MYSQL_PASSWORD=canary exec mysqld"],
                "health": {"exec": {"command": ["curl", "http://root:canary@localhost/x"]}}},
            "resolved": [{"reference": "${{db.TOKEN}}", "value": "canary"}],
            "image": {"reference": "r/web:1", "env": ["PATH=canary"], "entrypoint": ["/x"]}}});
        let shown = object(&revision, true);
        assert!(!shown.to_string().contains("canary"), "{shown}");
        let of = &shown["spec"]["bundleSpec"];
        assert_eq!(of["env"][1]["valueFrom"]["secretKeyRef"]["name"], "s");
        let args =
            ["--password", REDACTED, "--api-token=(redacted)", "--port", "80", "MYSQL_PASSWORD=(redacted) exec mysqld"];
        assert_eq!(of["args"], json!(args));
        assert_eq!(of["health"]["exec"]["command"][1], "http://(redacted)@localhost/x");
        assert_eq!(shown["spec"]["image"]["env"], json!(["PATH=(redacted)"]));
    }

    #[test]
    fn what_is_staged_or_was_applied_by_a_change_set_is_redacted_like_what_it_is_about() {
        let set = json!({
            "spec": {"entries": [
                {"kind": "ConfigMap", "object": {"data": {"a": "canary"}, "binaryData": {"b": "canary"}}},
                {"kind": "Bundle", "patch": {"spec": {"env": [{"name": "A", "value": "canary"}]}}}]},
            "status": {"results": [{"changes": [{"field": "spec.env[0].value", "before": "canary", "after": "canary"}]}]}});
        let shown = object(&set, true);
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(shown["spec"]["entries"][0]["object"]["data"], json!({"a": REDACTED}));
        assert_eq!(shown["status"]["results"][0]["changes"][0]["field"], "spec.env[0].value");
    }

    #[test]
    fn what_a_service_wrote_is_there_only_if_it_is_wanted() {
        let failed = json!({"status": {
            "failure": {"output": ["canary", "canary"]},
            "conditions": [{"message": "it ended. its last output was:\ncanary\ncanary"}],
            "error": {"message": "the command ended with exit code 1 and said: canary"}}});
        let shown = object(&failed, false);
        assert!(!shown.to_string().contains("canary"), "{shown}");
        assert_eq!(shown["status"]["failure"]["output"], json!(["2 lines (redacted)"]));
        assert_eq!(shown["status"]["conditions"][0]["message"], "it ended. its last output was: (redacted)");
        assert_eq!(object(&failed, true), failed);
    }
}
