//! Where the record of who did what goes beside this machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::FieldError;

/// The record of who did what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditSettings {
    /// Where it is sent as well, so that not even root of this machine can rewrite it unseen.
    pub mirror: MirrorSettings,
}

/// Where the record of who did what is sent as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MirrorSettings {
    /// A syslog server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<SyslogMirror>,
    /// A git repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitMirror>,
}

/// A branch of a git repository that gets records as commits, signed by this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitMirror {
    /// `https://host/path` or `ssh://user@host/path`. Whom it leads to elsewhere is not followed.
    pub url: String,
    /// The branch. It is never forced: what others add stays, and what they rewrite stops the mirror.
    #[serde(default = "GitMirror::main")]
    pub branch: String,
    /// By what it is written to.
    pub secret: SecretName,
    /// The authority that signed the server's certificate itself, as PEM; absent, those that the machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

impl GitMirror {
    fn main() -> String {
        "main".to_owned()
    }
}

/// A Secret by its name: for HTTPS with `username` and `password` (type `kubernetes.io/basic-auth`), for SSH with
/// `ssh-privatekey` (type `kubernetes.io/ssh-auth`) and the server's keys as `known_hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A syslog server that is sent each record as a message of RFC 5424, facility `log audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyslogMirror {
    /// `host:port`, e.g. `logs.example:6514`.
    pub server: String,
    /// How it is reached.
    #[serde(default)]
    pub transport: SyslogTransport,
    /// The authority that signed the server's certificate, as PEM; absent, those that the machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// How a syslog server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyslogTransport {
    /// RFC 5425: encrypted, and nobody else takes the records.
    #[default]
    Tls,
    /// RFC 6587, in the clear.
    Tcp,
    /// RFC 5426, in the clear; what is lost is not missed.
    Udp,
}

/// What is wrong with what is set.
pub(super) fn rules(mirror: &Value) -> Vec<FieldError> {
    let mut errors = syslog_rules(&mirror["syslog"]);
    errors.extend(git_rules(&mirror["git"]));
    errors
}

fn syslog_rules(new: &Value) -> Vec<FieldError> {
    let Ok(set) = SyslogMirror::deserialize(new) else { return Vec::new() };
    let mut errors = Vec::new();
    let port = set.server.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@', ' ']));
    if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
        let message = "name a host and a port, e.g. `logs.example:6514`";
        errors.push(FieldError::invalid("spec.audit.mirror.syslog.server", message));
    }
    if set.authority.is_some() && set.transport != SyslogTransport::Tls {
        let message = "only `transport: tls` has certificates; use that, or leave this out";
        errors.push(FieldError::forbidden("spec.audit.mirror.syslog.authority", message));
    }
    if set.authority.is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
        let message = "is no certificate as PEM";
        errors.push(FieldError::invalid("spec.audit.mirror.syslog.authority", message));
    }
    errors
}

fn git_rules(new: &Value) -> Vec<FieldError> {
    let Ok(set) = GitMirror::deserialize(new) else { return Vec::new() };
    let mut errors = Vec::new();
    let field = |name: &str| format!("spec.audit.mirror.git.{name}");
    if !is_repository(&set.url) {
        let message = "use `https://host/path` or `ssh://user@host/path`; passwords belong in the Secret";
        errors.push(FieldError::invalid(field("url"), message));
    }
    if !is_branch(&set.branch) {
        errors.push(FieldError::invalid(field("branch"), "use the name of a branch, e.g. `main` or `audit/harbour`"));
    }
    for (name, value) in [("namespace", &set.secret.namespace), ("name", &set.secret.name)] {
        if value.is_empty() {
            errors.push(FieldError::required(field(&format!("secret.{name}")), "name the Secret"));
        }
    }
    if set.authority.is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
        errors.push(FieldError::invalid(field("authority"), "is no certificate as PEM"));
    }
    errors
}

fn is_repository(url: &str) -> bool {
    let plain = |text: &str| !text.is_empty() && !text.contains(|one: char| one.is_whitespace() || one.is_control());
    let (user_may, rest) = match (url.strip_prefix("https://"), url.strip_prefix("ssh://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return false,
    };
    let Some((server, path)) = rest.split_once('/') else { return false };
    let host = match server.split_once('@') {
        Some((user, host)) if user_may && plain(user) && !user.contains(':') => host,
        Some(_) => return false,
        None => server,
    };
    plain(host) && !host.starts_with([':', '-']) && plain(path)
}

/// What git takes for one, without what only it can take.
fn is_branch(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(['.', '-']);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    name.bytes().all(plain) && name.split('/').all(part) && !name.contains("..") && !name.contains(".lock")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::admitted;

    #[test]
    fn a_syslog_server_has_a_host_and_a_port_and_an_authority_only_where_there_are_certificates() {
        let set = |syslog: Value| admitted(json!({"audit": {"mirror": {"syslog": syslog}}})).map(|_| ());
        assert_eq!(set(json!({"server": "logs.example:6514"})), Ok(()));
        assert_eq!(set(json!({"server": "[fd00::1]:514", "transport": "udp"})), Ok(()));
        let field = |name: &str| Err(vec![format!("spec.audit.mirror.syslog.{name}")]);
        for wrong in ["logs.example", ":514", "logs:0", "https://logs:514", "me@logs:514"] {
            assert_eq!(set(json!({ "server": wrong })), field("server"), "{wrong}");
        }
        let pem = "-----BEGIN CERTIFICATE-----";
        assert_eq!(set(json!({"server": "logs:6514", "authority": pem})), Ok(()));
        assert_eq!(set(json!({"server": "logs:6514", "authority": "x"})), field("authority"));
        assert_eq!(set(json!({"server": "logs:514", "transport": "tcp", "authority": pem})), field("authority"));
    }

    #[test]
    fn a_git_repository_has_an_address_without_a_password_a_branch_and_a_secret() {
        let set = |git: Value| {
            let mut whole =
                json!({"url": "https://git.example/audit", "secret": {"namespace": "default", "name": "git"}});
            whole.as_object_mut().unwrap().extend(git.as_object().unwrap().clone());
            admitted(json!({"audit": {"mirror": {"git": whole}}})).map(|_| ())
        };
        let field = |name: &str| Err(vec![format!("spec.audit.mirror.git.{name}")]);
        for right in ["https://git.example:3000/a/b.git", "ssh://git@git.example/a", "ssh://git.example:22/~/a"] {
            assert_eq!(set(json!({ "url": right })), Ok(()), "{right}");
        }
        let wrong = [
            "http://git.example/a",
            "file:///a",
            "/a",
            "git@git.example:a",
            "https://me:pass@git.example/a",
            "https://me@git.example/a",
            "ssh://me:pass@git.example/a",
            "https://git.example",
            "https:///a",
            "ssh://-oProxyCommand=x/a",
            "https://git.example/a b",
        ];
        for wrong in wrong {
            assert_eq!(set(json!({ "url": wrong })), field("url"), "{wrong}");
        }
        for right in ["main", "audit/harbour-1", "v1.2"] {
            assert_eq!(set(json!({ "branch": right })), Ok(()), "{right}");
        }
        for wrong in ["", "/a", "a/", "a..b", "-a", "a b", "a:b", "a.lock", "+a", "refs//a"] {
            assert_eq!(set(json!({ "branch": wrong })), field("branch"), "{wrong}");
        }
        assert_eq!(set(json!({"secret": {"namespace": "", "name": "git"}})), field("secret.namespace"));
        assert_eq!(set(json!({"authority": "x"})), field("authority"));
    }
}
