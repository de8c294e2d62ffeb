//! `jobcred agent`: in the foreground as a sidecar, or as the child of `run`.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use nix::sys::prctl::{set_dumpable, set_name, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getppid, setsid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::arguments::{AgentOptions, GlobalOptions};
use super::log::{SharedStage, Stage};
use super::place::SANDBOX_ASIDE;
use super::setup::{Setup, runtime};
use super::supervised::Beginning;
use super::tenure::Tenure;
use super::{announce, exit, fixed_endpoint, place};
use crate::agent::{Agent, Chosen};
use crate::front::leases::Leases;
use crate::front::serve::ConnectionLimits;
use crate::front::socket::{BindError, BoundSocket, SocketFile, bind_first};
use crate::journal::Event;
use crate::strategy::{StartError, Strategy, reason};
use crate::supervisor::{Entry, GIVEN, LEASE, outlive_file_limit, say};

pub(super) fn agent(options: &GlobalOptions, agent: &AgentOptions, mut entry: Entry) -> i32 {
    // Before any thread, and before the first word.
    outlive_file_limit(&entry);
    if agent.is_of_a_job() {
        // Pipes and locks that are COMMAND's would be kept alive.
        let given = GIVEN.iter().copied();
        let given: Vec<i32> = match agent.supervised {
            Some(_) => given.collect(),
            None => given.filter(|number| *number != LEASE).collect(),
        };
        entry.close_others(&given);
    }
    // Before the runtime: it takes the convention's variables out of the environment.
    let mut inherited = ListenFd::from_env();
    let inherited = Inherited::take(&mut inherited, agent);
    if agent.is_of_a_job() {
        detach();
    }
    if let (Some(supervisor), Ok(Inherited { lease: None, .. })) = (agent.supervised, &inherited)
        && !end_with(supervisor)
    {
        return exit::OK;
    }
    let mut beginning = match Beginning::read(options, agent) {
        Ok(beginning) => beginning,
        Err(report) => {
            say(&report);
            return exit::USAGE;
        }
    };
    let inherited = match inherited {
        Ok(inherited) => inherited,
        Err(error) => {
            say(&format!(
                "the socket passed by LISTEN_FDS cannot be used: {error}"
            ));
            return exit::NO_SOCKET;
        }
    };
    if !agent.is_of_a_job() {
        beginning.setup.say_ignored();
    }
    // From here on there are secrets. No core file of this process is written, and no other process of the same user reads its
    // memory, its environment or its descriptors.
    let _ = set_dumpable(false);
    let log = super::log::init(&beginning.setup.config, agent.is_of_a_job());
    let (journal, job_log) = super::log::journal(&beginning, agent);
    beginning.setup.outside.journal = journal;
    beginning.setup.outside.restarts = agent.restarts;
    allow_connections();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    // A sidecar and a program that has joined have no COMMAND.
    let stage = SharedStage::new(match agent.supervised {
        Some(_) => Stage::Running,
        None => Stage::Ended,
    });
    let code = runtime.block_on(serve(&mut beginning, inherited, agent, &stage));
    // A name that is being looked up, say, is not waited for.
    runtime.shutdown_background();
    if let Some(job_log) = job_log {
        job_log.end(stage.get());
    }
    log.flush();
    code
}

/// What the process that started this one has left open for it.
struct Inherited {
    listener: Option<UnixListener>,
    /// The supervisor's lease.
    lease: Option<UnixStream>,
}

impl Inherited {
    fn take(descriptors: &mut ListenFd, options: &AgentOptions) -> std::io::Result<Self> {
        let listener = descriptors.take_unix_listener(0)?;
        // Whoever else passes several sockets means something else by it.
        let lease = if options.supervised.is_some() {
            let (family, kind) = (nix::libc::AF_UNIX, nix::libc::SOCK_STREAM);
            descriptors.take_custom(1, family, kind, "the supervisor's lease")?
        } else {
            None
        };
        Ok(Self { listener, lease })
    }
}

/// Leaves the job's session, so that a signal to its process group does not reach the agent.
fn detach() {
    // The supervisor has every signal blocked, and masks are inherited.
    let _ = SigSet::all().thread_unblock();
    // Fails only for a group's leader, which a child never is.
    let _ = setsid();
    // Started by way of /proc/self/exe, it would be listed as "exe".
    let _ = set_name(c"jobcred");
}

/// Ends with a supervisor that holds no lease. False when that has ended already.
fn end_with(supervisor: i32) -> bool {
    let _ = set_pdeathsig(Signal::SIGTERM);
    // It may have died before the line above.
    getppid().as_raw() == supervisor
}

/// Raises this process's own limit of open files to what its connections need, as far as it may.
fn allow_connections() {
    // Besides connections: requests upstream, the runtime's own, the log.
    const WANTED: u64 = (crate::front::serve::MAX_CONNECTIONS
        + crate::front::dialect::MAX_CONNECTIONS) as u64
        + 512;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < WANTED
    {
        // Where it stays lower, accepting fails now and then and is tried again.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, WANTED.min(hard), hard);
    }
}

/// Serves to the end. `stage` is set then to what the supervisor, and others who counted on this agent, have said of their COMMANDs.
async fn serve(
    beginning: &mut Beginning,
    inherited: Inherited,
    options: &AgentOptions,
    stage: &SharedStage,
) -> i32 {
    let supervised = options.is_of_a_job();
    // Signals are caught before anything can be asked for, so that none ends the process half-way.
    let (stop, mut stopped) = watch::channel(false);
    let grace = if supervised {
        // The supervisor says so once COMMAND has ended: nobody is left to serve.
        Duration::ZERO
    } else {
        beginning.setup.config.grace
    };
    if let Err(error) = end_on_signals(stop.clone(), grace) {
        say(&format!("cannot watch for signals: {error}"));
        return exit::INTERNAL;
    }
    let leases = Leases::new();
    if let Err(error) = begin_tenure(&leases, inherited.lease, options, stop, stage) {
        say(&format!("cannot watch the supervisor: {error}"));
        return exit::INTERNAL;
    }
    let is_decided = beginning.is_decided();
    let Chosen {
        selection,
        transport,
        ..
    } = tokio::select! {
        chosen = beginning.choose() => chosen,
        // Nobody is left who would ask.
        () = ended(&mut stopped), if supervised => return exit::OK,
    };
    let setup = &beginning.setup;
    setup.outside.journal.note(&Event::Start {
        explanation: &selection.explanation,
        restarts: setup.outside.restarts,
    });
    if let Err(error) = &selection.outcome
        && !supervised
    {
        announce::refusal(error);
        return exit::NO_IDENTITY;
    }
    let (listener, file) = match inherited
        .listener
        .map_or_else(|| bind(setup), |given| Ok((given, None)))
    {
        Ok(listener) => listener,
        Err(error) => {
            say(&error.to_string());
            return exit::NO_SOCKET;
        }
    };
    let is_held = super::run::holds(&setup.config);
    if is_decided {
        // It was said who, or why nobody, when that was decided. Only another refusal is news.
        let is_news = |error: &StartError| {
            ![reason::NOTHING_FOUND, reason::AGENT_KEEPS_ENDING].contains(&error.code)
        };
        if selection.outcome.as_ref().is_err_and(is_news) {
            announce::start(&selection, true, is_held);
        }
    } else if let Some(quiet) = options.announces() {
        announce::start(&selection, quiet, is_held);
    }
    if let (Some(file), false) = (&file, supervised) {
        if is_aside(setup) {
            say(&format!(
                "{SANDBOX_ASIDE}: it has a path of its own, for clients that are given it (JOBCRED_SOCKET)"
            ));
        }
        say(&format!("listening at {}", file.path().display()));
    }
    let agent = Agent::assemble(
        &setup.config,
        &setup.outside,
        selection,
        transport.as_ref(),
        Arc::clone(&leases),
    );
    let api = agent.api();
    let _endpoint = (!supervised)
        .then(|| fixed_endpoint::open(setup, api, file.as_ref().map(SocketFile::path)));
    let pin = api.service.as_ref().ok().map(|service| &*service.pin);
    beginning.keep_principal(pin, &api.status(), &leases);
    let mut limits = ConnectionLimits::default();
    if supervised {
        // COMMAND has ended: nobody waits for an answer, and the job would wait for us.
        limits.drain = Duration::ZERO;
    }
    match agent.run(listener, limits, stopped).await {
        Ok(()) => exit::OK,
        Err(error) => {
            say(&format!("cannot listen: {error}"));
            exit::INTERNAL
        }
    }
}

/// Sees to it that an agent of a `run`, or of a program that has joined, ends with the last who counts on it.
fn begin_tenure(
    leases: &Arc<Leases>,
    supervisor: Option<UnixStream>,
    options: &AgentOptions,
    stop: watch::Sender<bool>,
    stage: &SharedStage,
) -> std::io::Result<()> {
    let place = options.place.clone();
    let tenure = Tenure::new(Arc::clone(leases), place, stop, stage.clone());
    match (supervisor, options.linger) {
        (Some(connection), _) => tenure.begin_with_supervisor(connection),
        (None, Some(seconds)) => {
            tenure.begin_alone(Duration::from_secs(seconds));
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

async fn ended(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|&stop| stop).await;
}

/// Whether a socket of our own is not where clients look unasked.
fn is_aside(setup: &Setup) -> bool {
    let config = &setup.config;
    let (environment, uid) = (&setup.outside.environment, setup.outside.own_uid);
    config.strategy == Some(Strategy::Sandbox) && !place::is_chosen(config, environment, uid)
}

/// A socket of our own.
fn bind(setup: &Setup) -> Result<(UnixListener, Option<SocketFile>), BindError> {
    let config = &setup.config;
    let (environment, uid) = (&setup.outside.environment, setup.outside.own_uid);
    let bound: BoundSocket = if is_aside(setup) {
        place::bind_alone(setup)?
    } else {
        let paths = place::candidates(config, environment, uid);
        bind_first(&paths, config.socket_group)?
    };
    let (listener, file) = bound.into_parts();
    Ok((listener, Some(file)))
}

/// The first SIGTERM or SIGINT starts the grace, the second one ends it.
fn end_on_signals(stop: watch::Sender<bool>, grace: Duration) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if !grace.is_zero() {
            tracing::info!(
                seconds = grace.as_secs(),
                "told to end; still answering for a grace"
            );
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(grace) => {}
            }
        }
        let _ = stop.send(true);
    });
    Ok(())
}
