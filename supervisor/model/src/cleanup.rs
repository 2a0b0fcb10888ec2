//! What a cleanup removes: a plan, made from what there is, the rules and the time, and nothing else.
//!
//! ```text
//! candidates (what nothing needs, and since when) --plan(rules, now)--> items --a real run removes--> these
//!                                                                          `---a dry run shows-------> the same
//! ```
//!
//! Whoever finds candidates leaves out what is needed: this module judges age alone. A new kind of
//! thing joins by a variant of [`ItemKind`], its age in [`Rules`], and whoever finds it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::pressure::{Disk, Level};
use crate::resource::{GROUP, VERSION};

/// What can be removed, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ItemKind {
    /// A finished Operation.
    Operation,
    /// An Event.
    Event,
    /// An image with all of its names.
    Image,
}

impl ItemKind {
    /// Every kind, in order.
    pub const ALL: [ItemKind; 3] = [Self::Operation, Self::Event, Self::Image];

    /// In lower case, for one.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Event => "event",
            Self::Image => "image",
        }
    }

    fn reason(self, age: &str) -> String {
        match self {
            Self::Operation => format!("finished {age} ago"),
            Self::Event => format!("last seen {age} ago"),
            Self::Image => format!("unused for {age}"),
        }
    }
}

/// How long what nothing needs is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Images, after nothing needed them any more.
    pub images: SignedDuration,
    /// Operations, after they finished.
    pub operations: SignedDuration,
    /// Events, after they last happened.
    pub events: SignedDuration,
}

impl Rules {
    /// How long things of a kind are kept.
    pub fn age(&self, kind: ItemKind) -> SignedDuration {
        match kind {
            ItemKind::Operation => self.operations,
            ItemKind::Event => self.events,
            ItemKind::Image => self.images,
        }
    }

    /// What of `candidates` is old enough, by kind, the oldest first.
    pub fn plan(&self, candidates: Vec<Candidate>, now: Timestamp) -> Plan {
        let mut old: Vec<Candidate> = candidates;
        old.retain(|one| now.duration_since(one.since) >= self.age(one.kind));
        old.sort_by(|a, b| (a.kind, a.since, &a.namespace, &a.name).cmp(&(b.kind, b.since, &b.namespace, &b.name)));
        Plan { items: old.into_iter().map(|one| one.item(now)).collect() }
    }
}

/// Something that nothing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it is.
    pub kind: ItemKind,
    /// Its namespace, empty for none.
    pub namespace: String,
    /// What people call it.
    pub name: String,
    /// What it is removed by: uid or digest.
    pub id: String,
    /// Since when nothing needs it.
    pub since: Timestamp,
    /// Bytes it takes; of images as they were fetched, layers they share with others included.
    pub size: u64,
}

impl Candidate {
    fn item(self, now: Timestamp) -> Item {
        let Self { kind, namespace, name, id, since, size } = self;
        Item { kind, namespace, name, id, why: kind.reason(&age(now.duration_since(since))), size }
    }
}

/// Something that is to be removed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its namespace, empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// What people call it.
    pub name: String,
    /// Uid or digest.
    pub id: String,
    /// For people.
    pub why: String,
    /// Bytes, as in [`Candidate::size`].
    pub size: u64,
}

/// All that is to be removed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// By kind, the oldest first.
    pub items: Vec<Item>,
}

impl Plan {
    /// Bytes of all items.
    pub fn size(&self) -> u64 {
        self.items.iter().map(|item| item.size).sum()
    }

    /// Items of a kind.
    pub fn of(&self, kind: ItemKind) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.kind == kind)
    }

    /// For people: `2 operations, 1 image`; `nothing` if there is nothing.
    pub fn counts(&self) -> String {
        let count = |kind: ItemKind| match self.of(kind).count() {
            0 => None,
            1 => Some(format!("1 {}", kind.word())),
            many => Some(format!("{many} {}s", kind.word())),
        };
        let counts: Vec<String> = ItemKind::ALL.into_iter().filter_map(count).collect();
        if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
    }
}

/// What a cleanup came to, as the API tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `berth.dev/v1`.
    pub api_version: String,
    /// `CleanupReport`.
    pub kind: String,
    /// Nothing was removed.
    pub dry_run: bool,
    /// What was removed, or would be.
    #[serde(flatten)]
    pub plan: Plan,
    /// Bytes of all of it.
    pub size: u64,
    /// Bytes that the data disk has more room for than before; others may have written meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed: Option<u64>,
    /// The data disk now.
    pub disk: Disk,
    /// How full it counts as.
    pub level: Level,
}

impl Report {
    /// A report of that plan.
    pub fn new(plan: Plan, freed: Option<u64>, disk: Disk, level: Level) -> Self {
        Self {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "CleanupReport".to_owned(),
            dry_run: freed.is_none(),
            size: plan.size(),
            plan,
            freed,
            disk,
            level,
        }
    }
}

/// In the largest unit of which there is one: days, hours, minutes, seconds.
fn age(of: SignedDuration) -> String {
    let seconds = of.as_secs().max(0);
    let units = [(86_400, "d"), (3600, "h"), (60, "min")];
    let fits = units.into_iter().find(|(unit, _)| seconds >= *unit);
    fits.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * DAY).unwrap()
    }

    fn candidate(kind: ItemKind, name: &str, since: i64) -> Candidate {
        let (namespace, id) = (String::new(), format!("id-{name}"));
        Candidate { kind, namespace, name: name.into(), id, since: at(since), size: 10 }
    }

    fn rules() -> Rules {
        let days = |days: i64| SignedDuration::from_hours(days * 24);
        Rules { images: days(7), operations: days(30), events: days(7) }
    }

    fn told(plan: &Plan) -> Vec<String> {
        plan.items.iter().map(|item| format!("{} {}: {}", item.kind.word(), item.name, item.why)).collect()
    }

    #[test]
    fn what_is_old_enough_goes_by_kind_and_the_oldest_first() {
        use ItemKind as K;
        let all = vec![
            candidate(K::Image, "young", 94),
            candidate(K::Image, "week", 93),
            candidate(K::Image, "old", 50),
            candidate(K::Event, "event", 91),
            candidate(K::Operation, "done", 70),
            candidate(K::Operation, "lately", 71),
        ];
        let plan = rules().plan(all, at(100));
        assert_eq!(
            told(&plan),
            [
                "operation done: finished 30 d ago",
                "event event: last seen 9 d ago",
                "image old: unused for 50 d",
                "image week: unused for 7 d",
            ]
        );
        assert_eq!((plan.size(), plan.counts().as_str()), (40, "1 operation, 1 event, 2 images"));
    }

    #[test]
    fn an_age_of_nothing_takes_what_is_unused_and_what_a_clock_that_went_back_makes_future_stays() {
        let rules = Rules { images: SignedDuration::ZERO, ..rules() };
        let plan =
            rules.plan(vec![candidate(ItemKind::Image, "a", 100), candidate(ItemKind::Image, "b", 101)], at(100));
        assert_eq!(told(&plan), ["image a: unused for 0 s"]);
        assert_eq!(Plan::default().counts(), "nothing");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        let told = |seconds| age(SignedDuration::from_secs(seconds));
        assert_eq!([told(59), told(60), told(7199), told(DAY * 9 + 1)], ["59 s", "1 min", "1 h", "9 d"]);
    }
}
