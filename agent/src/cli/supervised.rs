//! What an agent begins with, and how one under `run` keeps to what was decided at the start of the job.

use std::sync::{Arc, Mutex, PoisonError};

use super::arguments::{AgentOptions, GlobalOptions};
use super::setup::Setup;
use crate::agent::{Chosen, choose};
use crate::config::JobLog;
use jobcred_wire::Status;

use crate::front::leases::Leases;
use crate::principal::{Pin, Principal};
use crate::strategy::{ProbeResult, Selection, StartError, reason};
use crate::supervisor::{Decision, LOST, Record, Told, say};

/// What an agent begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) setup: Setup,
    record: Option<Record>,
    /// Why it can only refuse: an agent under `run` answers with that, as callers would otherwise wait without end.
    refusal: Option<StartError>,
}

impl Beginning {
    /// Reads the configuration: what the supervisor read where there is a record, else the file and the environment.
    ///
    /// # Errors
    /// The report of all mistakes, for an agent that nobody supervises.
    pub(super) fn read(options: &GlobalOptions, agent: &AgentOptions) -> Result<Self, String> {
        if agent.refuse.as_deref() == Some(LOST) {
            return Ok(Self::refusing(lost("it could not be kept in memory")));
        }
        if agent.refuse.is_some() {
            return Ok(Self::refusing(StartError {
                code: reason::AGENT_KEEPS_ENDING,
                message: "jobcred's agent ended several times in a row; it is tried again every half minute".to_owned(),
                hint: "See the job's log for how it ended: memory and open files are what it needs.".to_owned(),
            }));
        }
        let Some(number) = agent.record else {
            return match Setup::read(options) {
                Ok(setup) => Ok(Self::new(setup, None)),
                Err(report) if agent.is_of_a_job() => Ok(Self::refusing(lost(&report))),
                Err(report) => Err(report),
            };
        };
        let record = match Record::open(number) {
            Ok(record) => record,
            Err(error) => return Ok(Self::refusing(lost(&error.to_string()))),
        };
        Ok(match Setup::from_text(options, record.given.file.clone()) {
            Ok(setup) => Self::new(setup, Some(record)),
            Err(report) => Self::refusing(lost(&report)),
        })
    }

    fn new(setup: Setup, record: Option<Record>) -> Self {
        Self {
            setup,
            record,
            refusal: None,
        }
    }

    /// Holds `pin` to whose tokens earlier agents of this job saw, and writes down what it learns for those to come. All of it is
    /// also told over `leases`: the next agent may be another run's to start. `pin` is `None` where no tokens are served.
    pub(super) fn keep_principal(
        &mut self,
        pin: Option<&Pin>,
        status: &Status,
        leases: &Arc<Leases>,
    ) {
        let mut told = Told {
            pid: status.pid,
            version: status.version.clone(),
            strategy: status.strategy.clone(),
            fingerprint: status.fingerprint.clone(),
            decision: None,
            principal: None,
        };
        let record = self.record.take();
        if let Some(record) = &record {
            told.decision.clone_from(&record.decision);
            told.principal.clone_from(&record.principal);
        }
        say_over(leases, &told);
        let Some(pin) = pin else { return };
        if let Some(claims) = &told.principal {
            pin.restore(Principal::from_wire(claims));
        }
        let kept = Mutex::new((record, told));
        let leases = Arc::clone(leases);
        pin.tell(move |principal| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (record, told) = &mut *kept;
            told.principal = Some(principal.to_wire());
            say_over(&leases, told);
            if let Some(record) = record
                && let Err(error) = record.remember(&principal.to_wire())
            {
                tracing::warn!(%error, "an agent that is started again refuses: it could not know whose tokens there were");
            }
        });
    }

    fn refusing(error: StartError) -> Self {
        let mut setup = Setup::bare();
        // Whether one is wanted is not known here.
        setup.config.job_log = JobLog::Off;
        Self {
            setup,
            record: None,
            refusal: Some(error),
        }
    }

    /// Whether another agent of this job has decided before, or there is nothing to decide.
    pub(super) fn is_decided(&self) -> bool {
        self.refusal.is_some()
            || self
                .record
                .as_ref()
                .is_some_and(|record| record.decision.is_some())
    }

    /// Chooses, or comes to the same again as the agents before.
    pub(super) async fn choose(&mut self) -> Chosen {
        if let Some(error) = self.refusal.take() {
            return Chosen {
                selection: Selection::refused(error),
                transport: None,
                probe: None,
            };
        }
        let known = self.record.as_ref().and_then(known_probe);
        let mut chosen = choose(&self.setup.config, &self.setup.outside, known).await;
        let Some(record) = &mut self.record else {
            return chosen;
        };
        let now = Decision::of(&chosen.selection, &self.setup.config, chosen.probe.clone());
        match (&record.decision, now) {
            (None, Some(now)) => {
                if let Err(error) = record.note(now) {
                    say(&format!(
                        "cannot write down what was decided: {error}; should the agent have to be started again, it refuses"
                    ));
                }
            }
            (Some(before), Some(now)) if !before.agrees_with(&now) => {
                chosen.selection = Selection::refused(changed(before, &now));
            }
            // The same again; or an error of its own that refuses every request, too.
            (Some(_), _) | (None, None) => {}
        }
        chosen
    }
}

fn say_over(leases: &Leases, told: &Told) {
    // Plain data: cannot fail.
    if let Ok(line) = serde_json::to_vec(told) {
        leases.tell(line);
    }
}

/// What the probe gave earlier in this job. Where it was not needed then it is not made now: its answer could only change
/// what was decided.
fn known_probe(record: &Record) -> Option<ProbeResult> {
    match &record.decision {
        None => record.given.probe.clone(),
        Some(decision) => Some(decision.probe.clone().unwrap_or(ProbeResult::NotMade {
            why: "the job's start did not need it".to_owned(),
        })),
    }
}

fn lost(why: &str) -> StartError {
    StartError {
        code: reason::DECISION_LOST,
        message: format!("the agent cannot read what it was given at the job's start: {why}"),
        hint: "Start the job again.".to_owned(),
    }
}

fn changed(before: &Decision, now: &Decision) -> StartError {
    if before.is_none() {
        // Callers were told to look elsewhere and have done so: to serve them now would be a second identity.
        return StartError {
            code: reason::NOTHING_FOUND,
            message: format!(
                "nothing led to an identity when the job started, and that stays so, though now {} would apply",
                now.strategy()
            ),
            hint: "Start the job again to use it.".to_owned(),
        };
    }
    let what = if before.strategy() == now.strategy() {
        "other settings".to_owned()
    } else {
        now.strategy().to_owned()
    };
    StartError {
        code: reason::DECISION_CHANGED,
        message: format!(
            "the environment or the configuration changed while the job ran: it started with {}, and what is found now leads to {what}",
            before.strategy()
        ),
        hint: "Undo the change, or start the job again to go by it.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{IntoRawFd as _, OwnedFd};

    use super::Beginning;
    use crate::agent::Outside;
    use crate::cli::setup::Setup;
    use crate::config::Config;
    use crate::journal::Journal;
    use crate::platform::{Clock, Environment, Files};
    use crate::strategy::{ProbeResult, StartError, Strategy, reason};
    use crate::supervisor::{Given, Record};

    const CLIENT_ID: (&str, &str) = (
        "DEFAULT_IDENTITY_CLIENT_ID",
        "11111111-2222-3333-4444-555555555555",
    );
    const ENDPOINT: (&str, &str) = ("MSI_ENDPOINT", "http://127.0.0.1:9/");
    const SECRET: (&str, &str) = ("MSI_SECRET", "a secret of some length");

    /// A job's record, and the agents that get it one after the other.
    struct Job {
        record: OwnedFd,
        root: tempfile::TempDir,
    }

    impl Job {
        /// No agent of it asks anything: the probe was made when the job started.
        fn new(probe: ProbeResult) -> Self {
            let given = Given {
                file: None,
                probe: Some(probe),
            };
            Self {
                record: Record::create(&given).unwrap(),
                root: tempfile::tempdir().unwrap(),
            }
        }

        /// What the next agent comes to: a strategy, or the code of the error.
        fn next<const N: usize>(
            &self,
            variables: [(&str, &str); N],
        ) -> Result<Strategy, &'static str> {
            let number = self.record.try_clone().unwrap().into_raw_fd();
            let setup = Setup {
                config: Config::default(),
                outside: Outside {
                    environment: Environment::from(variables),
                    files: Files::under(self.root.path()),
                    clock: Clock::system(),
                    own_uid: 0,
                    restarts: 0,
                    journal: Journal::default(),
                },
                file: None,
            };
            let mut beginning = Beginning::new(setup, Some(Record::open(number).unwrap()));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let selection = runtime.block_on(beginning.choose()).selection;
            selection
                .outcome
                .map(|choice| choice.strategy)
                .map_err(|error| error.code)
        }
    }

    fn silent() -> ProbeResult {
        ProbeResult::NoAnswer {
            reason: "no route".to_owned(),
        }
    }

    #[test]
    fn an_agent_that_is_started_again_comes_to_the_same_or_to_nothing() {
        let job = Job::new(ProbeResult::Answered { status: 400, ms: 1 });
        for _ in 0..3 {
            assert_eq!(job.next([]), Ok(Strategy::SystemIdentity));
        }
        // The same strategy by another way, and another strategy.
        assert_eq!(job.next([ENDPOINT, SECRET]), Err(reason::DECISION_CHANGED));
        assert_eq!(
            job.next([CLIENT_ID, ENDPOINT, SECRET]),
            Err(reason::DECISION_CHANGED)
        );
        assert_eq!(job.next([]), Ok(Strategy::SystemIdentity));
    }

    #[test]
    fn only_what_was_found_at_the_start_keeps_a_command_from_starting() {
        let error = |code| StartError {
            code,
            message: String::new(),
            hint: String::new(),
        };
        for code in [
            reason::DECISION_CHANGED,
            reason::DECISION_LOST,
            reason::AGENT_KEEPS_ENDING,
            reason::NO_RANDOMNESS,
            // No issuer has refused anything where a setting keeps jobcred from it.
            reason::AUTHORITY_NOT_HTTPS,
            reason::ENDPOINT_INVALID,
            reason::FEDERATION_INVALID,
            reason::OBO_ENDPOINT_INVALID,
            reason::SECRET_NOT_SENDABLE,
        ] {
            assert!(error(code).is_own_fault(), "{code}");
        }
        for code in [reason::NOTHING_FOUND, reason::OBO_ENDPOINT_MISSING] {
            assert!(!error(code).is_own_fault(), "{code}");
        }
    }

    #[test]
    fn a_probe_that_was_not_needed_is_not_made_later() {
        let job = Job::new(silent());
        assert_eq!(job.next([ENDPOINT, SECRET]), Ok(Strategy::SystemIdentity));
        assert_eq!(job.next([]), Err(reason::DECISION_CHANGED));
    }

    #[test]
    fn callers_who_were_sent_elsewhere_are_not_called_back() {
        let job = Job::new(silent());
        assert_eq!(job.next([]), Err(reason::NOTHING_FOUND));
        assert_eq!(job.next([ENDPOINT, SECRET]), Err(reason::NOTHING_FOUND));
    }

    #[test]
    fn an_error_that_refused_every_request_may_heal() {
        let job = Job::new(silent());
        assert!(job.next([CLIENT_ID]).is_err());
        assert_eq!(
            job.next([CLIENT_ID, ENDPOINT, SECRET]),
            Ok(Strategy::ComputeIdentity)
        );
    }
}
