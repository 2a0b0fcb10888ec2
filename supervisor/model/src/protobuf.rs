//! Bodies as `kubectl` writes them for kinds that are Kubernetes' own: protobuf in an envelope, read into the JSON that
//! everybody else sends.
//!
//! What is read stands in one table of field numbers, which Kubernetes never gives to other fields. Values that are
//! empty are the same as none, as its encoder writes them all; what only a server writes is passed over.

use k8s_openapi::ByteString;
use serde_json::{Map, Value};

/// The media type of such a body.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// How every body begins.
const MAGIC: &[u8] = b"k8s\0";

/// A body that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not begin as it has to.
    #[error("the body is not in the envelope of Kubernetes, which begins with `k8s` and a zero byte")]
    NoEnvelope,
    /// It ends in the middle, or says what no encoder says.
    #[error("the body breaks off or is garbled in {place}")]
    Garbled {
        /// The message it was met in, as a path of fields; the kind for the whole.
        place: String,
    },
    /// The kind is not in the table.
    #[error("{kind} of {api_version} is not read as protobuf here; send application/json")]
    UnknownKind {
        /// `group/version`.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// The field is not in the table.
    #[error("field number {number} of {place} is not read as protobuf here; send application/json")]
    UnknownField {
        /// The message it was met in.
        place: String,
        /// Its number.
        number: u64,
    },
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Shape {
    /// A text.
    Text,
    /// Texts, each in a field of its own.
    Texts,
    /// True or false.
    Truth,
    /// A whole number.
    Number,
    /// A message.
    Of(&'static [Field]),
    /// Messages, each in a field of its own.
    Each(&'static [Field]),
    /// Texts by name.
    TextMap,
    /// Bytes by name, which JSON has in base64.
    BytesMap,
    /// Something that only a server writes.
    Servers,
}

/// A field of a message: its number, its name in JSON, and what it holds.
struct Field(u64, &'static str, Shape);

const METADATA: &[Field] = &[
    Field(1, "name", Shape::Text),
    Field(2, "generateName", Shape::Text),
    Field(3, "namespace", Shape::Text),
    Field(4, "selfLink", Shape::Servers),
    Field(5, "uid", Shape::Text),
    Field(6, "resourceVersion", Shape::Text),
    Field(7, "generation", Shape::Servers),
    Field(8, "creationTimestamp", Shape::Servers),
    Field(9, "deletionTimestamp", Shape::Servers),
    Field(10, "deletionGracePeriodSeconds", Shape::Servers),
    Field(11, "labels", Shape::TextMap),
    Field(12, "annotations", Shape::TextMap),
    Field(13, "ownerReferences", Shape::Each(OWNER)),
    Field(14, "finalizers", Shape::Texts),
    Field(17, "managedFields", Shape::Servers),
];

const OWNER: &[Field] = &[
    Field(1, "kind", Shape::Text),
    Field(3, "name", Shape::Text),
    Field(4, "uid", Shape::Text),
    Field(5, "apiVersion", Shape::Text),
    Field(6, "controller", Shape::Truth),
    Field(7, "blockOwnerDeletion", Shape::Truth),
];

const NAMESPACE: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(2, "spec", Shape::Of(&[Field(1, "finalizers", Shape::Texts)])),
    Field(3, "status", Shape::Servers),
];

const CONFIG_MAP: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(2, "data", Shape::TextMap),
    Field(3, "binaryData", Shape::BytesMap),
    Field(4, "immutable", Shape::Truth),
];

const SECRET: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(2, "data", Shape::BytesMap),
    Field(3, "type", Shape::Text),
    Field(4, "stringData", Shape::TextMap),
    Field(5, "immutable", Shape::Truth),
];

const ACCESS_REVIEW: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(
        2,
        "spec",
        Shape::Of(&[
            Field(1, "resourceAttributes", Shape::Of(RESOURCE)),
            Field(
                2,
                "nonResourceAttributes",
                Shape::Of(&[Field(1, "path", Shape::Text), Field(2, "verb", Shape::Text)]),
            ),
        ]),
    ),
    Field(3, "status", Shape::Servers),
];

const RESOURCE: &[Field] = &[
    Field(1, "namespace", Shape::Text),
    Field(2, "verb", Shape::Text),
    Field(3, "group", Shape::Text),
    Field(4, "version", Shape::Text),
    Field(5, "resource", Shape::Text),
    Field(6, "subresource", Shape::Text),
    Field(7, "name", Shape::Text),
    Field(8, "fieldSelector", Shape::Of(SELECTOR)),
    Field(9, "labelSelector", Shape::Of(SELECTOR)),
];

/// Of a list that is asked about.
const SELECTOR: &[Field] = &[
    Field(1, "rawSelector", Shape::Text),
    Field(
        2,
        "requirements",
        Shape::Each(&[
            Field(1, "key", Shape::Text),
            Field(2, "operator", Shape::Text),
            Field(3, "values", Shape::Texts),
        ]),
    ),
];

const RULES_REVIEW: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(2, "spec", Shape::Of(&[Field(1, "namespace", Shape::Text)])),
    Field(3, "status", Shape::Servers),
];

const SUBJECT_REVIEW: &[Field] = &[Field(1, "metadata", Shape::Of(METADATA)), Field(2, "status", Shape::Servers)];

const SERVICE_ACCOUNT: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(2, "secrets", Shape::Servers),
    Field(3, "imagePullSecrets", Shape::Each(&[Field(1, "name", Shape::Text)])),
    Field(4, "automountServiceAccountToken", Shape::Truth),
];

const TOKEN_REQUEST: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(
        2,
        "spec",
        Shape::Of(&[
            Field(1, "audiences", Shape::Texts),
            Field(3, "boundObjectRef", Shape::Of(BOUND)),
            Field(4, "expirationSeconds", Shape::Number),
        ]),
    ),
    Field(3, "status", Shape::Servers),
];

const BOUND: &[Field] = &[
    Field(1, "kind", Shape::Text),
    Field(2, "apiVersion", Shape::Text),
    Field(3, "name", Shape::Text),
    Field(4, "uid", Shape::Text),
];

const TOKEN_REVIEW: &[Field] = &[
    Field(1, "metadata", Shape::Of(METADATA)),
    Field(2, "spec", Shape::Of(&[Field(1, "token", Shape::Text), Field(2, "audiences", Shape::Texts)])),
    Field(3, "status", Shape::Servers),
];

/// The envelope, and what it says of the kind.
const ENVELOPE: &[Field] = &[
    Field(1, "type", Shape::Of(&[Field(1, "apiVersion", Shape::Text), Field(2, "kind", Shape::Text)])),
    Field(2, "raw", Shape::Servers),
    Field(3, "contentEncoding", Shape::Text),
    Field(4, "contentType", Shape::Text),
];

fn fields_of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    match (api_version, kind) {
        ("v1", "Namespace") => Some(NAMESPACE),
        ("v1", "ConfigMap") => Some(CONFIG_MAP),
        ("v1", "Secret") => Some(SECRET),
        ("v1", "ServiceAccount") => Some(SERVICE_ACCOUNT),
        ("authentication.k8s.io/v1", "TokenRequest") => Some(TOKEN_REQUEST),
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => Some(ACCESS_REVIEW),
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => Some(RULES_REVIEW),
        ("authentication.k8s.io/v1", "SelfSubjectReview") => Some(SUBJECT_REVIEW),
        ("authentication.k8s.io/v1", "TokenReview") => Some(TOKEN_REVIEW),
        _ => None,
    }
}

/// Reads a whole body into the object that JSON would have been.
///
/// # Errors
/// It is garbled, or of a kind, or has a field, that is not read so.
pub fn read(body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let envelope = Message { bytes: body, place: "the envelope" };
    let head = envelope.read(ENVELOPE)?;
    let text = |name: &str| head.get("type").and_then(|kind| kind.get(name)?.as_str()).unwrap_or("").to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let fields = fields_of(&api_version, &kind);
    let fields =
        fields.ok_or_else(|| ProtobufError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.clone().into());
    for raw in envelope.all(2)? {
        object.extend(Message { bytes: raw, place: &kind }.read(fields)?);
    }
    Ok(Value::Object(object))
}

/// A message and where it was met.
struct Message<'a> {
    bytes: &'a [u8],
    place: &'a str,
}

/// What a field carries on the wire; numbers of a fixed size are in none of the kinds.
enum Carried<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    fn read(&self, fields: &[Field]) -> Result<Map<String, Value>, ProtobufError> {
        let mut object = Map::new();
        for (number, carried) in self.split()? {
            let unknown = || ProtobufError::UnknownField { place: self.place.to_owned(), number };
            let Field(_, name, shape) = fields.iter().find(|field| field.0 == number).ok_or_else(unknown)?;
            let place = format!("{}.{name}", self.place);
            take(&mut object, name, *shape, &carried, &place)?;
        }
        Ok(object)
    }

    /// The bytes of every field of a number.
    fn all(&self, number: u64) -> Result<Vec<&'a [u8]>, ProtobufError> {
        let of_number = |(found, carried)| match carried {
            Carried::Bytes(bytes) if found == number => Some(bytes),
            _ => None,
        };
        Ok(self.split()?.into_iter().filter_map(of_number).collect())
    }

    fn split(&self) -> Result<Vec<(u64, Carried<'a>)>, ProtobufError> {
        let (mut rest, mut fields) = (self.bytes, Vec::new());
        while !rest.is_empty() {
            let field = one(&mut rest);
            fields.push(field.ok_or_else(|| ProtobufError::Garbled { place: self.place.to_owned() })?);
        }
        Ok(fields)
    }
}

/// Takes the next field off.
fn one<'a>(rest: &mut &'a [u8]) -> Option<(u64, Carried<'a>)> {
    let tag = number(rest)?;
    let carried = match tag & 7 {
        0 => Carried::Number(number(rest)?),
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Carried::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, carried))
}

/// Takes a number of variable length off: seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Puts what a field carries where it belongs.
fn take(
    into: &mut Map<String, Value>,
    name: &str,
    shape: Shape,
    carried: &Carried<'_>,
    place: &str,
) -> Result<(), ProtobufError> {
    let garbled = || ProtobufError::Garbled { place: place.to_owned() };
    let value = match (shape, carried) {
        (Shape::Servers, _) => return Ok(()),
        (Shape::Truth, Carried::Number(number)) => Value::Bool(*number != 0),
        // A negative one is carried as its two's complement.
        (Shape::Number, Carried::Number(number)) => Value::from(number.cast_signed()),
        (Shape::Text, Carried::Bytes([])) => return Ok(()),
        (Shape::Text | Shape::Texts, Carried::Bytes(bytes)) => text(bytes).ok_or_else(garbled)?,
        (Shape::Of(fields) | Shape::Each(fields), Carried::Bytes(bytes)) => {
            Value::Object(Message { bytes, place }.read(fields)?)
        }
        (Shape::TextMap | Shape::BytesMap, Carried::Bytes(bytes)) => {
            let (key, value) = pair(&Message { bytes, place })?;
            let value = if matches!(shape, Shape::TextMap) { text(value) } else { base64(value) };
            [(key, value.ok_or_else(garbled)?)].into_iter().collect::<Map<_, _>>().into()
        }
        _ => return Err(garbled()),
    };
    match (shape, into.get_mut(name), value) {
        (Shape::Texts | Shape::Each(_), Some(Value::Array(items)), value) => items.push(value),
        (Shape::Texts | Shape::Each(_), _, value) => drop(into.insert(name.to_owned(), Value::Array(vec![value]))),
        (_, Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
        (_, _, value) => drop(into.insert(name.to_owned(), value)),
    }
    Ok(())
}

/// An entry of a map: its key is field 1, its value field 2, and either may be left out when empty.
fn pair<'a>(entry: &Message<'a>) -> Result<(String, &'a [u8]), ProtobufError> {
    let last = |number| Ok(entry.all(number)?.last().copied().unwrap_or_default());
    let key = std::str::from_utf8(last(1)?);
    let key = key.map_err(|_| ProtobufError::Garbled { place: entry.place.to_owned() })?;
    Ok((key.to_owned(), last(2)?))
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(Value::from)
}

fn base64(bytes: &[u8]) -> Option<Value> {
    serde_json::to_value(ByteString(bytes.to_vec())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// A body that kubectl 1.32.4 sent.
    fn sent(body: &str) -> Vec<u8> {
        let bytes: ByteString = serde_json::from_value(body.into()).unwrap();
        bytes.0
    }

    const CONFIG_MAP: &str = "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEisKGAoIc2V0dGluZ3MSABoAIgAqADIAOABCABIPCgZjb2xvdXISBWdyZWVu\
                              GgAiAA==";
    const SECRET: &str = "azhzAAoMCgJ2MRIGU2VjcmV0EioKEgoCZGISABoAIgAqADIAOABCABISCghwYXNzd29yZBIGY2FuYXJ5GgAaACIA";
    const NAMESPACE: &str = "azhzAAoPCgJ2MRIJTmFtZXNwYWNlEhwKFAoEc2hvcBIAGgAiACoAMgA4AEIAEgAaAgoAGgAiAA==";
    const MAY_I: &str = "azhzAAoyChdhdXRob3JpemF0aW9uLms4cy5pby92MRIXU2VsZlN1YmplY3RBY2Nlc3NSZXZpZXcSRQoQCgASABoAIgAqADIA\
                         OABCABInCiUKB2RlZmF1bHQSBmNyZWF0ZRoAIgAqCmNvbmZpZ21hcHMyADoAGggIABIAGgAgABoAIgA=";

    #[test]
    fn what_kubectl_sends_is_the_object_that_json_would_be() {
        assert_eq!(
            read(&sent(CONFIG_MAP)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "green"}})
        );
        assert_eq!(
            read(&sent(SECRET)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": {"password": "Y2FuYXJ5"}})
        );
        assert_eq!(
            read(&sent(NAMESPACE)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {}})
        );
        assert_eq!(
            read(&sent(MAY_I)).unwrap()["spec"],
            json!({"resourceAttributes": {"namespace": "default", "verb": "create", "resource": "configmaps"}})
        );
    }

    #[test]
    fn what_is_not_read_is_told_instead_of_lost() {
        let mut body = sent(CONFIG_MAP);
        assert_eq!(read(&body[1..]), Err(ProtobufError::NoEnvelope));
        // Field 9 of the ConfigMap, which there is not: the length of the whole is at a known place.
        let raw = body.iter().position(|byte| *byte == 0x2b).unwrap();
        body[raw] += 2;
        body.splice(raw + 1..raw + 1, [0x48, 0x01]);
        let told = read(&body).unwrap_err();
        assert_eq!(told, ProtobufError::UnknownField { place: "ConfigMap".into(), number: 9 });
        let other = [MAGIC, &[0x0a, 9, 0x0a, 2, b'v', b'1', 0x12, 3, b'P', b'o', b'd']].concat();
        assert_eq!(
            read(&other).unwrap_err().to_string(),
            "Pod of v1 is not read as protobuf here; send application/json"
        );
    }

    proptest! {
        #[test]
        fn a_body_that_is_damaged_anywhere_is_read_or_refused(
            which in 0..4_usize, at in 0..200_usize, byte in any::<u8>(), length in 0..200_usize,
        ) {
            let mut body = sent([CONFIG_MAP, SECRET, NAMESPACE, MAY_I][which]);
            let place = at % body.len();
            body[place] = byte;
            drop(read(&body));
            body.truncate(length);
            drop(read(&body));
        }
    }
}
