//! kubeconfigs: where kubectl and its kin find a machine and who asks. What is put into one leaves everything else in it
//! as it is; the token stays in its own file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

/// A machine, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name of cluster, user and context.
    pub name: String,
    /// `https://host:port`.
    pub server: String,
    /// The authority of its certificate, as PEM; empty if it is one that every system knows.
    pub authority: Vec<u8>,
    /// How whoever asks proves who he is.
    pub proof: Proof,
    /// The namespace that is meant where none is named.
    pub namespace: String,
}

/// How whoever asks proves who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By this token, which stands in the configuration: for another machine.
    Token(String),
    /// By the token in this file; an absolute path.
    TokenFile(PathBuf),
    /// As the user who is logged in: this program is asked for his token, and refreshes it.
    Session,
}

/// Why an entry is not put into a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    /// It is something else.
    #[error("it is no kubeconfig: {0}")]
    Other(&'static str),
    /// The name leads elsewhere.
    #[error("it has {what} {name:?} already, which is another's")]
    Taken {
        /// A cluster, user or context.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl Entry {
    /// A configuration with this alone.
    pub fn alone(&self) -> Value {
        let mut whole = json!({ "apiVersion": "v1", "kind": "Config", "current-context": self.name });
        for (list, what, body) in self.parts() {
            whole[list] = json!([{ "name": self.name, what: body }]);
        }
        whole
    }

    fn parts(&self) -> [(&'static str, &'static str, Value); 3] {
        let mut cluster = json!({ "server": self.server });
        if !self.authority.is_empty() {
            cluster["certificate-authority-data"] =
                serde_json::to_value(ByteString(self.authority.clone())).unwrap_or_default();
        }
        let context = json!({ "cluster": self.name, "user": self.name, "namespace": self.namespace });
        [("clusters", "cluster", cluster), ("users", "user", self.user()), ("contexts", "context", context)]
    }

    fn user(&self) -> Value {
        match &self.proof {
            Proof::Token(token) => json!({ "token": token }),
            Proof::TokenFile(file) => json!({ "tokenFile": file }),
            Proof::Session => json!({ "exec": {
                "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "berth",
                "args": ["token", "--context", self.name, "--exec-credential"],
            }}),
        }
    }

    /// Puts it into a configuration. What is there of the same name is brought up to date if it leads to the same server,
    /// and nobody's otherwise; the current context stays unless there is none.
    ///
    /// # Errors
    /// It is no kubeconfig, or the name is taken. Then nothing is changed.
    pub fn merge_into(&self, whole: &mut Value) -> Result<(), MergeError> {
        let mut merged = whole.as_object().cloned().ok_or(MergeError::Other("not a map"))?;
        if merged.get("kind").is_some_and(|kind| kind != "Config") {
            return Err(MergeError::Other("its kind is not Config"));
        }
        let ours = self.is_ours(&merged);
        for (list, what, body) in self.parts() {
            let place = merged.entry(list).or_insert(Value::Null);
            if place.is_null() {
                *place = json!([]);
            }
            let items = place.as_array_mut().ok_or(MergeError::Other("clusters, users and contexts must be lists"))?;
            match items.iter_mut().find(|item| item["name"] == *self.name) {
                None => items.push(json!({ "name": self.name, what: body })),
                Some(_) if !ours => return Err(MergeError::Taken { what, name: self.name.clone() }),
                Some(item) => update(item, what, body),
            }
        }
        if merged.get("current-context").and_then(Value::as_str).unwrap_or("").is_empty() {
            merged.insert("current-context".into(), self.name.clone().into());
        }
        merged.entry("apiVersion").or_insert_with(|| "v1".into());
        merged.entry("kind").or_insert_with(|| "Config".into());
        *whole = Value::Object(merged);
        Ok(())
    }

    /// Whether what is there of this name leads to the same server.
    fn is_ours(&self, whole: &Map<String, Value>) -> bool {
        let clusters = whole.get("clusters").and_then(Value::as_array);
        let same = clusters.into_iter().flatten().find(|cluster| cluster["name"] == *self.name);
        same.is_some_and(|cluster| cluster["cluster"]["server"] == *self.server)
    }
}

/// Sets what we say of an item, and leaves what others have added.
fn update(item: &mut Value, what: &str, body: Value) {
    match (item.get_mut(what).and_then(Value::as_object_mut), body) {
        (Some(there), Value::Object(body)) => there.extend(body),
        (_, body) => item[what] = body,
    }
}

/// Writes a file for nobody else to read, in one step. Whoever changes kubeconfigs takes the same lock: the file's name
/// with `.lock`.
///
/// # Errors
/// It cannot be written, or somebody else holds the lock.
pub fn replace(path: &Path, change: impl FnOnce(Option<String>) -> io::Result<String>) -> io::Result<()> {
    // A link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let _lock = Lock::take(&path)?;
    let old = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let text = change(old)?;
    let mut new = tempfile::Builder::new().prefix(".kubeconfig").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    fs::File::open(folder)?.sync_all()
}

/// Held while a kubeconfig is changed.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let taken = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock);
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let why =
                    format!("{} is there: somebody is changing it; if nobody is, remove that file", lock.display());
                io::Error::new(error.kind(), why)
            }
            _ => error,
        };
        taken.map_err(told)?;
        Ok(Self(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be removed is told to the next one, who finds it.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry() -> Entry {
        Entry {
            name: "berth".into(),
            server: "https://box:6443".into(),
            authority: b"PEM".to_vec(),
            proof: Proof::TokenFile("/root/token".into()),
            namespace: "default".into(),
        }
    }

    fn others() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "work", "preferences": {"colors": true},
            "clusters": [{"name": "work", "cluster": {"server": "https://work:6443"}}],
            "users": [{"name": "work", "user": {"token": "theirs"}}],
            "contexts": [{"name": "work", "context": {"cluster": "work", "user": "work"}}],
        })
    }

    #[test]
    fn a_configuration_names_the_server_its_authority_and_the_file_of_the_token() {
        let alone = entry().alone();
        let cluster = json!({"server": "https://box:6443", "certificate-authority-data": "UEVN"});
        assert_eq!(alone["clusters"], json!([{"name": "berth", "cluster": cluster}]));
        assert_eq!(alone["users"], json!([{"name": "berth", "user": {"tokenFile": "/root/token"}}]));
        let context = json!({"cluster": "berth", "user": "berth", "namespace": "default"});
        assert_eq!(alone["contexts"], json!([{"name": "berth", "context": context}]));
        assert_eq!(alone["current-context"], "berth");
        let mut empty = json!({});
        entry().merge_into(&mut empty).unwrap();
        assert_eq!(empty, alone);
    }

    #[test]
    fn whoever_is_logged_in_is_asked_for_by_this_program() {
        let alone = Entry { proof: Proof::Session, authority: Vec::new(), ..entry() }.alone();
        let args = json!(["token", "--context", "berth", "--exec-credential"]);
        assert_eq!(alone["users"][0]["user"]["exec"]["args"], args);
        assert_eq!(alone["clusters"][0]["cluster"], json!({"server": "https://box:6443"}));
    }

    #[test]
    fn what_others_have_put_there_stays_as_it_is() {
        let mut whole = others();
        entry().merge_into(&mut whole).unwrap();
        for (field, value) in others().as_object().unwrap() {
            match value {
                Value::Array(items) => assert_eq!(whole[field].as_array().unwrap()[..1], items[..]),
                value => assert_eq!(&whole[field], value),
            }
        }
        assert_eq!(whole["contexts"][1]["name"], "berth");
        let once = whole.clone();
        entry().merge_into(&mut whole).unwrap();
        assert_eq!(whole, once, "the second time there is nothing to do");
    }

    #[test]
    fn an_entry_of_the_same_server_is_brought_up_to_date_with_what_was_added_to_it() {
        let mut whole = others();
        entry().merge_into(&mut whole).unwrap();
        whole["clusters"][1]["cluster"]["proxy-url"] = "http://proxy".into();
        Entry { proof: Proof::TokenFile("/root/other".into()), ..entry() }.merge_into(&mut whole).unwrap();
        assert_eq!(whole["users"][1]["user"], json!({"tokenFile": "/root/other"}));
        assert_eq!(whole["clusters"][1]["cluster"]["proxy-url"], "http://proxy");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_taken_over_and_nothing_is_changed() {
        let mut whole = others();
        let refused = Entry { name: "work".into(), ..entry() }.merge_into(&mut whole).unwrap_err();
        assert_eq!(refused, MergeError::Taken { what: "cluster", name: "work".into() });
        assert_eq!(whole, others());
        assert!(entry().merge_into(&mut json!([1])).is_err());
        assert!(entry().merge_into(&mut json!({"kind": "Pod"})).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_for_its_owner_alone_and_left_alone_when_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config");
        replace(&path, |old| Ok(format!("{old:?}"))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "None");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        replace(&path, |_| Err(io::Error::other("no"))).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "None");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, |_| Ok("new".into())).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), link.is_symlink()), ("new", true));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "neither lock nor half a file is left");
    }

    #[test]
    fn nobody_writes_while_another_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(folder.path().join("config.lock"), "").unwrap();
        let refused = replace(&path, |_| Ok("new".into())).unwrap_err();
        assert!(refused.to_string().contains("config.lock is there"), "{refused}");
        assert!(!path.exists());
    }
}
