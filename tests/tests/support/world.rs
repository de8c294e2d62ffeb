//! One test's directory, environment and secrets, and the agents and clients in it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jobcred_tests::{AzureMl, AzureMlOptions, Secrets, require_isolation};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::binaries::binary;
use super::http::{Answer, Connection};
use super::process::{Output, Process};
use super::scan::Watch;

/// A place without a way out.
pub struct World {
    directory: TempDir,
    environment: Vec<(String, String)>,
    watch: Watch,
}

/// A job of a compute cluster, and Azure ML's endpoint there.
pub fn cluster() -> (AzureMl, World) {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    (aml, world)
}

impl World {
    /// An empty one.
    pub fn new() -> Self {
        require_isolation();
        let directory = tempfile::tempdir().unwrap();
        // Other users must be able to get to a shared socket in it.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self {
            directory,
            environment: Vec::new(),
            watch: Watch::default(),
        }
    }

    /// What the platform sets for every process of the job.
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        self.environment.extend(variables);
        self
    }

    /// Secrets that no output may show.
    pub fn with_secrets(self, secrets: &Secrets) -> Self {
        self.watch.add(secrets);
        self
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where every agent keeps its job's log, so that all of them are searched.
    pub fn job_logs(&self) -> PathBuf {
        self.path().join("job-logs")
    }

    /// A working directory for a COMMAND.
    pub fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    /// All lines of the jobs' logs so far.
    #[track_caller]
    pub fn job_log(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.read_job_logs()).unwrap();
        text.lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    fn read_job_logs(&self) -> Vec<u8> {
        let mut files: Vec<PathBuf> = [self.job_logs(), self.work().join("logs/jobcred")]
            .iter()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
            .collect();
        // The one that was put aside comes first.
        files.sort();
        let texts: Vec<_> = files
            .iter()
            .filter_map(|path| fs::read(path).ok())
            .collect();
        texts.concat()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("own").join("agent.sock")
    }

    /// A call of `jobcred`.
    pub fn jobcred<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Call<'_> {
        self.call(&binary("jobcred"), arguments)
    }

    /// A call of any program.
    pub fn call<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Call<'_> {
        let mut command = Command::new(program);
        command.args(arguments);
        Call {
            world: self,
            name: program.file_name().unwrap().to_string_lossy().into_owned(),
            command: self.prepared(command),
            declared: false,
        }
    }

    fn prepared(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.path())
            .env("JOBCRED_LOG", "debug")
            .env("JOBCRED_SOCKET", self.socket())
            .env("JOBCRED_JOB_LOG", self.job_logs())
            .envs(self.environment.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Starts an agent and waits until it listens.
    #[track_caller]
    pub fn agent(&self) -> Agent<'_> {
        self.agent_with::<&str>(&[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn agent_with<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Agent<'_> {
        let process = self.jobcred(&["agent"]).args(arguments).start();
        process.wait_for_stderr("listening at");
        Agent {
            world: self,
            process,
        }
    }

    /// A new connection to the agent at the usual place.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(&self.socket(), &self.watch).unwrap()
    }

    /// One request on a new connection.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str) -> Answer {
        self.connect().ask(method, target).unwrap()
    }

    /// A token request on a new connection.
    #[track_caller]
    pub fn get(&self, query: &str) -> Answer {
        self.ask("GET", &format!("/v1/token?{query}"))
    }

    /// A token for storage.
    #[track_caller]
    pub fn storage(&self) -> Answer {
        self.get("resource=https://storage.azure.com")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let logs = self.read_job_logs();
        self.watch.check("a job's log", &logs);
        // Nobody's name: tokens of users say theirs, and so do issuers in what they refuse.
        let named = logs.contains(&b'@');
        assert!(
            !named || std::thread::panicking(),
            "a job's log names somebody"
        );
    }
}

/// A call that is being put together.
pub struct Call<'a> {
    world: &'a World,
    name: String,
    command: Command,
    declared: bool,
}

impl Call<'_> {
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// How reports call it.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Its standard output is where tokens go, so it is not searched.
    pub fn declared(mut self) -> Self {
        self.declared = true;
        self
    }

    /// What it reads from its standard input.
    pub fn input(mut self, text: &str) -> Self {
        let path = self.world.path().join("input");
        fs::write(&path, text).unwrap();
        self.command.stdin(fs::File::open(path).unwrap());
        self
    }

    #[track_caller]
    pub fn start(self) -> Process {
        Process::start(&self.name, self.command, &self.world.watch, self.declared)
    }

    #[track_caller]
    pub fn run(self) -> Output {
        self.start().finish()
    }
}

/// A sidecar agent.
pub struct Agent<'a> {
    world: &'a World,
    process: Process,
}

impl Agent<'_> {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until its log has this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.process.wait_for_stderr(text);
    }

    /// Fails unless it still serves.
    #[track_caller]
    pub fn is_unharmed(&self) {
        let answer = self.world.ask("GET", "/healthz");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"status":"ok"}"#)
        );
    }

    /// Ends it in order, at once, and returns what it wrote.
    #[track_caller]
    pub fn end(self) -> Output {
        self.process.signal(Signal::SIGTERM);
        self.process.wait_for_stderr("told to end");
        self.process.signal(Signal::SIGTERM);
        self.process.finish()
    }
}
