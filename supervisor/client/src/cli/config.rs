//! `berth config`: how kubectl and its kin find this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Context;
use super::args::ConfigArgs;
use super::failure::Failure;
use crate::kubeconfig::{self, Entry, Proof};
use crate::yaml;

/// Where this machine is, seen from itself.
pub(super) const HERE: &str = "https://localhost:6443";
/// The authority that signed this machine's certificate.
const AUTHORITY: &str = "/var/lib/berth/ca.crt";
/// The owner's token.
const TOKEN: &str = "/var/lib/berth/token";

pub(super) fn run(context: &Context, args: &ConfigArgs) -> Result<(), Failure> {
    let entry = entry(context, args)?;
    let Some(written) = &args.write else {
        return context.say(yaml::to_string(&entry.alone())?.trim_end());
    };
    let path = write(&entry, written.as_deref())?;
    context.say(&format!(
        "{} knows this machine as {name}: kubectl --context {name} get bundles",
        path.display(),
        name = entry.name
    ))
}

/// Puts an entry into a kubeconfig, the usual one if none is named; answers which.
pub(super) fn write(entry: &Entry, into: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match into {
        Some(path) => path.to_owned(),
        None => usual(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let merge = |old: Option<String>| merged(entry, old.as_deref(), &path).map_err(io::Error::other);
    kubeconfig::replace(&path, merge).map_err(|source| Failure::Create { path: path.clone(), source })?;
    Ok(path)
}

/// The text of the file with the entry in it.
fn merged(entry: &Entry, old: Option<&str>, path: &Path) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut documents = yaml::documents(&path.display().to_string(), old.unwrap_or_default())?;
    let mut whole = match documents.len() {
        0 => json!({}),
        1 => documents.remove(0),
        _ => return Err("it holds several documents".into()),
    };
    entry.merge_into(&mut whole)?;
    Ok(yaml::to_string(&whole)?)
}

fn entry(context: &Context, args: &ConfigArgs) -> Result<Entry, Failure> {
    let server = context.client.transport().server();
    let here = server.socket.is_some();
    let given = |file: &Option<PathBuf>, here_it_is: &str, flag: &str| match file {
        Some(file) => std::path::absolute(file).map_err(|source| Failure::Read { path: file.clone(), source }),
        None if here => Ok(PathBuf::from(here_it_is)),
        None => Err(Failure::Usage(format!("name the file of another machine with {flag}"))),
    };
    let authority = given(&server.ca_file, AUTHORITY, "--ca")?;
    Ok(Entry {
        name: args.name.clone(),
        server: if here { HERE.to_owned() } else { server.shown() },
        authority: fs::read(&authority).map_err(|source| Failure::Read { path: authority, source })?,
        proof: Proof::TokenFile(given(&server.token_file, TOKEN, "--token-file")?),
        namespace: context.namespace.clone(),
    })
}

/// The file that kubectl writes: the first of $KUBECONFIG, or that of the home directory.
fn usual(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named =
        variable("KUBECONFIG").and_then(|all| std::env::split_paths(&all).find(|path| !path.as_os_str().is_empty()));
    let home = || variable("HOME").map(|home| home.join(".kube/config"));
    named.or_else(home).ok_or_else(|| Failure::Usage("there is neither $KUBECONFIG nor $HOME; name a file".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_file_is_the_first_of_the_variable_or_that_of_the_home_directory() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/me"));
        assert_eq!(usual(home).unwrap(), Path::new("/home/me/.kube/config"));
        let both = |name: &str| (name == "KUBECONFIG").then(|| PathBuf::from(":/a:/b"));
        assert_eq!(usual(both).unwrap(), Path::new("/a"));
        assert!(usual(|_| None).is_err());
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_as_it_is() {
        let entry = Entry {
            name: "berth".into(),
            server: HERE.into(),
            authority: Vec::new(),
            proof: Proof::TokenFile(TOKEN.into()),
            namespace: "default".into(),
        };
        let path = Path::new("config");
        assert!(merged(&entry, Some("a: [1"), path).is_err());
        assert!(merged(&entry, Some("kind: Pod\n"), path).is_err());
        assert!(merged(&entry, Some("a: 1\n---\nb: 2\n"), path).is_err());
        let made = merged(&entry, None, path).unwrap();
        assert_eq!(yaml::documents("", &made).unwrap(), [entry.alone()]);
    }
}
