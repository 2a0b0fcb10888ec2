//! Output of bundles, from the journal.
//!
//! Every line that a unit of ours writes carries the namespace and the bundle as fields of its own
//! (the unit's `LogExtraFields`), so one query finds all revisions, stopped ones included.

use berth_host::journal::{Entries, Entry, Query, Record};
use berth_model::resource::Bundle;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use std::io;

use crate::api::{ByteStream, LogRequest, LogsPort, PortError};
use crate::store::Store;

/// Lines that go out as one piece at most, if so many are there already.
const TOGETHER: usize = 128;

/// The journal as the API's source of logs.
pub struct JournalLogs {
    store: Store,
}

impl JournalLogs {
    /// Bundles are looked up in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn begin(&self, request: LogRequest) -> Result<ByteStream, PortError> {
        let (namespace, name) = (request.namespace.clone(), request.bundle.clone());
        let found = self.store.read(move |tx| tx.get::<Bundle>(&namespace, &name)).await;
        let bundle = found.map_err(|error| PortError::Failed(Box::new(error)))?.ok_or_else(|| absent(&request))?;
        let query = query(&request, &bundle)?;
        let entries = query.read().map_err(|error| PortError::Failed(Box::new(error)))?;
        Ok(lines(entries, request.timestamps))
    }
}

impl LogsPort for JournalLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, PortError>> {
        Box::pin(self.begin(request))
    }
}

fn absent(request: &LogRequest) -> PortError {
    PortError::Absent(format!(
        "there is no bundle {}/{}; `berth status -A` lists what there is, and `journalctl \
         BERTH_BUNDLE={}` still shows what a removed one wrote",
        request.namespace, request.bundle, request.bundle
    ))
}

fn query(request: &LogRequest, bundle: &Bundle) -> Result<Query, PortError> {
    let mut query = Query::new()
        .field("_TRANSPORT", "stdout")
        .field("BERTH_NAMESPACE", &request.namespace)
        .field("BERTH_BUNDLE", &request.bundle);
    if request.previous {
        let ended = bundle.status.as_ref().and_then(|status| status.last_termination.as_ref());
        let ended = ended.ok_or_else(|| PortError::Absent("no earlier run of this bundle has ended".into()))?;
        query = query.field("_SYSTEMD_INVOCATION_ID", &ended.invocation);
    }
    if let Some(since) = request.since {
        query = query.since_us(u64::try_from(since.as_microsecond()).unwrap_or_default());
    }
    if let Some(count) = request.tail_lines {
        query = query.last(u32::try_from(count).unwrap_or(u32::MAX));
    }
    Ok(if request.follow { query.follow() } else { query })
}

fn lines(entries: Entries, timestamps: bool) -> ByteStream {
    let line = move |record| match record {
        Record::Entry(entry) => text(&entry, timestamps),
        Record::Dropped => Bytes::from_static(b"(a line was too long to be shown)\n"),
    };
    stream::try_unfold(entries, async |mut entries: Entries| {
        let record = entries.next().await.map_err(io::Error::other)?;
        Ok(record.map(|record| (record, entries)))
    })
    .map_ok(line)
    .ready_chunks(TOGETHER)
    .flat_map(|lines| stream::iter(joined(lines)))
    .boxed()
}

/// Lines that are there at once as one piece, and the error that ended them.
fn joined(lines: Vec<io::Result<Bytes>>) -> impl Iterator<Item = io::Result<Bytes>> {
    let (mut whole, mut failed) = (BytesMut::new(), None);
    for line in lines {
        match line {
            Ok(line) => whole.extend_from_slice(&line),
            Err(error) => failed = Some(Err(error)),
        }
    }
    let whole = (!whole.is_empty()).then(|| Ok(whole.freeze()));
    whole.into_iter().chain(failed)
}

fn text(entry: &Entry, timestamps: bool) -> Bytes {
    let mut line = Vec::with_capacity(entry.message.len() + 40);
    if timestamps {
        let time = i64::try_from(entry.time_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
        line.extend(time.unwrap_or(Timestamp::UNIX_EPOCH).to_string().bytes());
        line.push(b' ');
    }
    line.extend(&entry.message);
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_there_at_once_go_out_together_and_an_error_after_them() {
        let broken = || Err(io::Error::other("broken"));
        let told = |lines: Vec<io::Result<Bytes>>| -> Vec<_> {
            joined(lines).map(|piece| piece.map_err(|error| error.to_string())).collect()
        };
        let lines = || ["a\n", "b\n"].map(|line| Ok(Bytes::from_static(line.as_bytes())));
        assert_eq!(told(lines().into()), [Ok("a\nb\n".into())]);
        assert_eq!(told(lines().into_iter().chain([broken()]).collect()), [Ok("a\nb\n".into()), Err("broken".into())]);
        assert_eq!(told(vec![broken()]), [Err("broken".into())]);
    }
}
