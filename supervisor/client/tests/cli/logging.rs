//! logs.

use crate::fake::{End, Fake, Reply};
use crate::reading::BUNDLES;

fn log() -> String {
    format!("GET {BUNDLES}/web/log")
}

fn text(lines: &[&str], end: End) -> Reply {
    Reply::Stream(lines.iter().map(|line| format!("{line}\n")).collect(), end)
}

#[tokio::test]
async fn a_log_is_printed_as_it_is() {
    let fake = Fake::start();
    fake.on(&log(), Reply::Stream(vec!["one\n\ntw".into(), "o\nno end".into()], End::Properly));
    let ran = fake.run(&["logs", "web", "--tail", "20", "--since", "10m", "--timestamps", "-p"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "one\n\ntwo\nno end\n"), "{}", ran.err);
    assert_eq!(fake.seen()[0].query, "tailLines=20&sinceSeconds=600&timestamps=true&previous=true");
}

#[tokio::test]
async fn a_followed_log_goes_on_after_a_break_without_a_gap_or_a_repetition() {
    let fake = Fake::start();
    let (first, second) = ("2026-11-21T00:00:01.5Z line 1", "2026-11-21T00:00:02Z line 2");
    fake.on(&log(), text(&[first, second], End::Broken));
    fake.refuse(&log(), 503, "ServiceUnavailable", "starting");
    fake.on(&log(), text(&[second, "2026-11-21T00:00:02Z line 3", "2026-11-21T00:00:03Z line 4"], End::Open));
    let mut berth = fake.start_berth(&["logs", "web", "-f", "--tail", "2"]);
    for expected in ["line 1", "line 2", "line 3", "line 4"] {
        assert_eq!(berth.line().await, expected);
    }
    let asked = fake.asked(&log());
    assert_eq!(asked[0].query, "follow=true&tailLines=2&timestamps=true");
    assert_eq!(asked[2].query, "follow=true&timestamps=true&sinceTime=2026-11-21T00%3A00%3A02Z");
}

#[tokio::test]
async fn a_log_ends_when_its_service_is_gone() {
    let fake = Fake::start();
    fake.on(&log(), text(&["2026-11-21T00:00:01Z last words"], End::Properly));
    fake.refuse(&log(), 404, "NotFound", "bundles.berth.dev \"web\" not found");
    let ran = fake.run(&["logs", "web", "-f"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "last words\n", "bundle/web is gone\n"));
    let fake = Fake::start();
    fake.refuse(&log(), 404, "NotFound", "bundles.berth.dev \"web\" not found");
    let ran = fake.run(&["logs", "web", "-f"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
}
