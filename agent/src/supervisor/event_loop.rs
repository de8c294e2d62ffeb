//! The supervisor's one loop: signals, children, one timer.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;

use jobcred_wire::ErrorCode;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::command::Started;
use super::passing::take_in;
use super::post_mortem::{Signalled, post_mortem};
use super::prefetch::{NOT_WITHOUT, Prefetch, PrefetchPlan, Verdict};
use super::service::Service;
use super::signals::{Received, Relation, Signals, notice_children, send};
use super::timer::Timer;
use super::witness::Witnesses;
use super::{Ending, Entry, Plan, command, say};

/// The changes of children that are looked at; without waiting for one.
const CHANGES: WaitOptions = WaitOptions::NOHANG
    .union(WaitOptions::UNTRACED)
    .union(WaitOptions::CONTINUED);

/// In place of COMMAND's pid before it is started: no process has it.
const NOBODY: i32 = 0;

struct Supervisor {
    signals: Signals,
    command: i32,
    /// The agent, kept going or shared; `None` where there is no place for it.
    service: Option<Service>,
    /// Who tells what was sent to the whole group; without them all is passed on.
    witnesses: Option<Witnesses>,
    /// The signal that COMMAND is stopped by, while it is.
    stopped_by: Option<i32>,
    /// The signal that this process was itself told to stop by, until it is told to continue.
    told_to_stop_by: Option<i32>,
    /// How COMMAND ended, once it has.
    ending: Option<Ending>,
    /// The signals that came here.
    signalled: Signalled,
}

/// What became of the time before COMMAND.
enum Held {
    /// It starts, and gets these signals, which were blocked.
    Start(Vec<i32>),
    /// It does not.
    End(Ending),
}

/// Runs COMMAND to its end, with the agent beside it. `search_path` is `PATH`.
#[must_use]
pub fn run(mut plan: Plan, mut entry: Entry, search_path: Option<&str>) -> Ending {
    // What we hold (the listener, later the run's secret) is not for other processes of the same user. `exec` resets it, so
    // COMMAND is as dumpable as it would be.
    let _ = nix::sys::prctl::set_dumpable(false);
    // From here on a signal waits until COMMAND is there to get it.
    let watch = Signals::block_all().and_then(|signals| Ok((signals, Timer::new()?)));
    notice_children(&entry);
    let (signals, timer) = match watch {
        Ok(watch) => watch,
        Err(errno) => {
            let why = format!("cannot watch for signals: {}", errno.desc());
            // What we hold may be what COMMAND lacks.
            plan.agent = None;
            return in_place(&plan, &entry, search_path, &why, &[]);
        }
    };
    let service = plan.agent.take().map(|agent| Service::new(agent, timer));
    let mut supervisor = Supervisor::new(signals, service);
    let prefetch = plan.prefetch.take();
    // Before COMMAND only where COMMAND hangs on it.
    let is_first = prefetch.is_some() || plan.required.is_some();
    if let (Some(service), true) = (&mut supervisor.service, is_first) {
        match plan.required {
            Some(code) => {
                if let Err(error) = service.start_required() {
                    say(&format!("cannot start the agent: {error}"));
                    say(NOT_WITHOUT);
                    return Ending::Exited(code);
                }
            }
            None => service.start(),
        }
    }
    let mut early = Vec::new();
    if let Some(prefetch) = prefetch {
        match supervisor.hold(&entry, prefetch) {
            Held::Start(signals) => early = signals,
            Held::End(ending) => {
                supervisor.leave_service(Some(ending));
                return ending;
            }
        }
    }
    early.extend(supervisor.signals.early());
    let (spawned, caught) = Signals::with_entry_mask(&entry, || command::spawn(&plan, search_path));
    early.extend(caught);
    let Started { child, notice } = match spawned {
        Ok(started) => started,
        Err(failure) if failure.is_for_want_of_room => {
            early.extend(supervisor.leave_service(None));
            early.extend(supervisor.signals.early());
            drop(supervisor);
            return in_place(&plan, &entry, search_path, &failure.message, &early);
        }
        Err(failure) => {
            say(&failure.message);
            let ending = Ending::Exited(failure.code);
            if is_first {
                supervisor.leave_service(Some(ending));
            }
            return ending;
        }
    };
    if let Some(notice) = notice {
        say(notice);
    }
    entry.close_descriptors();
    // The directory is COMMAND's too: it may want to leave it and unmount it. No path that is used from here on is relative.
    let _ = nix::unistd::chdir("/");
    release_streams();
    let command = child.id().cast_signed();
    // Waiting goes through the kernel's own call below; dropping the handle leaves the process alone.
    drop(child);
    supervisor.command = command;
    for number in early {
        supervisor.signalled.note(number);
        supervisor.note_job_control(number);
        send(command, number);
    }
    if let (Some(service), false) = (&mut supervisor.service, is_first) {
        service.start();
    }
    supervisor.witnesses = Witnesses::start().ok();
    let ending = supervisor.watch_command();
    // The agent still answers, whether it is ours or shared.
    if let (Some(plan), Some(service)) = (&plan.post_mortem, &supervisor.service) {
        post_mortem(plan, ending, supervisor.signalled, service.restarts());
    }
    supervisor.leave_service(Some(ending));
    ending
}

/// Runs COMMAND in place of this process, and starts nothing else. `search_path` is `PATH`. Comes back only if that fails.
#[must_use]
pub fn run_alone(command: &[OsString], entry: &Entry, search_path: Option<&str>) -> Ending {
    let failure = command::become_it(command, entry, search_path, &[]);
    say(&failure.message);
    Ending::Exited(failure.code)
}

/// COMMAND's streams are COMMAND's: a reader of its output must see the end when COMMAND closes it, not when we do.
fn release_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(null.as_fd());
        let _ = nix::unistd::dup2_stdout(null.as_fd());
    }
}

/// What a signal that comes before COMMAND does: what it would do to a process that has set up nothing yet. Inside, the
/// ending that it makes.
fn undisturbed(received: Received, entry: &Entry) -> Option<Ending> {
    if received.is_own(nix::unistd::getpid().as_raw()) || entry.ignores(received.number) {
        return None;
    }
    match Signal::try_from(received.number) {
        Ok(Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU) => {
            let _ = kill(Pid::this(), Signal::SIGSTOP);
            None
        }
        Ok(Signal::SIGCHLD | Signal::SIGCONT | Signal::SIGURG | Signal::SIGWINCH) => None,
        _ => Some(Ending::Killed(received.number)),
    }
}

/// The last resort where there is no room for COMMAND, or for what watches over it, beside this process: it runs in its place.
/// Comes back where COMMAND may not, or cannot. `signals` are those that have come so far.
fn in_place(
    plan: &Plan,
    entry: &Entry,
    search_path: Option<&str>,
    why: &str,
    signals: &[i32],
) -> Ending {
    if let Some(code) = plan.required {
        say(why);
        say(NOT_WITHOUT);
        return Ending::Exited(code);
    }
    say(&format!(
        "{why}; COMMAND runs in place of jobcred, without an agent"
    ));
    let failure = command::become_it(&plan.command, entry, search_path, signals);
    say(&failure.message);
    Ending::Exited(failure.code)
}

impl Supervisor {
    /// One that has started nothing yet.
    fn new(signals: Signals, service: Option<Service>) -> Self {
        Self {
            signals,
            command: NOBODY,
            service,
            witnesses: None,
            stopped_by: None,
            told_to_stop_by: None,
            ending: None,
            signalled: Signalled::default(),
        }
    }

    /// Holds COMMAND back until its declared resources are there or it shall start without them. A signal does what it would do
    /// to a COMMAND that has only just begun.
    fn hold(&mut self, entry: &Entry, plan: PrefetchPlan) -> Held {
        let mut kept = Vec::new();
        let required = plan.required.then_some(plan.code_of);
        // Without a timer nothing could end the wait.
        let mut prefetch = match (Prefetch::begin(plan), required) {
            (Ok(prefetch), _) => prefetch,
            (Err(_), None) => return Held::Start(kept),
            (Err(error), Some(code_of)) => {
                say(&format!("cannot wait for the agent: {error}"));
                say(NOT_WITHOUT);
                return Held::End(Ending::Exited(code_of(ErrorCode::Internal)));
            }
        };
        loop {
            self.reap();
            while let Some(received) = self.signals.next() {
                if entry.blocks(received.number) {
                    kept.push(received.number);
                } else if let Some(ending) = undisturbed(received, entry) {
                    return Held::End(ending);
                }
            }
            let is_in_trouble = self.service.as_ref().is_some_and(Service::is_in_trouble);
            let verdict = if is_in_trouble {
                Some(prefetch.give_up("the agent cannot be started, or keeps ending"))
            } else {
                prefetch.go_on()
            };
            match verdict {
                Some(Verdict::Start) => return Held::Start(kept),
                Some(Verdict::Stop(code)) => return Held::End(Ending::Exited(code)),
                None => self.wait_for_event(Some(&prefetch)),
            }
        }
    }

    fn watch_command(&mut self) -> Ending {
        loop {
            // Before the first wait too: a COMMAND that ended while signals were not yet blocked again left no SIGCHLD behind.
            self.reap();
            if let Some(ending) = self.ending {
                return ending;
            }
            self.stop_along();
            self.wait_for_event(None);
            let passed = take_in(&self.signals, self.witnesses.as_mut(), self.command);
            for number in passed.received {
                self.signalled.note(number);
                self.note_job_control(number);
            }
            for number in passed.to_send {
                send(self.command, number);
            }
        }
    }

    /// Remembers what of the terminal's job control came to this process itself.
    fn note_job_control(&mut self, number: i32) {
        const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];
        if number == Signal::SIGCONT as i32 {
            self.told_to_stop_by = None;
        } else if STOPS.iter().any(|stop| *stop as i32 == number) {
            self.told_to_stop_by = Some(number);
        }
    }

    /// Sleeps until there is a signal or something about the agent, and sees to the latter; or until `prefetch` can go on.
    fn wait_for_event(&mut self, prefetch: Option<&Prefetch>) {
        let mut descriptors = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let (mut talk, mut offer) = (None, None);
        if let Some(service) = &self.service {
            let (timer, others) = service.descriptors();
            descriptors.push(PollFd::new(timer, PollFlags::POLLIN));
            let mut add = |one| {
                descriptors.push(PollFd::new(one, PollFlags::POLLIN));
                descriptors.len() - 1
            };
            [talk, offer] = others.map(|one| one.map(&mut add));
        }
        descriptors.extend(prefetch.into_iter().flat_map(Prefetch::descriptors));
        // No timeout: all sources are descriptors, so an idle supervisor never wakes up.
        let _ = poll(&mut descriptors, PollTimeout::NONE);
        let has_come = |place: usize| {
            let one: Option<&PollFd> = descriptors.get(place);
            one.is_some_and(|one| one.any().unwrap_or(false))
        };
        let (timer, talk, offer) = (
            has_come(1),
            talk.is_some_and(has_come),
            offer.is_some_and(has_come),
        );
        let Some(service) = &mut self.service else {
            return;
        };
        // First: what the others do may put a new one in its place.
        if offer {
            service.on_offer();
        }
        if timer {
            service.on_timer();
        }
        if talk {
            service.on_talk();
        }
    }

    /// Takes in every child that has changed: COMMAND, the agent, and as PID 1 the orphans of the whole container.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(CHANGES) {
            let pid = pid.as_raw_nonzero().get();
            if pid == self.command {
                self.on_command(status);
            } else if let Some(service) = &mut self.service {
                // What is not the agent either is an orphan.
                service.on_child(pid, status);
            }
        }
    }

    fn on_command(&mut self, status: WaitStatus) {
        if let Some(signal) = status.stopping_signal() {
            self.stopped_by = Some(signal);
        } else if status.continued() {
            // What this process was told stays: it may be about the next stop, which COMMAND has not made yet.
            self.stopped_by = None;
        } else if let Some(code) = status.exit_status() {
            self.ending = Some(Ending::Exited(code));
        } else if let Some(signal) = status.terminating_signal() {
            self.ending = Some(Ending::Killed(signal));
        }
    }

    /// `^Z`: COMMAND has stopped, so we stop too and the shell gets its prompt; its `fg` wakes the whole group.
    ///
    /// Only when this process was told to stop by the same signal. Whoever stops COMMAND alone (a debugger, `kill -TSTP`) will
    /// continue COMMAND alone, and a supervisor that sleeps on would never see it end.
    fn stop_along(&mut self) {
        if self.stopped_by.is_none() || self.stopped_by != self.told_to_stop_by {
            return;
        }
        self.told_to_stop_by = None;
        if Relation::to(self.command).same_group {
            let _ = kill(Pid::this(), Signal::SIGSTOP);
        }
    }

    /// Takes leave of the agent, and tells it of COMMAND's `ending`, if it has come to that or will not start. It is not waited
    /// for long. The signals that came meanwhile, for a COMMAND that is still to come.
    fn leave_service(&mut self, ending: Option<Ending>) -> Vec<i32> {
        let mut early = Vec::new();
        let Some(service) = &mut self.service else {
            return early;
        };
        service.leave(ending);
        while self
            .service
            .as_ref()
            .is_some_and(|service| !service.has_left())
        {
            self.wait_for_event(None);
            early.extend(self.signals.early());
            self.reap();
        }
        early
    }
}
