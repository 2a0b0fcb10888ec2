//! `berth logs`. Following outlives the server: after a break it goes on behind the last line it
//! has shown, which it knows by the time that the server puts before each line.

use std::io::Write;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Method;

use super::Context;
use super::args::LogsArgs;
use super::failure::Failure;
use crate::client::berth;
use crate::error::ClientError;
use crate::request::Request;
use crate::transport::Lines;
use crate::watch::backoff;

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<(), Failure> {
    let request = request(context, args);
    if args.follow && !context.is_printing() {
        return follow(context, args).await;
    }
    let mut lines = context.client.transport().lines(&request).await?;
    let mut paper = Paper::default();
    while let Some(line) = lines.next().await? {
        paper.print(&line, &lines)?;
    }
    Ok(())
}

fn request(context: &Context, args: &LogsArgs) -> Request {
    berth(&["namespaces", &context.namespace, "bundles", &args.name, "log"], Method::GET)
        .accept("text/plain")
        .query_if("follow", args.follow.then_some(true))
        .query_if("tailLines", args.tail)
        .query_if("sinceSeconds", args.since.map(|since| since.as_secs().max(1)))
        .query_if("timestamps", args.timestamps.then_some(true))
        .query_if("previous", args.previous.then_some(true))
}

/// The request that goes on where the cursor stands.
fn following(context: &Context, args: &LogsArgs, cursor: &Cursor) -> Request {
    let timed = LogsArgs { timestamps: true, name: args.name.clone(), ..*args };
    match cursor.last {
        None => request(context, &timed),
        Some(last) => {
            let rest = LogsArgs { tail: None, since: None, ..timed };
            request(context, &rest).query("sinceTime", last)
        }
    }
}

async fn follow(context: &Context, args: &LogsArgs) -> Result<(), Failure> {
    let mut cursor = Cursor::default();
    let mut failures = 0;
    loop {
        tokio::time::sleep(backoff(failures)).await;
        let ended = match context.client.transport().lines(&following(context, args, &cursor)).await {
            Ok(lines) => copy(args, &mut cursor, lines, &mut failures).await?,
            Err(error) => Some(error),
        };
        match ended {
            Some(error) if error.is_not_found() && cursor.last.is_some() => {
                return context.note(&format!("bundle/{} is gone", args.name));
            }
            Some(error) if cursor.last.is_none() && failures == 0 => return Err(error.into()),
            Some(error) if !error.is_passing() => return Err(error.into()),
            Some(error) if failures == 0 => context.note(&format!("connection lost ({error}); trying again"))?,
            _ => {}
        }
        failures += 1;
        cursor.resume();
    }
}

/// Prints what comes until it ends; the answer is why, if it did not end by itself.
async fn copy(
    args: &LogsArgs,
    cursor: &mut Cursor,
    mut lines: Lines,
    failures: &mut u32,
) -> Result<Option<ClientError>, Failure> {
    let mut paper = Paper::default();
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                *failures = 0;
                match cursor.take(&line) {
                    Some(_) if args.timestamps => paper.print(&line, &lines)?,
                    Some(text) => paper.print(&text, &lines)?,
                    None => paper.hand_out(&lines)?,
                }
            }
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        }
    }
}

/// Lines that have come and are not shown yet: those that came together are written together.
#[derive(Default)]
struct Paper(Vec<u8>);

impl Paper {
    fn print(&mut self, line: &[u8], lines: &Lines) -> Result<(), Failure> {
        self.0.extend_from_slice(line);
        self.0.push(b'\n');
        self.hand_out(lines)
    }

    /// Unless more is there to be printed at once.
    fn hand_out(&mut self, lines: &Lines) -> Result<(), Failure> {
        if !lines.is_drained() || self.0.is_empty() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&self.0).and_then(|()| out.flush());
        self.0.clear();
        written.map_err(Failure::Output)
    }
}

/// Knows which lines have been shown. Several lines can have the same time, and a line without one
/// goes on with the line before it.
#[derive(Debug, Default)]
struct Cursor {
    last: Option<Timestamp>,
    shown_at_last: u32,
    to_skip: u32,
    skipping: bool,
}

impl Cursor {
    /// The text behind the time, unless the line has been shown.
    fn take(&mut self, line: &Bytes) -> Option<Bytes> {
        let (time, text) = match timed(line) {
            Some((time, text)) => (Some(time), text),
            None => (None, line.clone()),
        };
        self.skipping = time.map_or(self.skipping, |time| self.is_shown(time));
        (!self.skipping).then_some(text)
    }

    fn is_shown(&mut self, time: Timestamp) -> bool {
        match self.last {
            Some(last) if time < last => return true,
            Some(last) if time == last && self.to_skip > 0 => {
                self.to_skip -= 1;
                return true;
            }
            Some(last) if time == last => self.shown_at_last += 1,
            _ => (self.last, self.shown_at_last) = (Some(time), 1),
        }
        self.to_skip = 0;
        false
    }

    /// The server will begin again at the last time.
    fn resume(&mut self) {
        self.to_skip = self.shown_at_last;
    }
}

fn timed(line: &Bytes) -> Option<(Timestamp, Bytes)> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let time = std::str::from_utf8(&line[..end]).ok()?.parse().ok()?;
    Some((time, line.slice((end + 1).min(line.len())..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cursor: &mut Cursor, lines: &[&'static str]) -> Vec<String> {
        let taken = lines.iter().filter_map(|line| cursor.take(&Bytes::from_static(line.as_bytes())));
        taken.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    const A: &str = "2026-11-21T00:00:01.000001Z a";
    const B: &str = "2026-11-21T00:00:02.5Z b";
    const B2: &str = "2026-11-21T00:00:02.5Z b again";
    const B3: &str = "2026-11-21T00:00:02.5Z b thrice";
    const C: &str = "2026-11-21T00:00:03Z c";

    #[test]
    fn after_a_break_every_line_is_shown_once() {
        let mut cursor = Cursor::default();
        assert_eq!(shown(&mut cursor, &[A, B, B2]), ["a", "b", "b again"]);
        cursor.resume();
        assert_eq!(shown(&mut cursor, &[A, B, B2, B3, C]), ["b thrice", "c"]);
        cursor.resume();
        assert_eq!(shown(&mut cursor, &[C]), Vec::<String>::new());
    }

    #[test]
    fn an_entry_of_several_lines_is_shown_or_left_out_as_a_whole() {
        let mut cursor = Cursor::default();
        assert_eq!(shown(&mut cursor, &[A, "  at one", B]), ["a", "  at one", "b"]);
        cursor.resume();
        assert_eq!(shown(&mut cursor, &[A, "  at one", B, "  at two", C, "  at three"]), ["c", "  at three"]);
    }

    #[test]
    fn an_empty_line_and_one_without_a_time_are_lines_too() {
        let mut cursor = Cursor::default();
        assert_eq!(
            shown(&mut cursor, &["2026-11-21T00:00:01Z ", "no time", "2026-11-21T00:00:02Z"]),
            ["", "no time", ""]
        );
    }
}
