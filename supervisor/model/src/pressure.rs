//! How full the data disk is, and what follows from it.
//!
//! ```text
//!            warn %            clean %            pause %
//!   Fine ------------> Warning ------------> Cleaning ------------> Paused
//!        <------------         <------------          <------------
//!          warn - 2 %            clean - 2 %            pause - 2 %
//! ```
//!
//! A level is entered at its threshold and left [`SLACK`] below it, so that a disk which hovers about
//! a threshold is told of once. What is allocated counts as used, so volumes do from the day they are
//! made; so does the ballast file, whether it is there at the time or not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Percent below its threshold at which a level is left.
pub const SLACK: u64 = 2;

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// There is room.
    #[default]
    Fine,
    /// Somebody should look.
    Warning,
    /// Unused images are removed at once.
    Cleaning,
    /// No image is taken in.
    Paused,
}

impl Level {
    /// For metrics: 0 to 3.
    pub fn number(self) -> i64 {
        match self {
            Self::Fine => 0,
            Self::Warning => 1,
            Self::Cleaning => 2,
            Self::Paused => 3,
        }
    }
}

/// Percent used at which levels are entered; a hundred is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    /// Somebody is told.
    pub warn_percent: u8,
    /// Unused images are removed, whatever their age.
    pub clean_percent: u8,
    /// No image is pulled or imported.
    pub pause_percent: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { warn_percent: 80, clean_percent: 90, pause_percent: 95 }
    }
}

/// The data disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// All there is.
    pub total: u64,
    /// What can still be taken.
    pub free: u64,
}

impl Disk {
    /// The same without what is set aside for later.
    pub fn without(self, aside: u64) -> Self {
        Self { free: self.free.saturating_sub(aside), ..self }
    }

    /// Whole percent that are taken, rounded down.
    pub fn percent(self) -> u64 {
        let used = u128::from(self.total.saturating_sub(self.free));
        u64::try_from((used * 100).checked_div(u128::from(self.total)).unwrap_or(0)).unwrap_or(100)
    }

    /// At or above a threshold.
    pub fn reaches(self, percent: u8) -> bool {
        percent < 100 && self.percent() >= u64::from(percent)
    }
}

impl Thresholds {
    /// Where a disk stands that stood at `before` the last time.
    pub fn level(&self, before: Level, disk: Disk) -> Level {
        let steps = [
            (Level::Paused, self.pause_percent),
            (Level::Cleaning, self.clean_percent),
            (Level::Warning, self.warn_percent),
        ];
        let stands = |(level, percent): &(Level, u8)| {
            let threshold = u64::from(*percent);
            let slack = SLACK.min(threshold.saturating_sub(1));
            let stays = before >= *level && *percent < 100 && disk.percent() + slack > threshold;
            disk.reaches(*percent) || stays
        };
        steps.into_iter().find(stands).map_or(Level::Fine, |(level, _)| level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(percent: u64) -> Disk {
        Disk { total: 1000, free: 1000 - percent * 10 }
    }

    fn walk(thresholds: Thresholds, percents: &[u64]) -> Vec<Level> {
        let mut level = Level::Fine;
        let mut levels = Vec::new();
        for percent in percents {
            level = thresholds.level(level, disk(*percent));
            levels.push(level);
        }
        levels
    }

    #[test]
    fn levels_are_entered_at_their_thresholds_and_left_below_them() {
        use Level::{Cleaning, Fine, Paused, Warning};
        let seen = walk(Thresholds::default(), &[79, 80, 79, 78, 89, 90, 94, 95, 94, 93, 89, 88, 79, 78]);
        let wanted = [
            Fine, Warning, Warning, Fine, Warning, Cleaning, Cleaning, Paused, Paused, Cleaning, Cleaning, Warning,
            Warning, Fine,
        ];
        assert_eq!(seen, wanted);
        assert_eq!(walk(Thresholds::default(), &[100, 10]), [Paused, Fine], "a jump takes no detour");
    }

    #[test]
    fn a_hundred_is_never_reached_and_ends_a_level() {
        let off = Thresholds { warn_percent: 100, clean_percent: 100, pause_percent: 100 };
        assert_eq!(walk(off, &[100]), [Level::Fine]);
        assert_eq!(off.level(Level::Paused, disk(99)), Level::Fine);
    }

    #[test]
    fn a_level_can_be_left_however_low_its_threshold_is() {
        let low = Thresholds { warn_percent: 1, clean_percent: 1, pause_percent: 2 };
        assert_eq!(walk(low, &[2, 1, 0]), [Level::Paused, Level::Cleaning, Level::Fine]);
    }

    #[test]
    fn what_is_set_aside_counts_as_used_and_a_disk_of_nothing_is_not_full() {
        assert_eq!(disk(50).without(100).percent(), 60);
        assert_eq!(disk(50).without(5000).percent(), 100);
        assert_eq!((Disk { total: 0, free: 0 }.percent(), Disk { total: 3, free: 1 }.percent()), (0, 66));
        assert_eq!(Disk { total: u64::MAX, free: 1 }.percent(), 99);
    }
}
