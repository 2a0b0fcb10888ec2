//! `berth diagnostics`: the supervisor examines the machine. Where it does not answer on this very machine, what can be
//! told without it is told: how its units stand, and their last words.

use berth_model::diagnostics::{Area, Diagnosis, Finding, Outcome, Verdict};
use reqwest::Method;
use serde_json::json;

use super::Context;
use super::args::DiagnosticsArgs;
use super::failure::Failure;
use super::follow;
use super::local::{self, SYSTEMCTL};
use super::output::Output;
use super::sheet::Sheet;
use crate::client::berth;
use crate::error::ClientError;
use crate::request::Request;
use crate::yaml;

/// Without which nothing is examined.
const UNITS: [&str; 3] = ["berth-setup.service", "berthd.service", "berth-dns.service"];
/// Exit code where all that was looked at is well, but the trial could not be begun.
const NOT_PROBED: u8 = 7;

pub(super) async fn run(context: &Context, args: &DiagnosticsArgs) -> Result<(), Failure> {
    let examined = follow::bounded(context, "the examination", "berth diagnostics", async {
        Ok(context.client.transport().upload(&request(args), reqwest::Body::default()).await)
    });
    let diagnosis = match examined.await? {
        Ok(answer) => serde_json::from_value(answer).unwrap_or_default(),
        Err(error @ ClientError::Unreachable { .. }) if context.client.transport().is_socket() => {
            without_supervisor(&error).await
        }
        Err(error) => return Err(error.into()),
    };
    show(context, &diagnosis)?;
    verdict(&diagnosis)
}

fn request(args: &DiagnosticsArgs) -> Request {
    let request = berth(&["system", "diagnostics"], Method::POST);
    let request = if args.no_loopback { request } else { request.query("loopback", "true") };
    if args.repair { request.query("repair", "true") } else { request }
}

fn verdict(diagnosis: &Diagnosis) -> Result<(), Failure> {
    match (diagnosis.verdict(), &diagnosis.not_probed) {
        (Verdict::Healthy, _) => Ok(()),
        (Verdict::NotProbed, why) => {
            let why = why.as_deref().unwrap_or_default();
            Err(Failure::Several(format!("the loopback could not be tried: {why}"), NOT_PROBED))
        }
        (Verdict::Problems, _) => match diagnosis.count(Outcome::Problem) {
            1 => Err(Failure::Several("1 problem was found".to_owned(), 1)),
            many => Err(Failure::Several(format!("{many} problems were found"), 1)),
        },
    }
}

fn show(context: &Context, diagnosis: &Diagnosis) -> Result<(), Failure> {
    match context.output {
        Output::Json => context.say(&format!("{:#}", json!(diagnosis))),
        Output::Yaml => context.say(&yaml::to_string(&json!(diagnosis))?),
        Output::Name => context.say(&diagnosis.findings.iter().map(name).collect::<Vec<_>>().join("\n")),
        Output::Table | Output::Wide => {
            context.sheet(&sheet(diagnosis), "nothing was examined")?;
            let told: Vec<String> = diagnosis.findings.iter().filter_map(told).collect();
            if told.is_empty() { Ok(()) } else { context.say(&format!("\n{}", told.join("\n"))) }
        }
    }
}

fn name(finding: &Finding) -> String {
    let area = match finding.area {
        Area::Machine => "machine",
        Area::Berth => "berth",
        Area::Leftovers => "leftovers",
        Area::Loopback => "loopback",
    };
    format!("{area}/{}", finding.name)
}

fn sheet(diagnosis: &Diagnosis) -> Sheet {
    let mut sheet = Sheet::new(&["What", "Result", "Took", "Found"]);
    for finding in &diagnosis.findings {
        let took = format!("{} ms", finding.took_ms);
        sheet.row(vec![name(finding), finding.result.word().to_owned(), took, finding.message.clone()]);
    }
    sheet
}

/// What is to be said of a finding beside its row.
fn told(finding: &Finding) -> Option<String> {
    let Finding { meaning, advice, repaired, .. } = finding;
    let mut lines = vec![format!("{} ({}): {meaning}", name(finding), finding.result.word())];
    if !advice.is_empty() {
        lines.push(format!("  try: {advice}"));
    }
    lines.extend(repaired.iter().map(|done| format!("  repair: {done}")));
    (lines.len() > 1 || !meaning.is_empty()).then(|| lines.join("\n"))
}

/// What this machine tells of a supervisor that does not answer.
async fn without_supervisor(error: &ClientError) -> Diagnosis {
    let unreachable = Finding::new(Area::Berth, "supervisor", Outcome::Problem, error.to_string()).means(
        "Nothing else can be examined, and nothing can be changed; services run on.",
        "`systemctl start berthd`",
    );
    let mut findings = vec![unreachable];
    for unit in UNITS {
        findings.push(unit_finding(unit).await);
    }
    Diagnosis::new(findings, None)
}

async fn unit_finding(unit: &str) -> Finding {
    let state = local::said(SYSTEMCTL, &["show", "--property=ActiveState,SubState,Result", unit]).await;
    let state = state.lines().collect::<Vec<_>>().join(" ");
    if state.contains("ActiveState=active") {
        return Finding::new(Area::Berth, unit, Outcome::Ok, state);
    }
    let words = local::last_words(unit).await;
    let words = words
        .iter()
        .map(|line| {
            format!(
                "
    {line}"
            )
        })
        .collect::<String>();
    Finding::new(Area::Berth, unit, Outcome::Problem, state)
        .means(format!("its last words:{words}"), format!("`systemctl status {unit}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_is_a_row_and_what_is_not_says_what_it_means_what_to_do_and_what_was_done() {
        assert_eq!(told(&Finding::new(Area::Machine, "time", Outcome::Ok, "set")), None);
        let leaked =
            Finding::new(Area::Leftovers, "links", Outcome::Problem, "bv0-9").means("A place is taken.", "Repair.");
        let leaked = Finding { repaired: vec!["removed bv0-9".to_owned()], ..leaked };
        let expected = "leftovers/links (problem): A place is taken.\n  try: Repair.\n  repair: removed bv0-9";
        assert_eq!(told(&leaked).as_deref(), Some(expected));
    }
}
