//! What a check says: for a person as it goes, for a program at its end.

use std::time::Duration;

use jobcred_wire::PrincipalClaims;
use serde_json::{Value, json};

use crate::cli::layout::{Look, Page};
use crate::cli::output::print;
use crate::storage::{Answer, Finding, Fix, Location, Weight};

/// Where a step's text begins, in columns.
const STEP_COLUMN: usize = 22;
/// Where the values of a step's details begin.
const DETAIL_COLUMN: usize = 34;

/// What the report is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For a person.
    Text { width: usize, color: bool },
    /// For a program.
    Json,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed,
    Skipped,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    name: &'static str,
    outcome: Outcome,
    text: String,
    took: Option<Duration>,
    details: Vec<(&'static str, String)>,
}

impl Step {
    pub(super) fn new(name: &'static str, outcome: Outcome, text: impl Into<String>) -> Self {
        Self {
            name,
            outcome,
            text: text.into(),
            took: None,
            details: Vec::new(),
        }
    }

    pub(super) fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// Adds what the service said of itself.
    pub(super) fn with_answer(mut self, answer: &Answer) -> Self {
        let of = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(message) = of(&answer.message) {
            self = self.with("says", message);
        }
        if let Some(detail) = of(&answer.detail) {
            self = self.with("detail", detail);
        }
        if let Some(id) = of(&answer.request_id) {
            self = self.with("request id", id);
        }
        self
    }
}

/// A report that grows.
#[derive(Debug)]
pub(super) struct Report {
    form: Form,
    head: Value,
    steps: Vec<Step>,
    findings: Vec<Finding>,
    claims: Option<PrincipalClaims>,
    proxy: Option<String>,
    /// What can be done, in words, where nothing failed.
    works: &'static str,
}

impl Report {
    pub(super) fn new(location: &Location, form: Form) -> Self {
        if let Form::Text { width, color } = form {
            let mut page = Page::new(width, color);
            page.line(&[
                (Look::Heading, "checking "),
                (Look::Strong, &location.to_string()),
            ]);
            page.blank();
            print(&page.finish());
        }
        Self {
            form,
            head: json!({
                "url": location.to_string(),
                "service": location.service().as_str(),
                "account": location.account(),
                "container": location.container(),
                "path": location.plain_path(),
            }),
            steps: Vec::new(),
            findings: Vec::new(),
            claims: None,
            proxy: None,
            works: "list",
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        if let Form::Text { width, color } = self.form {
            let mut page = Page::new(width, color);
            write_step(&mut page, &step);
            print(&page.finish());
        }
        self.steps.push(step);
    }

    /// Adds a finding; a later one of the same code says more than the one before.
    pub(super) fn finding(&mut self, finding: Finding) {
        self.findings.retain(|known| known.code != finding.code);
        self.findings.push(finding);
    }

    pub(super) fn claims(&mut self, claims: PrincipalClaims) {
        self.claims = Some(claims);
    }

    pub(super) fn proxy(&mut self, proxy: Option<String>) {
        self.proxy = proxy;
    }

    pub(super) fn works(&mut self, what: &'static str) {
        self.works = what;
    }

    /// Whether anything does not work.
    pub(super) fn has_failure(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.weight == Weight::Failure)
    }

    /// Prints what is left to say.
    pub(super) fn finish(self) {
        match self.form {
            Form::Text { width, color } => print(&self.conclusion(width, color)),
            Form::Json => print(&format!("{:#}\n", self.json())),
        }
    }

    fn conclusion(&self, width: usize, color: bool) -> String {
        let mut page = Page::new(width, color);
        // What does not work comes first.
        let order = [Weight::Failure, Weight::Warning];
        let findings = order.into_iter().flat_map(|weight| {
            self.findings
                .iter()
                .filter(move |finding| finding.weight == weight)
        });
        for finding in findings {
            page.blank();
            write_finding(&mut page, finding);
        }
        if !self.has_failure() {
            page.blank();
            let mark = page.mark("✓ ", "* ");
            let text = format!("it works: the identity can {} here", self.works);
            page.line(&[(Look::Good, mark), (Look::Good, &text)]);
        }
        page.finish()
    }

    fn json(&self) -> Value {
        let mut value = self.head.clone();
        let steps: Vec<Value> = self.steps.iter().map(step_json).collect();
        let findings: Vec<Value> = self.findings.iter().map(finding_json).collect();
        value["ok"] = json!(!self.has_failure());
        value["proxy"] = json!(self.proxy);
        value["principal"] = json!(self.claims);
        value["steps"] = json!(steps);
        value["findings"] = json!(findings);
        value
    }
}

fn write_step(page: &mut Page, step: &Step) {
    let look = match step.outcome {
        Outcome::Ok => Look::Good,
        Outcome::Failed => Look::Bad,
        Outcome::Skipped => Look::Faint,
    };
    let text = match step.took {
        // One word, so that it is not torn apart.
        Some(took) => format!("{} ({}ms)", step.text, took.as_millis()),
        None => step.text.clone(),
    };
    let lead = format!("  {:9}{:11}", step.outcome.as_str(), step.name);
    page.paragraph(STEP_COLUMN, (look, &lead), Look::Plain, &text);
    for (name, value) in &step.details {
        let lead = format!("{:STEP_COLUMN$}{name}", "");
        page.paragraph(DETAIL_COLUMN, (Look::Faint, &lead), Look::Plain, value);
    }
}

fn write_finding(page: &mut Page, finding: &Finding) {
    let (mark, look) = match finding.weight {
        Weight::Failure => (page.mark("✗ ", "x "), Look::Bad),
        Weight::Warning => ("! ", Look::Warning),
    };
    page.paragraph(2, (look, mark), look, &finding.title);
    page.paragraph(2, (Look::Plain, ""), Look::Plain, &finding.explanation);
    for Fix { text, command } in &finding.fixes {
        let arrow = page.mark("  → ", "  > ");
        page.paragraph(4, (Look::Faint, arrow), Look::Plain, text);
        // As it stands, to be copied: never wrapped.
        for line in command.iter().flat_map(|command| command.lines()) {
            page.line(&[(Look::Plain, "      "), (Look::Strong, line)]);
        }
    }
    page.line(&[(Look::Faint, "  code: "), (Look::Faint, finding.code)]);
}

fn step_json(step: &Step) -> Value {
    let details: serde_json::Map<String, Value> = step
        .details
        .iter()
        .map(|(name, value)| (name.replace(' ', "_"), json!(value)))
        .collect();
    json!({
        "step": step.name,
        "outcome": step.outcome.as_str(),
        "text": step.text,
        "milliseconds": step.took.and_then(|took| u64::try_from(took.as_millis()).ok()),
        "details": details,
    })
}

fn finding_json(finding: &Finding) -> Value {
    let fixes: Vec<Value> = finding
        .fixes
        .iter()
        .map(|fix| json!({"text": fix.text, "command": fix.command}))
        .collect();
    json!({
        "code": finding.code,
        "severity": match finding.weight {
            Weight::Failure => "error",
            Weight::Warning => "warning",
        },
        "title": finding.title,
        "explanation": finding.explanation,
        "fixes": fixes,
    })
}

#[cfg(test)]
mod tests {
    use super::{Form, Outcome, Report, Step};
    use crate::storage::{Finding, Hints, Location};

    fn report(form: Form) -> Report {
        let url = "https://acct.blob.core.windows.net/data";
        Report::new(&Location::parse(url, &Hints::default()).unwrap(), form)
    }

    #[test]
    fn a_command_is_never_wrapped_and_failures_come_first() {
        let mut report = report(Form::Json);
        report.finding(Finding::warning("clock_skew", "the clock", "It is wrong."));
        let long = format!("az {} \\\n  --last", "x".repeat(200));
        report.finding(
            Finding::failure("role_missing", "no role", "None.").fix_by("Give one:", long),
        );
        let text = report.conclusion(60, false);
        assert!(
            text.starts_with("\nx no role\n  None.\n  > Give one:\n      az xxx"),
            "{text}"
        );
        assert!(
            text.contains("xxx \\\n        --last\n  code: role_missing\n\n! the clock\n"),
            "{text}"
        );
        assert!(!text.contains("it works"), "{text}");
    }

    #[test]
    fn warnings_alone_are_no_failure() {
        let mut report = report(Form::Json);
        report.finding(Finding::warning("nothing_there", "empty", "Nothing."));
        assert!(!report.has_failure());
        assert!(
            report
                .conclusion(60, false)
                .ends_with("\n\n* it works: the identity can list here\n")
        );
    }

    #[test]
    fn a_later_finding_takes_the_place_of_one_with_its_code() {
        let mut report = report(Form::Json);
        report.step(Step::new("list", Outcome::Failed, "403").with("request id", "a"));
        report.finding(Finding::failure("role_missing", "reader", ""));
        report.finding(Finding::failure("role_missing", "contributor", ""));
        let json = report.json();
        assert_eq!(json["findings"].as_array().unwrap().len(), 1);
        assert_eq!(json["findings"][0]["title"], "contributor");
        assert_eq!(json["steps"][0]["details"]["request_id"], "a");
        assert_eq!(
            (&json["ok"], &json["service"]),
            (&false.into(), &"blob".into())
        );
    }
}
