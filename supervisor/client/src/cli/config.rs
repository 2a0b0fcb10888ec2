//! `berth config`: how kubectl and its kin find this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::ConfigArgs;
use super::failure::Failure;
use super::{Context, bounded};
use crate::curl::quote;
use crate::kubeconfig::{self, Entry, Proof};
use crate::server::Server;
use crate::yaml;

/// Where this machine is, seen from itself.
pub(super) const HERE: &str = "https://localhost:6443";
/// The authority that signed this machine's certificate.
const AUTHORITY: &str = "/var/lib/berth/ca.crt";
/// The owner's token.
const TOKEN: &str = "/var/lib/berth/token";

pub(super) fn run(context: &Context, args: &ConfigArgs) -> Result<(), Failure> {
    if let Some(token) = &args.token {
        let entry = elsewhere(context, args, token)?;
        let text = yaml::to_string(&entry.alone())?;
        return context.say(&if args.script { script(&entry.name, &text) } else { text });
    }
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

/// The machine as another finds it, with the token in it.
fn elsewhere(context: &Context, args: &ConfigArgs, token: &Path) -> Result<Entry, Failure> {
    let server = context.client.transport().server();
    let authority = match &server.ca_file {
        None if server.socket.is_some() => fs::read(AUTHORITY),
        None => Ok(Vec::new()),
        Some(file) => fs::read(file),
    };
    let path = || server.ca_file.clone().unwrap_or_else(|| AUTHORITY.into());
    let token = bounded::text(token)?.trim().to_owned();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(Failure::Usage("the file must hold the token and nothing else".to_owned()));
    }
    Ok(Entry {
        name: args.name.clone(),
        server: reached_at(context, args.url.as_deref())?,
        authority: authority.map_err(|source| Failure::Read { path: path(), source })?,
        proof: Proof::Token(token),
        namespace: context.namespace.clone(),
    })
}

/// A script that puts a configuration into the kubeconfig of the machine where it runs. What it holds is in a
/// here-document, and so in no argument list; what is there already stays as it is.
fn script(name: &str, configuration: &str) -> String {
    let quoted = quote(name);
    format!(
        "#!/bin/sh\n\
         # Tells kubectl here where {name} is. It holds a token: keep it as a secret.\n\
         set -eu\n\
         umask 077\n\
         config=${{KUBECONFIG:-$HOME/.kube/config}}\n\
         config=${{config%%:*}}\n\
         mkdir -p \"$(dirname \"$config\")\"\n\
         new=$(mktemp \"$config.XXXXXX\")\n\
         trap 'rm -f \"$new\" \"$new.merged\"' EXIT\n\
         cat >\"$new\" <<'END OF CONFIGURATION'\n\
         {configuration}END OF CONFIGURATION\n\
         if [ ! -s \"$config\" ]; then\n    \
             mv \"$new\" \"$config\"\n\
         elif ! command -v kubectl >/dev/null; then\n    \
             echo \"$config is there, and without kubectl nothing can be added to it\" >&2\n    exit 1\n\
         elif kubectl --kubeconfig \"$config\" config get-contexts -o name | grep -Fqx -- {quoted}; then\n    \
             echo \"$config has a context of this name already; nothing was changed\" >&2\n    exit 1\n\
         else\n    \
             KUBECONFIG=\"$config:$new\" kubectl config view --flatten >\"$new.merged\"\n    \
             mv \"$new.merged\" \"$config\"\n\
         fi\n\
         echo \"$config knows the machine\"\n"
    )
}

/// How the machine calls itself.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The address under which others reach the machine.
pub(super) fn reached_at(context: &Context, said: Option<&str>) -> Result<String, Failure> {
    let transport = context.client.transport();
    match said {
        Some(url) => return Ok(Server::choose(Some(url), None, None)?.shown()),
        None if !transport.is_socket() => return Ok(transport.shown().to_owned()),
        None => {}
    }
    let name = fs::read_to_string(HOST_NAME).map_err(|source| Failure::Read { path: HOST_NAME.into(), source })?;
    let name = name.trim();
    let own = if name.contains('.') { "" } else { ".local" };
    Ok(format!("https://{name}{own}:6443"))
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
