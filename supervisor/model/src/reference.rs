//! References in the values of a bundle's variables: `${{db.HOST}}`, `${{db.PORT}}`,
//! `${{db.PORT.metrics}}`, `${{secret.mail}}`, `${{secret.mail.password}}`.
//!
//! A value is parsed into a [`Template`] once; what its references lead to is found by
//! [`crate::projection`], together with all else that a bundle takes from others. Nothing here is
//! ever left as text: a value that is no template is refused when the bundle is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::id::{self, NameError};
use crate::resource::bundle::{BundleSpec, EnvVar};

/// What begins a reference.
const OPEN: &str = "${{";
/// What ends it.
const CLOSE: &str = "}}";
/// In the place of a bundle's name: what follows is a Secret.
const SECRET: &str = "secret";
/// The name under which a bundle is found.
pub const HOST: &str = "HOST";
/// The number of a bundle's first port; `PORT.<name>` is that of a named one.
pub const PORT: &str = "PORT";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// The name by which containers of the namespace find a bundle.
    Host {
        /// Whose.
        bundle: String,
    },
    /// The number of a port that a bundle listens on.
    Port {
        /// Whose.
        bundle: String,
        /// Which; the first it declares if not said.
        port: Option<String>,
    },
    /// A value of a Secret.
    Secret {
        /// The object.
        name: String,
        /// Which of its values; the only one if not said.
        key: Option<String>,
    },
}

/// A value with references in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Reference(Reference),
}

/// Why a value is no template. The message says how it would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No end.
    #[error("`${{{{` begins a reference that no `}}}}` ends; text that is to hold `${{{{` can come from a ConfigMap")]
    Open,
    /// Not of a known form.
    #[error(
        "`${{{{{0}}}}}` is no reference: write NAME.HOST, NAME.PORT or NAME.PORT.PORTNAME of a bundle, \
         secret.NAME or secret.NAME.KEY"
    )]
    Form(String),
    /// A part that cannot be a name.
    #[error("`${{{{{text}}}}}` is no reference: {source}")]
    Name {
        /// What is between the braces.
        text: String,
        /// Why.
        source: NameError,
    },
}

impl Reference {
    /// The bundle it leads to, if it is one.
    pub fn bundle(&self) -> Option<&str> {
        match self {
            Self::Host { bundle } | Self::Port { bundle, .. } => Some(bundle),
            Self::Secret { .. } => None,
        }
    }

    fn parse(text: &str) -> Result<Self, TemplateError> {
        let named = |name: &str| match id::dns_label(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(source) => Err(TemplateError::Name { text: text.to_owned(), source }),
        };
        let form = || TemplateError::Form(text.to_owned());
        let (first, rest) = text.split_once('.').ok_or_else(form)?;
        match (first, rest.split_once('.')) {
            (SECRET, Some((_, ""))) => Err(form()),
            (SECRET, Some((name, key))) => Ok(Self::Secret { name: named(name)?, key: Some(key.to_owned()) }),
            (SECRET, None) => Ok(Self::Secret { name: named(rest)?, key: None }),
            (bundle, None) if rest == HOST => Ok(Self::Host { bundle: named(bundle)? }),
            (bundle, None) if rest == PORT => Ok(Self::Port { bundle: named(bundle)?, port: None }),
            (bundle, Some((PORT, port))) => Ok(Self::Port { bundle: named(bundle)?, port: Some(named(port)?) }),
            _ => Err(form()),
        }
    }

    fn renamed(&mut self, old: &str, new: &str) {
        if let Self::Host { bundle } | Self::Port { bundle, .. } = self
            && bundle == old
        {
            new.clone_into(bundle);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(OPEN)?;
        match self {
            Self::Host { bundle } => write!(out, "{bundle}.{HOST}")?,
            Self::Port { bundle, port: None } => write!(out, "{bundle}.{PORT}")?,
            Self::Port { bundle, port: Some(port) } => write!(out, "{bundle}.{PORT}.{port}")?,
            Self::Secret { name, key: None } => write!(out, "{SECRET}.{name}")?,
            Self::Secret { name, key: Some(key) } => write!(out, "{SECRET}.{name}.{key}")?,
        }
        out.write_str(CLOSE)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (inner, after) = after.split_once(CLOSE).ok_or(TemplateError::Open)?;
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            pieces.push(Piece::Reference(Reference::parse(inner.trim())?));
            rest = after;
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        Ok(Self(pieces))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => out.write_str(text),
            Piece::Reference(reference) => write!(out, "{reference}"),
        })
    }
}

impl Template {
    /// What it refers to, in its order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            Piece::Text(_) => None,
        })
    }

    /// The text with the values in the places of the references.
    ///
    /// # Errors
    /// The first that `value` answers.
    pub fn filled<E>(&self, value: impl Fn(&Reference) -> Result<String, E>) -> Result<String, E> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Reference(reference) => value(reference),
        };
        self.0.iter().map(piece).collect()
    }
}

/// The template of a variable, if it has references. One that cannot be parsed was let in by nobody.
pub fn template(var: &EnvVar) -> Option<Template> {
    let template: Template = var.value.parse().ok().filter(|_| var.value_from.is_none())?;
    Some(template).filter(|template| template.references().next().is_some())
}

/// Every reference of a bundle, by the index of the variable that has it.
pub fn references(spec: &BundleSpec) -> Vec<(usize, Reference)> {
    let of = |(index, var): (usize, &EnvVar)| {
        let all: Vec<Reference> = template(var).iter().flat_map(Template::references).cloned().collect();
        all.into_iter().map(move |reference| (index, reference))
    };
    spec.env.iter().enumerate().flat_map(of).collect()
}

/// The bundles that a bundle may reach: those it names in `dependsOn`, and those it refers to.
pub fn dependencies(spec: &BundleSpec) -> BTreeSet<String> {
    let referred = references(spec).into_iter().filter_map(|(_, one)| one.bundle().map(str::to_owned));
    spec.depends_on.iter().cloned().chain(referred).collect()
}

/// What others can refer to of a bundle: `HOST`, `PORT` and `PORT.<name>`, with their values.
pub fn offers(name: &str, spec: &BundleSpec) -> BTreeMap<String, Vec<u8>> {
    let number = |port: u16| port.to_string().into_bytes();
    let first = spec.ports.first().map(|port| (PORT.to_owned(), number(port.container_port)));
    let named = spec.ports.iter().map(|port| (format!("{PORT}.{}", port.name), number(port.container_port)));
    [(HOST.to_owned(), name.as_bytes().to_vec())].into_iter().chain(first).chain(named).collect()
}

/// Leads all references and dependencies on one bundle to another name; whether there were any.
pub fn rename(spec: &mut BundleSpec, old: &str, new: &str) -> bool {
    let mut changed = false;
    for var in &mut spec.env {
        let Some(mut template) = template(var) else { continue };
        for piece in &mut template.0 {
            if let Piece::Reference(reference) = piece {
                reference.renamed(old, new);
            }
        }
        if template.references().ne(var.value.parse::<Template>().unwrap_or_default().references()) {
            var.value = template.to_string();
            changed = true;
        }
    }
    for name in spec.depends_on.iter_mut().filter(|name| *name == old) {
        new.clone_into(name);
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(values: &[&str]) -> BundleSpec {
        let env: Vec<_> = values.iter().map(|value| json!({"name": "A", "value": value})).collect();
        let ports = json!([{"name": "sql", "containerPort": 5432}, {"name": "metrics", "containerPort": 9187}]);
        serde_json::from_value(json!({"image": "r/web", "env": env, "ports": ports, "dependsOn": ["cache"]})).unwrap()
    }

    #[test]
    fn a_value_is_text_with_references_in_it() {
        let template: Template =
            "postgres://web:${{ secret.db.password }}@${{db.HOST}}:${{db.PORT.sql}}/web".parse().unwrap();
        let shown: Vec<String> = template.references().map(ToString::to_string).collect();
        assert_eq!(shown, ["${{secret.db.password}}", "${{db.HOST}}", "${{db.PORT.sql}}"]);
        let filled = template.filled(|one| Ok::<_, ()>(one.to_string().to_lowercase().replace(['$', '{', '}'], "")));
        assert_eq!(filled.unwrap(), "postgres://web:secret.db.password@db.host:db.port.sql/web");
    }

    #[test]
    fn a_key_of_a_secret_may_hold_dots_and_a_plain_value_is_no_template() {
        let key = |text: &str| match Reference::parse(text) {
            Ok(Reference::Secret { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!((key("secret.tls.tls.key").as_deref(), key("secret.mail")), (Some("tls.key"), None));
        assert_eq!(references(&spec(&["$HOME", "{{x}}", "${x}", ""])), []);
    }

    #[test]
    fn what_is_no_reference_is_told_with_what_would_be_one() {
        let told = |text: &str| text.parse::<Template>().unwrap_err().to_string();
        assert!(told("a ${{db.HOST").starts_with("`${{` begins a reference that no `}}` ends"), "{}", told("${{"));
        let forms =
            ["${{}}", "${{db}}", "${{db.host}}", "${{db.HOST.x}}", "${{secret.}}", "${{secret.a.}}", "${{.HOST}}"];
        for text in forms {
            assert!(told(text).contains("is no reference"), "{text}: {}", told(text));
        }
        assert!(told("${{Db.HOST}}").contains("is not a DNS label"));
    }

    #[test]
    fn a_bundle_offers_its_name_its_first_port_and_every_port_by_name() {
        let offered = offers("db", &spec(&[]));
        let pairs: Vec<String> =
            offered.iter().map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value))).collect();
        assert_eq!(pairs, ["HOST=db", "PORT=5432", "PORT.metrics=9187", "PORT.sql=5432"]);
    }

    #[test]
    fn a_bundle_depends_on_what_it_names_and_on_what_it_refers_to() {
        let spec = spec(&["${{db.HOST}}", "${{secret.mail}}", "${{cache.PORT}}"]);
        assert_eq!(dependencies(&spec).into_iter().collect::<Vec<_>>(), ["cache", "db"]);
    }

    #[test]
    fn a_new_name_is_followed_in_references_and_dependencies_and_nothing_else_is_touched() {
        let mut spec = spec(&["http://${{ cache.HOST }}:1/cache", "cache", "${{ db.HOST }}", "${{secret.cache}}"]);
        assert!(rename(&mut spec, "cache", "redis"));
        let values: Vec<&str> = spec.env.iter().map(|var| var.value.as_str()).collect();
        assert_eq!(values, ["http://${{redis.HOST}}:1/cache", "cache", "${{ db.HOST }}", "${{secret.cache}}"]);
        assert_eq!(spec.depends_on, ["redis"]);
        assert!(!rename(&mut spec, "cache", "redis"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_is_written_the_same(
            pieces in prop::collection::vec(prop_oneof![
                "[a-z$%{} ]{0,4}", Just("${{db.HOST}}".to_owned()), Just("${{secret.a.b}}".to_owned()),
                Just("${{".to_owned()), Just("}}".to_owned())], 0..6)
        ) {
            if let Ok(template) = pieces.concat().parse::<Template>() {
                let written = template.to_string();
                prop_assert_eq!(written.parse::<Template>(), Ok(template));
            }
        }
    }
}
