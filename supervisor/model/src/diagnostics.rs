//! What an examination of the machine found, and what that means for whoever asked.

use serde::{Deserialize, Serialize};

use crate::resource::{GROUP, VERSION};

/// How one thing was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It was not looked at; the finding says why.
    #[default]
    Skipped,
    /// Berth works, with less than it could have or not for ever.
    Warning,
    /// Something does not work.
    Problem,
}

impl Outcome {
    /// As people are shown it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Area {
    /// What Berth needs of the machine.
    #[default]
    Machine,
    /// Berth's own parts.
    Berth,
    /// Things of Berth's that belong to nothing.
    Leftovers,
    /// The bundle that was made to be thrown away.
    Loopback,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// One or two words, the same at every examination.
    pub name: String,
    /// How it was found.
    pub result: Outcome,
    /// What was seen.
    pub message: String,
    /// What that means; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meaning: String,
    /// What to do; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// What a repair did about it, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<String>,
    /// Milliseconds that it took to look.
    pub took_ms: u64,
}

impl Finding {
    /// A finding of that name, with what was seen.
    pub fn new(area: Area, name: &str, result: Outcome, message: impl Into<String>) -> Self {
        Self { area, name: name.to_owned(), result, message: message.into(), ..Self::default() }
    }

    /// The same with what it means and what to do.
    #[must_use]
    pub fn means(self, meaning: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { meaning: meaning.into(), advice: advice.into(), ..self }
    }
}

/// What somebody who asks may do with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is in the way.
    Healthy,
    /// Something does not work.
    Problems,
    /// All that was looked at is well, but the bundle that was asked for could not be tried.
    NotProbed,
}

/// An examination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Diagnosis {
    /// `berth.dev/v1`.
    pub api_version: String,
    /// `Diagnosis`.
    pub kind: String,
    /// In the order in which it was looked.
    pub findings: Vec<Finding>,
    /// Why the bundle that was asked for could not be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_probed: Option<String>,
}

impl Diagnosis {
    /// What was found.
    pub fn new(findings: Vec<Finding>, not_probed: Option<String>) -> Self {
        let api_version = format!("{GROUP}/{VERSION}");
        Self { api_version, kind: "Diagnosis".to_owned(), findings, not_probed }
    }

    /// What it comes to. What a repair has mended still was a problem, until the next examination.
    pub fn verdict(&self) -> Verdict {
        match (self.count(Outcome::Problem), &self.not_probed) {
            (1.., _) => Verdict::Problems,
            (0, Some(_)) => Verdict::NotProbed,
            (0, None) => Verdict::Healthy,
        }
    }

    /// How many findings are so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.findings.iter().filter(|finding| finding.result == outcome).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(results: &[Outcome], not_probed: Option<&str>) -> Diagnosis {
        let finding = |result: &Outcome| Finding::new(Area::Machine, "x", *result, "seen");
        Diagnosis::new(results.iter().map(finding).collect(), not_probed.map(str::to_owned))
    }

    #[test]
    fn a_warning_is_no_problem_and_a_problem_counts_more_than_a_probe_that_could_not_run() {
        let (fine, warned) = ([Outcome::Ok, Outcome::Skipped], [Outcome::Ok, Outcome::Warning]);
        assert_eq!(diagnosis(&fine, None).verdict(), Verdict::Healthy);
        assert_eq!(diagnosis(&warned, None).verdict(), Verdict::Healthy);
        assert_eq!(diagnosis(&warned, Some("busy")).verdict(), Verdict::NotProbed);
        assert_eq!(diagnosis(&[Outcome::Problem], Some("busy")).verdict(), Verdict::Problems);
    }

    #[test]
    fn what_there_is_nothing_to_say_of_is_not_said() {
        let value = serde_json::to_value(Finding::new(Area::Leftovers, "links", Outcome::Ok, "none")).unwrap();
        let expected =
            serde_json::json!({"area": "leftovers", "name": "links", "result": "ok", "message": "none", "tookMs": 0});
        assert_eq!(value, expected);
    }
}
