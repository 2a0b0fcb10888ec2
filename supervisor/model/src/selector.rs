//! Label and field selectors, as list and watch take them.

use serde_json::Value;

use crate::kinds::Registration;
use crate::meta;

/// Why a selector is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Not the grammar of label selectors.
    #[error(
        "`{0}` is no label requirement: write e.g. `app=web`, `app!=web`, `app in (web,db)`, \
         `app notin (web)`, `app` or `!app`"
    )]
    Requirement(String),
    /// A key or value that no label can have.
    #[error("label selector: {0}")]
    Label(String),
    /// Not `path=value`.
    #[error("`{0}` is no field requirement: write e.g. `metadata.name=web` or `status.phase!=Running`")]
    Field(String),
    /// A field that cannot be selected by.
    #[error("`{field}` cannot be selected by; {kind} has {known}")]
    Unselectable {
        /// What was asked for.
        field: String,
        /// Of which kind.
        kind: &'static str,
        /// What could be.
        known: String,
    },
}

/// Both selectors of a request: an object is chosen if it matches both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRequirement {
    Has(String),
    Lacks(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    pointer: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Parses the query parameters `labelSelector` and `fieldSelector`; empty ones choose all.
    ///
    /// # Errors
    /// Names the part that is not understood.
    pub fn parse(kind: &Registration, labels: &str, fields: &str) -> Result<Self, SelectorError> {
        let labels = split(labels).map(label_requirement).collect::<Result<_, _>>()?;
        let fields = split(fields).map(|part| field_requirement(kind, part));
        Ok(Self { labels, fields: fields.collect::<Result<_, _>>()? })
    }

    /// The one value that a field of the objects it chooses can have, if it asks for one; the field as a JSON pointer.
    pub fn only(&self, pointer: &str) -> Option<&str> {
        let asks = |field: &&FieldRequirement| field.equal && field.pointer == pointer;
        self.fields.iter().find(asks).map(|field| field.value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether it chooses an object.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(object))
            && self.fields.iter().all(|requirement| requirement.matches(object))
    }
}

impl LabelRequirement {
    fn matches(&self, object: &Value) -> bool {
        let value = |key: &str| meta::labels(object)?.get(key)?.as_str();
        match self {
            Self::Has(key) => value(key).is_some(),
            Self::Lacks(key) => value(key).is_none(),
            Self::In(key, values) => value(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => value(key).is_none_or(|v| values.iter().all(|w| w != v)),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let found = match object.pointer(&self.pointer) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        (found == self.value) == self.equal
    }
}

/// Splits at commas that are not between parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let parts = text.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

fn label_requirement(part: &str) -> Result<LabelRequirement, SelectorError> {
    let wrong = || SelectorError::Requirement(part.to_owned());
    let requirement = if let Some(key) = part.strip_prefix('!') {
        LabelRequirement::Lacks(key.trim().into())
    } else if let Some((key, value)) = part.split_once("!=") {
        LabelRequirement::NotIn(key.trim().into(), vec![value.trim().into()])
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        LabelRequirement::In(key.trim().into(), vec![value.trim().into()])
    } else if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(wrong)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => LabelRequirement::In(key.trim().into(), values),
            Some((key, "notin")) => LabelRequirement::NotIn(key.trim().into(), values),
            _ => return Err(wrong()),
        }
    } else {
        LabelRequirement::Has(part.into())
    };
    checked(requirement)
}

fn checked(requirement: LabelRequirement) -> Result<LabelRequirement, SelectorError> {
    let (key, values): (&str, &[String]) = match &requirement {
        LabelRequirement::Has(key) | LabelRequirement::Lacks(key) => (key, &[]),
        LabelRequirement::In(key, values) | LabelRequirement::NotIn(key, values) => (key, values),
    };
    meta::qualified(key).map_err(SelectorError::Label)?;
    values.iter().try_for_each(|value| meta::label_value(value)).map_err(SelectorError::Label)?;
    Ok(requirement)
}

fn field_requirement(kind: &Registration, part: &str) -> Result<FieldRequirement, SelectorError> {
    let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
        (field, value, false)
    } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (field, value, true)
    } else {
        return Err(SelectorError::Field(part.to_owned()));
    };
    let field = field.trim();
    let mut known = ["metadata.name", "metadata.namespace"].iter().chain(kind.selectable);
    if !known.clone().any(|name| *name == field) {
        let known = known.by_ref().copied().collect::<Vec<_>>().join(", ");
        return Err(SelectorError::Unselectable { field: field.into(), kind: kind.kind, known });
    }
    let pointer = format!("/{}", field.replace('.', "/"));
    Ok(FieldRequirement { pointer, value: value.trim().into(), equal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{BUNDLE, EVENT};
    use serde_json::json;

    fn chosen(labels: &str) -> Vec<&'static str> {
        let objects = [
            ("web", json!({"metadata": {"labels": {"app": "web", "tier": "front"}}})),
            ("db", json!({"metadata": {"labels": {"app": "db"}}})),
            ("bare", json!({"metadata": {}})),
        ];
        let selector = Selector::parse(&BUNDLE, labels, "").unwrap();
        objects.iter().filter(|(_, object)| selector.matches(object)).map(|(name, _)| *name).collect()
    }

    #[test]
    fn labels_are_compared_by_equality_sets_and_presence() {
        assert_eq!(chosen(""), ["web", "db", "bare"]);
        assert_eq!(chosen("app=web"), ["web"]);
        assert_eq!(chosen("app==web"), ["web"]);
        assert_eq!(chosen("app!=web"), ["db", "bare"]);
        assert_eq!(chosen("app in (web, db)"), ["web", "db"]);
        assert_eq!(chosen("app notin (web)"), ["db", "bare"]);
        assert_eq!(chosen("app"), ["web", "db"]);
        assert_eq!(chosen("!tier"), ["db", "bare"]);
        assert_eq!(chosen("app in (web,db),tier=front"), ["web"]);
    }

    #[test]
    fn fields_are_compared_where_the_kind_allows_it() {
        let event = json!({"involvedObject": {"name": "web"}, "type": "Warning"});
        let matches = |fields| Selector::parse(&EVENT, "", fields).unwrap().matches(&event);
        assert!(matches("involvedObject.name=web,type!=Normal"));
        assert!(!matches("involvedObject.name=web,type=Normal"));
        assert!(matches("involvedObject.uid="));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let refused = |labels, fields| Selector::parse(&BUNDLE, labels, fields).unwrap_err().to_string();
        assert!(refused("app within (a)", "").contains("app within (a)"));
        assert!(refused("app in (a", "").contains("app in (a"));
        assert!(refused("a b=c", "").contains("a b"));
        assert!(refused("", "metadata.name").contains("no field requirement"));
        assert_eq!(
            refused("", "spec.image=x"),
            "`spec.image` cannot be selected by; Bundle has metadata.name, metadata.namespace, status.phase"
        );
    }
}
