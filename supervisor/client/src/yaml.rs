//! Manifests in and out: YAML with several documents, JSON, and lists of either.

use serde_json::Value;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// Not YAML, or not what a manifest may hold.
    #[error("cannot read {origin}")]
    Read {
        /// The file.
        origin: String,
        /// Where and why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// Something that begins like JSON and is none.
    #[error("cannot read {origin}")]
    ReadJson {
        /// The file.
        origin: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A document lacks what every object has.
    #[error("document {number} of {origin} has no {field}")]
    Incomplete {
        /// The file.
        origin: String,
        /// Counted from 1.
        number: usize,
        /// What is missing.
        field: &'static str,
    },
    /// Nothing in it.
    #[error("{origin} holds no document")]
    Empty {
        /// The file.
        origin: String,
    },
    /// An answer that cannot be written as YAML.
    #[error("cannot write the answer as YAML")]
    Write(#[source] serde_saphyr::SerializeError),
}

/// Reads all objects of a manifest; a `List` counts as its items.
///
/// # Errors
/// It cannot be read, is empty, or an object lacks `apiVersion`, `kind` or `metadata.name`.
pub fn objects(origin: &str, text: &str) -> Result<Vec<Value>, YamlError> {
    let documents = documents(origin, text)?;
    let objects: Vec<Value> = documents.into_iter().flat_map(flatten).collect();
    if objects.is_empty() {
        return Err(YamlError::Empty { origin: origin.to_owned() });
    }
    for (index, object) in objects.iter().enumerate() {
        complete(origin, index + 1, object)?;
    }
    Ok(objects)
}

/// Reads all documents, whatever they are; empty ones are left out.
///
/// # Errors
/// It cannot be read.
pub fn documents(origin: &str, text: &str) -> Result<Vec<Value>, YamlError> {
    let yaml = serde_saphyr::from_multiple_with_options(text, options());
    if !text.trim_start().starts_with(['{', '[']) {
        return yaml.map_err(|source| YamlError::Read { origin: origin.to_owned(), source: Box::new(source) });
    }
    let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    // What begins like JSON can still be YAML in flow style.
    json.or_else(|source| yaml.map_err(|_| YamlError::ReadJson { origin: origin.to_owned(), source }))
}

/// As kubectl reads: unquoted `yes` is a truth value and `0755` is octal. Where a text is wanted
/// the server then refuses them by field, instead of storing something else than was meant.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false }
}

/// Writes one document.
///
/// # Errors
/// The value cannot be written, which no JSON value should bring about.
pub fn to_string(value: &Value) -> Result<String, YamlError> {
    // Long texts stay on their line, so that they can be searched and copied.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options).map_err(YamlError::Write)
}

fn flatten(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(items) => {
            document["items"] = items;
            vec![document]
        }
        None => vec![document],
    }
}

fn complete(origin: &str, number: usize, object: &Value) -> Result<(), YamlError> {
    let fields = [("apiVersion", "/apiVersion"), ("kind", "/kind"), ("metadata.name", "/metadata/name")];
    let missing = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty);
    match fields.into_iter().find(|(_, pointer)| missing(pointer)) {
        Some((field, _)) => Err(YamlError::Incomplete { origin: origin.to_owned(), number, field }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        let mut all = documents("test", text).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn several_documents_are_read_and_empty_ones_left_out() {
        let text = "---\n# nothing\n---\nkind: A\n---\n\n---\nkind: B\n";
        assert_eq!(documents("test", text).unwrap(), [json!({"kind": "A"}), json!({"kind": "B"})]);
    }

    #[test]
    fn a_quoted_word_stays_a_string_and_a_number_a_number() {
        let text = "a: \"yes\"\nb: '0755'\nc: 8080\nd: true\ne: \"1.20\"\nf: 0.5\ng: ~\nh: 2026-11-21\n";
        let expected = json!({"a": "yes", "b": "0755", "c": 8080, "d": true, "e": "1.20", "f": 0.5, "g": null,
                              "h": "2026-11-21"});
        assert_eq!(read(text), expected);
    }

    #[test]
    fn an_unquoted_word_is_read_as_kubectl_reads_it() {
        let text = "a: yes\nb: 0755\nc: web\nd: 1e3x\ne: 512Mi\n";
        assert_eq!(read(text), json!({"a": true, "b": 493, "c": "web", "d": "1e3x", "e": "512Mi"}));
    }

    #[test]
    fn blocks_keep_their_lines() {
        let text = "data:\n  literal: |\n    one\n      two\n\n    three\n  folded: >-\n    a\n    b\n";
        assert_eq!(read(text), json!({"data": {"literal": "one\n  two\n\nthree\n", "folded": "a b"}}));
    }

    #[test]
    fn what_other_readers_would_take_for_something_else_is_quoted() {
        for word in [
            "yes",
            "no",
            "on",
            "Off",
            "y",
            "n",
            "true",
            "null",
            "~",
            "0755",
            "0x1f",
            "1e3",
            "1.20",
            "",
            " x",
            "12:30",
            "2026-11-21",
            "a: b",
            "# c",
            "- d",
            "*e",
            "!f",
            "%g",
            "@h",
            "`i`",
            ".inf",
            "1_000",
            "=",
        ] {
            let text = to_string(&json!({ "value": word })).unwrap();
            assert!(text.starts_with("value: '") || text.starts_with("value: \""), "{text}");
            assert_eq!(read(&text), json!({ "value": word }), "{text}");
        }
    }

    #[test]
    fn a_script_in_a_config_map_survives() {
        let script = "#!/bin/sh\nset -e\n\techo \"$HOME: it's\"\n\n\n";
        for text in
            [script, "\n", "x\n", "  indented first\nsecond\n", "trailing  \nspace", "tab\t\r\n", "\u{85}\u{2028}"]
        {
            let value = json!({"data": {"run.sh": text}});
            let written = to_string(&value).unwrap();
            assert_eq!(read(&written), value, "{written}");
        }
    }

    #[test]
    fn a_list_counts_as_its_items() {
        let text = r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}},
            {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}]}"#;
        let names: Vec<Value> = objects("test", text).unwrap().iter().map(|o| o["metadata"]["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_begins_with_a_brace_may_be_json_or_flow_style_yaml() {
        assert_eq!(documents("test", "{\"a\": 1}\n{\"b\": 2}").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(read("{a: [x, z]}"), json!({"a": ["x", "z"]}));
        let error = documents("web.json", "{\"a\": [1, }").unwrap_err();
        assert_eq!(error.to_string(), "cannot read web.json");
    }

    #[test]
    fn an_object_is_taken_as_it_is() {
        for text in [
            "{apiVersion: v1, kind: A, metadata: {name: x}}",
            "{apiVersion: v1, kind: A, metadata: {name: x}, items: [1]}",
        ] {
            assert_eq!(objects("test", text).unwrap(), [read(text)]);
        }
    }

    #[test]
    fn a_long_text_stays_on_its_line() {
        let digest = format!("registry.example/team/web@sha256:{}", "0123456789abcdef".repeat(8));
        assert_eq!(to_string(&json!({ "image": digest })).unwrap(), format!("image: {digest}\n"));
    }

    #[test]
    fn a_document_without_a_name_is_pointed_out() {
        let error = objects("web.yaml", "kind: A\napiVersion: v1\nmetadata: {name: x}\n---\nkind: B\napiVersion: v1\n");
        assert_eq!(error.unwrap_err().to_string(), "document 2 of web.yaml has no metadata.name");
        assert_eq!(objects("-", "# none\n").unwrap_err().to_string(), "- holds no document");
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[ -~\\n\\t\u{e9}\u{1F600}]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-zA-Z0-9./_-]{1,12}|[ -~]{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(value in json_value()) {
            let value = json!({ "value": value });
            let text = to_string(&value).unwrap();
            let back = documents("test", &text).map_err(|e| TestCaseError::fail(format!("{e:?}\n{text}")))?;
            prop_assert_eq!(back, vec![value], "{}", text);
        }
    }
}
