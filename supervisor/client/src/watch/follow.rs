//! Drives the watch machine against a server.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Ask, Event, Heard, Machine, News};
use crate::client::Client;
use crate::error::ClientError;
use crate::resource::{ResourceType, Scope};
use crate::transport::Lines;

/// A server ends a watch after so long, so that a dead connection is found out.
const WATCH_SECONDS: u64 = 300;

/// One list kept up to date. [`Watcher::next`] may be dropped at any await without loss, so that
/// several watchers fit into one `select!`.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    kind: ResourceType,
    scope: Scope,
    machine: Machine,
    pending: VecDeque<News>,
    open: Option<Open>,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    lines: Lines,
    since: Instant,
}

impl Watcher {
    /// Watches what the scope selects. Nothing is asked before the first `next`.
    pub fn new(client: &Client, kind: &ResourceType, scope: Scope) -> Self {
        Self {
            client: client.clone(),
            kind: kind.clone(),
            scope,
            machine: Machine::default(),
            pending: VecDeque::new(),
            open: None,
            due: None,
        }
    }

    /// The next news, after as many questions as it takes.
    ///
    /// # Errors
    /// The server refuses for good, or did not answer the very first question.
    pub async fn next(&mut self) -> Result<News, ClientError> {
        loop {
            if let Some(news) = self.pending.pop_front() {
                return Ok(news);
            }
            let heard = self.ask().await?;
            self.due = None;
            self.pending.extend(self.machine.heard(heard));
        }
    }

    /// All that was there at first has been told.
    pub fn synced(&self) -> bool {
        self.machine.synced() && self.pending.is_empty()
    }

    async fn ask(&mut self) -> Result<Heard, ClientError> {
        if self.open.is_none() {
            match self.question().await {
                Ask::List => return self.list().await,
                Ask::Watch { since } => match self.watch(&since).await {
                    Ok(lines) => self.open = Some(Open { lines, since: Instant::now() }),
                    Err(error) => return self.judge(Err(error), Duration::ZERO),
                },
            }
        }
        self.listen().await
    }

    /// The next question, once it is due.
    async fn question(&mut self) -> Ask {
        let next = self.machine.next();
        let due = *self.due.get_or_insert_with(|| Instant::now() + next.after);
        sleep_until(due).await;
        next.ask
    }

    async fn list(&mut self) -> Result<Heard, ClientError> {
        let heard = self.client.list_dynamic(&self.kind, &self.scope).await;
        let heard = heard.map(|list| Heard::Listed { version: list.version, items: list.items });
        self.judge(heard, Duration::ZERO)
    }

    async fn watch(&self, since: &str) -> Result<Lines, ClientError> {
        let request = self
            .kind
            .list(&self.scope)
            .query("watch", true)
            .query("allowWatchBookmarks", true)
            .query("resourceVersion", since)
            .query("timeoutSeconds", WATCH_SECONDS);
        self.client.transport().lines(&request).await
    }

    async fn listen(&mut self) -> Result<Heard, ClientError> {
        let Some(open) = &mut self.open else { return Ok(Heard::Ended { lasted: Duration::ZERO }) };
        let (heard, lasted) = (hear(&mut open.lines).await, open.since.elapsed());
        if let Ok(Some(event)) = heard {
            return Ok(Heard::Event(event));
        }
        self.open = None;
        self.judge(heard.map(|_| Heard::Ended { lasted }), lasted)
    }

    /// What the machine can deal with, it is told; the rest is the caller's.
    fn judge(&self, heard: Result<Heard, ClientError>, lasted: Duration) -> Result<Heard, ClientError> {
        match heard {
            Err(error) if error.is_gone() => Ok(Heard::Gone),
            Err(error) if error.is_passing() && self.machine.synced() => {
                Ok(Heard::Lost { why: error.to_string(), lasted })
            }
            other => other,
        }
    }
}

async fn hear(lines: &mut Lines) -> Result<Option<Event>, ClientError> {
    let line = lines.next().await?;
    line.map(|line| lines.parse(&line)).transpose()
}
