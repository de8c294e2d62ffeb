//! What outlives the agent: the configuration as it was read at the start of the job, and what was decided then.
//!
//! An agent that is started again must come to the same identity or to none. The supervisor keeps a file in memory and gives it
//! to each agent: the first line is what the supervisor knew, a second one what the first agent decided, a third one whose
//! tokens the job has had.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;

use jobcred_wire::PrincipalClaims;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::config::{Config, MAX_FILE_BYTES, fingerprint};
use crate::strategy::{ProbeResult, Selection, reason};

/// The longest record that is read, in bytes: a configuration in which every byte is escaped, and some more.
const MAX_BYTES: u64 = 6 * MAX_FILE_BYTES as u64 + 64 * 1024;
/// The strategy's name in a decision that nothing leads to an identity.
const NONE: &str = "none";

/// A configuration file as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// Its path, as reports call it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What the supervisor knew when it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The configuration file, where one was named.
    pub file: Option<ConfigText>,
    /// What the probe of the metadata service gave, where it was made already.
    pub probe: Option<ProbeResult>,
}

/// What the first agent decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    strategy: String,
    fingerprint: String,
    /// What the probe gave; `None` when none was needed.
    pub probe: Option<ProbeResult>,
}

/// The record, open for an agent.
#[derive(Debug)]
pub struct Record {
    file: File,
    /// Where a decision goes: after the last line that is complete.
    end: u64,
    /// What the supervisor knew.
    pub given: Given,
    /// Where a principal goes, once there is a decision.
    end_of_decision: u64,
    /// What was decided, when an earlier agent came to that.
    pub decision: Option<Decision>,
    /// Whose tokens an earlier agent saw.
    pub principal: Option<PrincipalClaims>,
}

impl Decision {
    /// What a selection means for agents to come. `None` for one that failed in a way that may heal: nobody was given another
    /// identity for it, as callers were refused.
    #[must_use]
    pub fn of(selection: &Selection, config: &Config, probe: Option<ProbeResult>) -> Option<Self> {
        let (strategy, fingerprint) = match &selection.outcome {
            Ok(choice) => (choice.strategy.name(), fingerprint(config, choice)),
            Err(error) if error.code == reason::NOTHING_FOUND => (NONE, String::new()),
            Err(_) => return None,
        };
        Some(Self {
            strategy: strategy.to_owned(),
            fingerprint,
            probe,
        })
    }

    /// Whether it was that nothing leads to an identity, so that callers were told to look elsewhere.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.strategy == NONE
    }

    /// The strategy's name; `none` when there was none.
    #[must_use]
    pub fn strategy(&self) -> &str {
        &self.strategy
    }

    /// Its hash, as in an agent's status; empty when it was that nothing leads to an identity.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether both lead to the same identity by the same rules.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.strategy == other.strategy && self.fingerprint == other.fingerprint
    }
}

impl Record {
    /// Makes the file, for the supervisor to keep.
    ///
    /// # Errors
    /// When the kernel gives no memory for it, or does not know such files.
    pub fn create(given: &Given) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(c"jobcred-run", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&line(given)?)?;
        Ok(file.into())
    }

    /// Opens what was inherited as descriptor `number`, which is closed: no child of the agent's shall have it.
    ///
    /// # Errors
    /// When it is not there, or not what [`Self::create`] wrote.
    pub fn open(number: i32) -> io::Result<Self> {
        let opened = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{number}"));
        let _ = nix::unistd::close(number);
        Self::read(opened?)
    }

    /// Takes over, in the supervisor, what an agent of another `run` has told. What is known already stays, where it told less.
    ///
    /// # Errors
    /// When the kernel has no memory for it, and [`io::ErrorKind::InvalidData`] when it was told otherwise before.
    pub fn keep(
        file: &OwnedFd,
        decision: Option<&Decision>,
        principal: Option<&PrincipalClaims>,
    ) -> io::Result<()> {
        let mut file = File::from(file.try_clone()?);
        file.seek(SeekFrom::Start(0))?;
        let mut record = Self::read(file)?;
        match (&record.decision, decision) {
            (Some(before), Some(now)) if !before.agrees_with(now) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            (None, Some(now)) => record.note(now.clone())?,
            _ => {}
        }
        match principal {
            Some(principal) if record.decision.is_some() => record.remember(principal),
            _ => Ok(()),
        }
    }

    /// What was decided, in the supervisor; `None` when nothing was written down.
    #[must_use]
    pub fn decision_of(file: &OwnedFd) -> Option<Decision> {
        let mut file = File::from(file.try_clone().ok()?);
        file.seek(SeekFrom::Start(0)).ok()?;
        Self::read(file).ok()?.decision
    }

    fn read(file: File) -> io::Result<Self> {
        let mut reader = BufReader::new((&file).take(MAX_BYTES));
        let end_of = |line: &[u8]| line.len() as u64;
        let mut next = || -> io::Result<Option<Vec<u8>>> {
            let mut text = Vec::new();
            reader.read_until(b'\n', &mut text)?;
            // A line without its end is one that an agent was killed over.
            Ok(text.ends_with(b"\n").then_some(text))
        };
        let first = next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let given = serde_json::from_slice(&first)?;
        let first_end = end_of(&first);
        let second = next()?;
        let end_of_decision = first_end + second.as_deref().map_or(0, end_of);
        let decision = second
            .map(|text| serde_json::from_slice(&text))
            .transpose()?;
        let principal = next()?
            .map(|text| serde_json::from_slice(&text))
            .transpose()?;
        Ok(Self {
            file,
            end: first_end,
            given,
            end_of_decision,
            decision,
            principal,
        })
    }

    /// Writes down what was decided, in place of nothing.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn note(&mut self, decision: Decision) -> io::Result<()> {
        let text = line(&decision)?;
        self.write_at(self.end, &text)?;
        self.end_of_decision = self.end + text.len() as u64;
        self.decision = Some(decision);
        Ok(())
    }

    /// Writes down whose tokens the job has, in place of what was known of that.
    ///
    /// # Errors
    /// When the kernel has no memory for it, or nothing was decided yet.
    pub fn remember(&mut self, principal: &PrincipalClaims) -> io::Result<()> {
        if self.decision.is_none() {
            return Err(io::Error::other("nothing was decided yet"));
        }
        self.write_at(self.end_of_decision, &line(principal)?)?;
        self.principal = Some(principal.clone());
        Ok(())
    }

    /// Where it fails nothing is left to read, so that the next agent refuses: it would decide anew, or take anybody's tokens.
    fn write_at(&mut self, start: u64, text: &[u8]) -> io::Result<()> {
        let mut write = || {
            self.file.set_len(start)?;
            self.file.seek(SeekFrom::Start(start))?;
            self.file.write_all(text)
        };
        let written = write();
        if written.is_err() {
            let _ = self.file.set_len(0);
        }
        written
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, SeekFrom, Write as _};

    use jobcred_wire::PrincipalClaims;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::{ConfigText, Decision, Given, Record, line};
    use crate::strategy::ProbeResult;

    fn given() -> Given {
        Given {
            file: Some(ConfigText {
                name: "/etc/a.toml".to_owned(),
                text: "strategy = \"sandbox\"\n".to_owned(),
            }),
            probe: Some(ProbeResult::Answered { status: 400, ms: 2 }),
        }
    }

    fn decision(fingerprint: &str) -> Decision {
        Decision {
            strategy: "kubernetes".to_owned(),
            fingerprint: fingerprint.to_owned(),
            probe: Some(ProbeResult::Answered { status: 400, ms: 2 }),
        }
    }

    fn again(file: &mut File) -> Record {
        file.seek(SeekFrom::Start(0)).unwrap();
        Record::read(file.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn the_next_agent_reads_what_the_first_one_noted() {
        let mut file = File::from(Record::create(&given()).unwrap());
        let mut first = again(&mut file);
        assert_eq!((&first.given, &first.decision), (&given(), &None));
        let decision = decision("ab");
        first.note(decision.clone()).unwrap();
        let second = again(&mut file);
        assert_eq!(second.given, given());
        assert_eq!(second.decision, Some(decision));
    }

    #[test]
    fn whose_tokens_there_were_is_known_to_the_next_agent() {
        let mut file = File::from(Record::create(&given()).unwrap());
        let claims = |id: &str| PrincipalClaims {
            object_id: Some(id.to_owned()),
            ..PrincipalClaims::default()
        };
        let mut record = again(&mut file);
        assert!(record.remember(&claims("early")).is_err());
        let decision = decision("ab");
        record.note(decision.clone()).unwrap();
        for id in ["a rather long one", "b"] {
            record.remember(&claims(id)).unwrap();
            let next = again(&mut file);
            assert_eq!(next.principal, Some(claims(id)));
            assert_eq!(next.decision.as_ref(), Some(&decision));
        }
        let mut second = again(&mut file);
        second.remember(&claims("c")).unwrap();
        assert_eq!(again(&mut file).principal, Some(claims("c")));
    }

    #[test]
    fn what_another_runs_agent_told_is_kept_and_never_turned_round() {
        let file = Record::create(&given()).unwrap();
        let claims = |id: &str| PrincipalClaims {
            object_id: Some(id.to_owned()),
            ..PrincipalClaims::default()
        };
        Record::keep(&file, None, Some(&claims("early"))).unwrap();
        assert_eq!(Record::decision_of(&file), None);
        Record::keep(&file, Some(&decision("a")), None).unwrap();
        assert_eq!(Record::decision_of(&file), Some(decision("a")));
        Record::keep(&file, Some(&decision("a")), Some(&claims("x"))).unwrap();
        // An agent that only refuses tells nothing of it.
        Record::keep(&file, None, None).unwrap();
        assert!(Record::keep(&file, Some(&decision("b")), Some(&claims("y"))).is_err());
        let record = again(&mut File::from(file));
        assert_eq!(record.given, given());
        assert_eq!(record.decision, Some(decision("a")));
        assert_eq!(record.principal, Some(claims("x")));
    }

    #[test]
    fn half_a_decision_is_none_and_is_written_over() {
        let mut file = File::from(Record::create(&given()).unwrap());
        file.write_all(b"{\"strategy\":\"kub").unwrap();
        let mut record = again(&mut file);
        assert_eq!(record.decision, None);
        let decision = Decision {
            strategy: "none".to_owned(),
            fingerprint: String::new(),
            probe: None,
        };
        record.note(decision.clone()).unwrap();
        assert_eq!(again(&mut file).decision, Some(decision));
    }

    #[test]
    fn what_cannot_be_written_down_leaves_nothing_to_go_by() {
        let (given, decision) = (given(), decision("a"));
        let claims = PrincipalClaims::default();
        for is_decided in [false, true] {
            let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
            let mut file = File::from(memfd_create(c"test", flags).unwrap());
            file.write_all(&line(&given).unwrap()).unwrap();
            let mut record = again(&mut file);
            if is_decided {
                record.note(decision.clone()).unwrap();
            }
            // As with a limit of the size of files.
            fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
            assert!(again(&mut file).given == given);
            let failed = if is_decided {
                record.remember(&claims)
            } else {
                record.note(decision.clone())
            };
            assert!(failed.is_err());
            file.seek(SeekFrom::Start(0)).unwrap();
            assert!(Record::read(file).is_err(), "decided: {is_decided}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in ["", "{}", "no json\n"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            assert!(Record::read(file).is_err(), "{text}");
        }
    }
}
