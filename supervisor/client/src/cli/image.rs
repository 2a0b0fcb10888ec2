//! `berth image list`, `import`, `remove` and `prune`.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::args::ImageCommand;
use super::failure::Failure;
use super::output::Output;
use super::sheet::Sheet;
use super::{Context, follow};
use crate::client::berth;
use crate::request::{Archive, Body};
use crate::yaml;

/// Read at once from a file.
const CHUNK: usize = 256 * 1024;
/// Chunks of a directory that are packed before somebody takes them.
const AHEAD: usize = 8;

pub(super) async fn run(context: &Context, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::List => list(context).await,
        ImageCommand::Remove { reference } => remove(context, &reference).await,
        ImageCommand::Prune { dry_run } => prune(context, dry_run).await,
        ImageCommand::Import { source, reference } => import(context, &source, &reference).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let answer: Value = context.client.transport().json(&berth(&["images"], Method::GET)).await?;
    show(context, &answer, "no images")
}

fn show(context: &Context, answer: &Value, if_empty: &str) -> Result<(), Failure> {
    match context.output {
        Output::Json => context.say(&format!("{answer:#}")),
        Output::Yaml => context.say(&yaml::to_string(answer)?),
        Output::Name => context.say(&names(answer)),
        Output::Table | Output::Wide => context.sheet(&sheet(answer), if_empty),
    }
}

async fn remove(context: &Context, reference: &str) -> Result<(), Failure> {
    let request = berth(&["images"], Method::DELETE).query("name", reference);
    let answer: Value = context.client.transport().json(&request).await?;
    match context.output {
        Output::Json => context.say(&format!("{answer:#}")),
        Output::Yaml => context.say(&yaml::to_string(&answer)?),
        _ => context.say(&format!("image {reference} removed")),
    }
}

/// The images themselves, then how many they are.
async fn prune(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let request = berth(&["images", "prune"], Method::POST);
    let request = if dry_run { request.query("dryRun", "All") } else { request };
    let answer: Value = context.client.transport().json(&request).await?;
    show(context, &answer, "no image is unused")?;
    let count = items(&answer).len();
    match context.output {
        Output::Table | Output::Wide if count > 0 => {
            context.say(&format!("{} {count}", if dry_run { "would be removed:" } else { "removed:" }))
        }
        _ => Ok(()),
    }
}

fn items(answer: &Value) -> &[Value] {
    answer["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn digest(image: &Value) -> &str {
    image["spec"]["digest"].as_str().unwrap_or_default()
}

/// What it is called: its names, else where it came from.
fn called(image: &Value) -> Vec<&str> {
    let list = |field: &str| image["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = if list("names").is_empty() { list("references") } else { list("names") };
    names.iter().filter_map(Value::as_str).collect()
}

fn names(answer: &Value) -> String {
    items(answer).iter().flat_map(called).collect::<Vec<_>>().join("\n")
}

fn sheet(answer: &Value) -> Sheet {
    let mut sheet = Sheet::new(&["Name", "Digest", "Size", "Used"]);
    let mut rows: Vec<Vec<String>> = items(answer).iter().flat_map(rows).collect();
    rows.sort();
    rows.into_iter().for_each(|row| sheet.row(row));
    sheet
}

/// One for each name.
fn rows(image: &Value) -> Vec<Vec<String>> {
    let size = image["spec"]["size"].as_u64().map(|bytes| indicatif::BinaryBytes(bytes).to_string());
    let used = if image["spec"]["inUse"] == true { "yes" } else { "no" };
    let row = |name: &str| {
        [name, &short(digest(image)), size.as_deref().unwrap_or_default(), used].map(str::to_owned).to_vec()
    };
    called(image).into_iter().map(row).collect()
}

/// Enough of a digest to tell one from another.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

async fn import(context: &Context, source: &Path, reference: &str) -> Result<(), Failure> {
    let archive = archive(source)?;
    let request = berth(&["images", "import"], Method::POST)
        .query("name", reference)
        .body(Body::Archive(archive.clone()))
        .once(context.new_key());
    let bar = bar(context, &archive);
    let counted = bar.clone();
    let stream = open(&archive).await?.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            counted.inc(chunk.len() as u64);
        }
    });
    let sent = context.client.transport().upload(&request, reqwest::Body::wrap_stream(stream));
    let instead = format!("berth image import {} --name {reference}", source.display());
    let answer = follow::bounded(context, "the import", &instead, async { Ok(sent.await?) }).await;
    bar.finish_and_clear();
    report(context, reference, &answer?)
}

fn report(context: &Context, reference: &str, image: &Value) -> Result<(), Failure> {
    match context.output {
        Output::Json => context.say(&format!("{image:#}")),
        Output::Yaml => context.say(&yaml::to_string(image)?),
        _ => context.say(format!("image {reference} imported {}", digest(image)).trim_end()),
    }
}

fn archive(source: &Path) -> Result<Archive, Failure> {
    if source == Path::new("-") {
        return Ok(Archive::Stdin);
    }
    let about = std::fs::metadata(source);
    let about = about.map_err(|error| Failure::Read { path: source.to_owned(), source: error })?;
    match about.is_dir() {
        true => Ok(Archive::Directory(source.to_owned())),
        false => Ok(Archive::File(source.to_owned())),
    }
}

fn bar(context: &Context, archive: &Archive) -> ProgressBar {
    if !context.on_terminal() || context.is_printing() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match archive {
        Archive::File(file) => match std::fs::metadata(file) {
            Ok(about) => (ProgressBar::new(about.len()), "[{bar:30}] {bytes} of {total_bytes}, {eta}"),
            Err(_) => (ProgressBar::new_spinner(), "{spinner} {bytes}"),
        },
        Archive::Directory(_) | Archive::Stdin => (ProgressBar::new_spinner(), "{spinner} {bytes}"),
    };
    bar.enable_steady_tick(Duration::from_millis(120));
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

type Chunks = futures_util::stream::BoxStream<'static, io::Result<Bytes>>;

async fn open(archive: &Archive) -> Result<Chunks, Failure> {
    match archive {
        Archive::Stdin => Ok(written(|sink| io::copy(&mut io::stdin().lock(), sink).map(drop)).boxed()),
        Archive::Directory(dir) => {
            let dir = dir.clone();
            Ok(written(move |sink| pack(&dir, sink)).boxed())
        }
        Archive::File(path) => {
            let file = tokio::fs::File::open(path).await;
            let file = file.map_err(|source| Failure::Read { path: path.clone(), source })?;
            Ok(ReaderStream::with_capacity(file, CHUNK).boxed())
        }
    }
}

/// What a thread of its own writes, while it is sent.
fn written(
    write: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let packer = tokio::task::spawn_blocking(move || {
        let mut writer = Writer::with_capacity(CHUNK, Sink(sender));
        write(&mut writer)?;
        writer.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    });
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (Ok(chunk), receiver))
    });
    let end = futures_util::stream::once(async move {
        match packer.await {
            Ok(Ok(())) => Ok(Bytes::new()),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(io::Error::other(panic)),
        }
    });
    chunks.chain(end)
}

fn pack(dir: &Path, writer: &mut Writer) -> io::Result<()> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    builder.append_dir_all(".", dir)?;
    builder.finish()
}

type Writer = io::BufWriter<Sink>;

/// Hands what is written to whoever sends it.
struct Sink(mpsc::Sender<Bytes>);

impl io::Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(data));
        sent.map(|()| data.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    async fn bytes(archive: &Archive) -> Vec<u8> {
        let chunks: Vec<io::Result<Bytes>> = open(archive).await.unwrap().collect().await;
        chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect()
    }

    #[tokio::test]
    async fn a_directory_becomes_a_whole_archive() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("blobs")).unwrap();
        let large = vec![7u8; 3 * CHUNK + 1];
        std::fs::write(dir.path().join("blobs/large"), &large).unwrap();
        std::fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        let all = bytes(&Archive::Directory(dir.path().to_owned())).await;
        let mut found = Vec::new();
        for entry in tar::Archive::new(all.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            found.push((entry.path().unwrap().display().to_string(), data.len()));
        }
        found.retain(|(_, size)| *size > 0);
        found.sort();
        assert_eq!(found, [("blobs/large".to_owned(), large.len()), ("oci-layout".to_owned(), 2)]);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_read_breaks_the_stream() {
        let gone = Archive::Directory("/nowhere/at/all".into());
        let chunks: Vec<io::Result<Bytes>> = open(&gone).await.unwrap().collect().await;
        assert!(chunks.last().unwrap().is_err());
    }
}
