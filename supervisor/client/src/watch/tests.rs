use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object(name: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": "default", "name": name, "resourceVersion": version.to_string()}})
}

fn event(kind: &str, object: Value) -> Heard {
    Heard::Event(Event { kind: kind.to_owned(), object })
}

fn listed(version: u64, items: Vec<Value>) -> Heard {
    Heard::Listed { version: version.to_string(), items }
}

fn lost() -> Heard {
    Heard::Lost { why: "broken".to_owned(), lasted: Duration::ZERO }
}

fn since(version: u64) -> Ask {
    Ask::Watch { since: version.to_string() }
}

fn synced(version: u64, items: Vec<Value>) -> Machine {
    let mut machine = Machine::default();
    machine.heard(listed(version, items));
    machine
}

#[test]
fn it_lists_first_and_watches_from_the_version_of_the_list() {
    let mut machine = Machine::default();
    assert_eq!(machine.next(), Next { after: Duration::ZERO, ask: Ask::List });
    let news = machine.heard(listed(7, vec![object("a", 3)]));
    assert_eq!(news, [News::Present(object("a", 3)), News::Synced]);
    assert_eq!(machine.next(), Next { after: Duration::ZERO, ask: since(7) });
}

#[test]
fn every_event_moves_the_version_on_and_a_bookmark_is_no_news() {
    let mut machine = synced(7, vec![]);
    assert_eq!(machine.heard(event("ADDED", object("a", 8))), [News::Present(object("a", 8))]);
    assert_eq!(machine.next().ask, since(8));
    let bookmark = json!({"metadata": {"resourceVersion": "30"}});
    assert_eq!(machine.heard(event("BOOKMARK", bookmark)), []);
    assert_eq!(machine.next().ask, since(30));
    assert_eq!(machine.heard(event("DELETED", object("a", 31))), [News::Absent(object("a", 31))]);
}

#[test]
fn what_was_told_before_is_not_told_again() {
    let mut machine = synced(7, vec![object("a", 3)]);
    assert_eq!(machine.heard(event("ADDED", object("a", 3))), []);
    assert_eq!(machine.heard(event("DELETED", object("never-seen", 9))), []);
}

#[test]
fn a_compacted_version_leads_to_a_new_list_at_once_and_only_differences_are_told() {
    let mut machine = synced(7, vec![object("a", 3), object("b", 4), object("c", 5)]);
    let gone = json!({"kind": "Status", "code": 410, "reason": "Expired"});
    assert_eq!(machine.heard(event("ERROR", gone)), []);
    assert_eq!(machine.next(), Next { after: Duration::ZERO, ask: Ask::List });
    let news = machine.heard(listed(90, vec![object("a", 3), object("b", 50), object("d", 60)]));
    assert_eq!(news, [News::Absent(object("c", 5)), News::Present(object("b", 50)), News::Present(object("d", 60)),]);
    assert_eq!(machine.next().ask, since(90));
}

#[test]
fn a_server_that_always_says_gone_is_not_asked_in_a_tight_loop() {
    let mut machine = Machine::default();
    let mut waits = Vec::new();
    for _ in 0..4 {
        machine.heard(listed(1, vec![]));
        machine.heard(Heard::Gone);
        waits.push(machine.next().after);
    }
    assert_eq!(waits, [Duration::ZERO, FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4]);
}

#[test]
fn a_lost_connection_is_told_once_and_tried_again_from_where_it_was() {
    let mut machine = synced(7, vec![]);
    assert_eq!(machine.heard(lost()), [News::Lost("broken".to_owned())]);
    assert_eq!(machine.heard(lost()), []);
    assert_eq!(machine.next(), Next { after: FIRST_WAIT, ask: since(7) });
}

#[test]
fn waits_grow_to_a_bound_and_start_anew_once_something_is_heard() {
    let mut machine = synced(7, vec![]);
    for _ in 0..200 {
        machine.heard(lost());
    }
    assert_eq!(machine.next().after, LONGEST_WAIT);
    machine.heard(event("ADDED", object("a", 8)));
    assert_eq!(machine.next().after, Duration::ZERO);
}

#[test]
fn a_quiet_watch_that_ends_after_a_long_time_is_opened_again_at_once() {
    let mut machine = synced(7, vec![]);
    for _ in 0..5 {
        machine.heard(Heard::Ended { lasted: Duration::from_secs(300) });
        assert_eq!(machine.next(), Next { after: Duration::ZERO, ask: since(7) });
    }
    machine.heard(Heard::Ended { lasted: Duration::ZERO });
    assert_eq!(machine.next().after, FIRST_WAIT);
}

#[test]
fn an_error_of_the_server_is_a_loss_with_its_own_words() {
    let mut machine = synced(7, vec![]);
    let status = json!({"kind": "Status", "code": 500, "message": "store is busy"});
    assert_eq!(machine.heard(event("ERROR", status)), [News::Lost("store is busy".to_owned())]);
    assert_eq!(machine.next().ask, since(7));
}

/// What happens between server and machine in a random run.
#[derive(Clone, Debug)]
enum Turn {
    Put(u8),
    Remove(u8),
    Unseen(Vec<u8>),
    Break,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => (0u8..5).prop_map(Turn::Put),
        2 => (0u8..5).prop_map(Turn::Remove),
        1 => proptest::collection::vec(0u8..5, 0..5).prop_map(Turn::Unseen),
        1 => Just(Turn::Break),
    ];
    proptest::collection::vec(turn, 0..40)
}

/// Follows the news the way a screen would.
#[derive(Default)]
struct Screen(BTreeMap<String, Value>);

impl Screen {
    fn show(&mut self, news: Vec<News>) {
        for one in news {
            match one {
                News::Present(object) => drop(self.0.insert(name(&object), object)),
                News::Absent(object) => drop(self.0.remove(&name(&object))),
                News::Synced | News::Lost(_) => {}
            }
        }
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

proptest! {
    /// Whatever breaks on the way, the news add up to what the server holds.
    #[test]
    fn the_news_add_up_to_the_truth(turns in turns()) {
        let (mut truth, mut version) = (BTreeMap::new(), 1u64);
        let (mut machine, mut screen) = (Machine::default(), Screen::default());
        screen.show(machine.heard(listed(version, vec![])));
        for turn in turns {
            version += 1;
            match turn {
                Turn::Put(n) => {
                    truth.insert(n.to_string(), object(&n.to_string(), version));
                    screen.show(machine.heard(event("MODIFIED", object(&n.to_string(), version))));
                }
                Turn::Remove(n) => {
                    if truth.remove(&n.to_string()).is_some() {
                        screen.show(machine.heard(event("DELETED", object(&n.to_string(), version))));
                    }
                }
                Turn::Unseen(now) => {
                    truth = now.iter().map(|n| (n.to_string(), object(&n.to_string(), version))).collect();
                    screen.show(machine.heard(Heard::Gone));
                    prop_assert_eq!(machine.next().ask, Ask::List);
                    screen.show(machine.heard(listed(version, truth.values().cloned().collect())));
                }
                Turn::Break => screen.show(machine.heard(lost())),
            }
            prop_assert_eq!(&screen.0, &truth);
        }
    }
}
