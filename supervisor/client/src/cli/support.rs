//! `berth support-bundle`: the server's archive into a file that is its owner's alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_model::quantity::about_bytes;
use reqwest::Method;

use super::args::SupportArgs;
use super::failure::Failure;
use super::{Context, follow};
use crate::client::berth;
use crate::curl::quote;

pub(super) async fn run(context: &Context, args: &SupportArgs) -> Result<(), Failure> {
    let request = berth(&["system", "support-bundle"], Method::GET);
    let request = if args.with_service_logs { request.query("serviceLogs", "true") } else { request };
    let path = args.file.clone().unwrap_or_else(|| named(context));
    if context.is_printing() {
        let request = context.client.transport().command(&request);
        return context.say(&format!("(umask 077; {request} --output {})", quote(&path.to_string_lossy())));
    }
    let work = async {
        let mut pieces = context.client.transport().pieces(&request).await?;
        let wrong = |source| Failure::Create { path: path.clone(), source };
        let mut file = create(&path).map_err(wrong)?;
        let mut size = 0;
        while let Some(piece) = pieces.next().await? {
            size += piece.len() as u64;
            file.write_all(&piece).map_err(wrong)?;
        }
        file.sync_all().map_err(wrong)?;
        Ok(size)
    };
    let size = follow::bounded(context, "the archive", "berth support-bundle", work).await?;
    context.say(&format!(
        "{} ({}); have a look at its README.txt before you hand it on",
        path.display(),
        about_bytes(size)
    ))
}

/// In the present directory, after the time.
fn named(context: &Context) -> PathBuf {
    format!("berth-support-{}.tar.zst", context.now().strftime("%Y%m%dT%H%M%SZ")).into()
}

/// A file that was not there before, for nobody else to read.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
