//! The supervisor's one loop: signals, children, one timer.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::agent::{Agent, HEALTHY_AFTER};
use super::passing::take_in;
use super::signals::{Relation, Signals, send};
use super::timer::Timer;
use super::witness::Witnesses;
use super::{Ending, Entry, Plan, command, say};
use crate::front::socket::SocketFile;

/// How long the agent may take to end once COMMAND has, and again once it is killed: nobody waits for a token any more.
const AGENT_END_TIMEOUT: Duration = Duration::from_secs(1);

/// The changes of children that are looked at; without waiting for one.
const CHANGES: WaitOptions = WaitOptions::NOHANG
    .union(WaitOptions::UNTRACED)
    .union(WaitOptions::CONTINUED);

struct Supervisor {
    signals: Signals,
    timer: Timer,
    command: i32,
    agent: Option<Agent>,
    /// Who tells what was sent to the whole group; without them all is passed on.
    witnesses: Option<Witnesses>,
    /// The signal that COMMAND is stopped by, while it is.
    stopped_by: Option<i32>,
    /// The signal that this process was itself told to stop by, until it is told to continue.
    told_to_stop_by: Option<i32>,
    /// How COMMAND ended, once it has.
    ending: Option<Ending>,
}

/// Runs COMMAND to its end, with the agent beside it. `search_path` is `PATH`.
#[must_use]
pub fn run(plan: Plan, mut entry: Entry, search_path: Option<&str>) -> Ending {
    // What we hold (the listener, later the run's secret) is not for other processes of the same user. `exec` resets it, so
    // COMMAND is as dumpable as it would be.
    let _ = nix::sys::prctl::set_dumpable(false);
    // From here on a signal waits until COMMAND is there to get it.
    let watch = Signals::block_all().and_then(|signals| Ok((signals, Timer::new()?)));
    let (spawned, caught) = Signals::with_entry_mask(&entry, || command::spawn(&plan, search_path));
    let child = match spawned {
        Ok(child) => child,
        Err(failure) => {
            say(&failure.message);
            return Ending::Exited(failure.code);
        }
    };
    entry.close_descriptors();
    // The directory is COMMAND's too: it may want to leave it and unmount it. No path that is used from here on is relative.
    let _ = nix::unistd::chdir("/");
    let (signals, timer) = match watch {
        Ok(watch) => watch,
        Err(errno) => {
            say(&format!(
                "cannot watch for signals ({errno}); COMMAND runs without an agent"
            ));
            return wait_only(child);
        }
    };
    release_streams();
    let command = child.id().cast_signed();
    // Waiting goes through the kernel's own call below; dropping the handle leaves the process alone.
    drop(child);
    let (agent, socket): (Option<Agent>, Option<SocketFile>) = match plan.agent {
        Some(agent) => {
            let (agent, file) = Agent::new(agent);
            (Some(agent), Some(file))
        }
        None => (None, None),
    };
    let mut supervisor = Supervisor {
        signals,
        timer,
        command,
        agent,
        witnesses: None,
        stopped_by: None,
        told_to_stop_by: None,
        ending: None,
    };
    for number in caught
        .into_iter()
        .filter(|number| *number != Signal::SIGCHLD as i32)
    {
        supervisor.note_job_control(number);
        send(command, number);
    }
    supervisor.start_agent();
    supervisor.witnesses = Witnesses::start().ok();
    let ending = supervisor.watch_command();
    supervisor.end_agent();
    drop(socket);
    ending
}

/// COMMAND's streams are COMMAND's: a reader of its output must see the end when COMMAND closes it, not when we do.
fn release_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(null.as_fd());
        let _ = nix::unistd::dup2_stdout(null.as_fd());
    }
}

/// The last resort when the kernel gives us no descriptors to watch.
fn wait_only(mut child: std::process::Child) -> Ending {
    use std::os::unix::process::ExitStatusExt as _;
    match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, signal) => Ending::Killed(signal.unwrap_or(0)),
        },
        Err(_) => Ending::Exited(1),
    }
}

impl Supervisor {
    fn watch_command(&mut self) -> Ending {
        loop {
            // Before the first wait too: a COMMAND that ended while signals were not yet blocked again left no SIGCHLD behind.
            self.reap();
            if let Some(ending) = self.ending {
                return ending;
            }
            self.stop_along();
            if self.wait_for_event() {
                self.on_timer();
            }
            let passed = take_in(&self.signals, self.witnesses.as_mut(), self.command);
            for number in passed.received {
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

    /// Sleeps until a signal or the timer comes. Whether it was the timer.
    fn wait_for_event(&self) -> bool {
        let mut descriptors = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        // No timeout: both sources are descriptors, so an idle supervisor never wakes up.
        let _ = poll(&mut descriptors, PollTimeout::NONE);
        let fired = descriptors[1].any().unwrap_or(false);
        if fired {
            self.timer.clear();
        }
        fired
    }

    /// Takes in every child that has changed: COMMAND, the agent, and as PID 1 the orphans of the whole container.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(CHANGES) {
            let pid = pid.as_raw_nonzero().get();
            if pid == self.command {
                self.on_command(status);
            } else if status.stopped() || status.continued() {
                // Somebody stopped the agent, or an orphan: theirs to continue.
            } else if self.agent.as_ref().and_then(Agent::pid) == Some(pid) {
                self.on_agent_death(status);
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

    fn start_agent(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        match agent.start() {
            Ok(()) => self.timer.start(HEALTHY_AFTER),
            Err(error) => {
                let wait = agent.note_death();
                if agent.is_newsworthy() {
                    say(&format!("cannot start the agent: {error}; trying again"));
                }
                // Unlike a death, a failed start says that the machine lacks something, so even the first try waits.
                self.timer.start(wait.max(Duration::from_secs(1)));
            }
        }
    }

    fn on_timer(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if agent.pid().is_some() {
            agent.on_age();
        } else {
            self.start_agent();
        }
    }

    fn on_agent_death(&mut self, status: WaitStatus) {
        let Some(agent) = &mut self.agent else { return };
        let is_asked_for = agent.is_being_replaced();
        let wait = agent.note_death();
        if is_asked_for {
            self.timer.start(wait);
            return;
        }
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
        };
        if agent.is_hopeless_now() {
            say(&format!(
                "the agent {how}, as every time so far: token requests are refused until it stays up; it is still tried every half minute"
            ));
        } else if agent.is_newsworthy() {
            say(&format!(
                "the agent {how}; it is started again, requests wait"
            ));
        }
        self.timer.start(wait);
    }

    /// Ends the agent: asked first, then forced. COMMAND's status is known by now, and is not kept waiting long.
    fn end_agent(&mut self) {
        self.timer.stop();
        self.timer.clear();
        if let Some(agent) = &self.agent {
            agent.signal(Signal::SIGTERM);
            // A stopped process ends only when it goes on.
            agent.signal(Signal::SIGCONT);
        }
        self.timer.start(AGENT_END_TIMEOUT);
        let mut forced = false;
        while let Some(pid) = self.agent.as_ref().and_then(Agent::pid) {
            if self.wait_for_event() {
                if forced {
                    // It hangs in the kernel, on a dead network file system, say. COMMAND's status does not wait for that.
                    return;
                }
                forced = true;
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                self.timer.start(AGENT_END_TIMEOUT);
            }
            while self.signals.next().is_some() {}
            while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
                if ended.as_raw_nonzero().get() == pid && !status.stopped() {
                    self.agent = None;
                    break;
                }
            }
        }
    }
}
