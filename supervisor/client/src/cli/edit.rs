//! `berth edit`: a resource in the editor of whoever asks; what was changed there is sent back.
//!
//! What the server or the reader of YAML refuses is opened again with the reason on top, as long as something is
//! changed each time; then, and when the resource was changed by somebody else meanwhile, the text is kept. With `--curl`
//! it is read and opened, too, and the command that is printed holds what was made of it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use reqwest::Method;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::Context;
use super::args::ResourceArgs;
use super::describe;
use super::failure::Failure;
use super::output::readable;
use crate::error::ClientError;
use crate::request::Body;
use crate::resource::ResourceType;
use crate::yaml;

const HELP: &str =
    "# Change it, save, and leave the editor. An empty file, or one that is as it was, changes nothing.\n";

pub(super) async fn run(context: &Context, args: &ResourceArgs) -> Result<(), Failure> {
    let (kind, name) = describe::named(context, args).await?;
    let object = context.reader()?.get_dynamic(&kind, &context.namespace, &name).await?;
    let wish = wish(&object);
    let mut draft = Draft::new(&yaml::to_string(&wish)?)?;
    let as_it_was = || context.note(&format!("{} is as it was", kind.shown(&name)));
    loop {
        let Some(text) = draft.edit().await? else {
            return draft.refused.take().map_or_else(as_it_was, |failure| Err(draft.kept(failure)));
        };
        let edited = read(&text);
        if edited.as_ref().is_ok_and(|edited| *edited == wish) {
            return as_it_was();
        }
        let sent = match edited {
            Ok(edited) => send(context, &kind, &name, edited).await,
            Err(failure) => Err(failure),
        };
        match sent {
            Ok(object) => return context.outcome(&kind, &object, &format!("{} edited", kind.shown(&name))),
            Err(failure) if is_correctable(&failure) => draft.complain(failure)?,
            Err(printed @ Failure::Client(ClientError::Printed(_))) => return Err(printed),
            Err(failure) => return Err(draft.kept(failure)),
        }
    }
}

/// What a person may change of it. The version stays in it: a change of what changed meanwhile is refused.
fn wish(object: &Value) -> Value {
    let mut object = readable(object);
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove("status");
    }
    object
}

fn read(text: &str) -> Result<Value, Failure> {
    let mut objects = yaml::objects("what you wrote", text)?;
    match objects.len() {
        1 => Ok(objects.remove(0)),
        several => Err(Failure::Usage(format!("one resource is edited, and you wrote {several}"))),
    }
}

async fn send(context: &Context, kind: &ResourceType, name: &str, edited: Value) -> Result<Value, Failure> {
    let request = kind.object(Method::PUT, &context.namespace, name).query("fieldValidation", "Strict");
    Ok(context.client.transport().json(&request.body(Body::Json(edited))).await?)
}

/// Whether another text may be taken.
fn is_correctable(failure: &Failure) -> bool {
    match failure {
        Failure::Manifest(_) | Failure::Usage(_) => true,
        Failure::Client(ClientError::Refused(status)) => matches!(status.code, Some(400 | 422)),
        _ => false,
    }
}

/// The text between the editor and us, readable for its owner alone.
struct Draft {
    file: NamedTempFile,
    before: String,
    refused: Option<Failure>,
}

impl Draft {
    fn new(text: &str) -> Result<Draft, Failure> {
        let made = tempfile::Builder::new().prefix("berth-edit-").suffix(".yaml").tempfile();
        let file = made.map_err(|source| Failure::Write { path: std::env::temp_dir(), source })?;
        let before = format!("{HELP}{text}");
        let draft = Draft { file, before, refused: None };
        draft.write(&draft.before)?;
        Ok(draft)
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        // Under its name, as an editor may have put another file there.
        let written = fs::File::create(self.file.path()).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| Failure::Write { path: self.file.path().to_owned(), source })
    }

    /// What was made of it, if anything was.
    async fn edit(&mut self) -> Result<Option<String>, Failure> {
        open(self.file.path()).await?;
        let text = fs::read_to_string(self.file.path());
        let text = text.map_err(|source| Failure::Read { path: self.file.path().to_owned(), source })?;
        if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            self.refused = None;
            return Ok(None);
        }
        Ok((text != self.before).then_some(text))
    }

    /// Puts the reason before what was written, in place of the one before it.
    fn complain(&mut self, failure: Failure) -> Result<(), Failure> {
        let path = self.file.path().to_owned();
        let text = fs::read_to_string(&path).map_err(|source| Failure::Read { path, source })?;
        let wrote: String =
            text.lines().skip_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let why: String = failure.report().lines().map(|line| format!("# {line}\n")).collect();
        self.before = format!("{HELP}#\n{why}{wrote}");
        self.refused = Some(failure);
        self.write(&self.before)
    }

    /// The failure, with where the text is.
    fn kept(self, failure: Failure) -> Failure {
        match self.file.keep() {
            Ok((_, kept)) => Failure::Edited { kept, source: Box::new(failure) },
            Err(_) => failure,
        }
    }
}

/// Lets a person at it and waits for the end. The editor is a line of shell, as everywhere: it may have options.
async fn open(path: &Path) -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    #[allow(clippy::disallowed_methods, reason = "the editor is the person's own, found as their shell finds it")]
    let mut command = tokio::process::Command::new("sh");
    let status = command.args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(path).status().await;
    let ended = status.and_then(|status| match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("it ended with {status}"))),
    });
    ended.map_err(|source| Failure::Editor { editor, source })
}
