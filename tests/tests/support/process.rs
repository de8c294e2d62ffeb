//! A process whose output is read to the end and searched.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::HUNG;
use super::scan::Watch;

/// How long the output of a process that was killed is waited for.
const LEFT_BEHIND: Duration = Duration::from_secs(5);

/// How often the arguments of a process in the middle of exec are looked at, a millisecond apart.
const EXEC_LOOKS: u32 = 10_000;

/// What a process wrote and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Fails unless it ended well.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "\n{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// A process under way. Dropping it ends it; either way its output is searched.
pub struct Process {
    child: Child,
    name: String,
    stdout: Stream,
    stderr: Stream,
    watch: Watch,
    /// Whether standard output is where tokens may be.
    declared: bool,
    ended: bool,
}

impl Process {
    pub fn start(name: &str, mut command: Command, watch: &Watch, declared: bool) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {}: {error}", command.get_program().display()));
        let stdout = Stream::of(child.stdout.take().unwrap());
        let stderr = Stream::of(child.stderr.take().unwrap());
        let process = Self {
            child,
            name: name.to_owned(),
            stdout,
            stderr,
            watch: watch.clone(),
            declared,
            ended: false,
        };
        process.check_arguments(process.pid());
        process
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Fails when the arguments of a process, which anybody may read, hold a secret.
    pub fn check_arguments(&self, pid: i32) {
        for _ in 0..EXEC_LOOKS {
            // Gone already: then there is nothing to read.
            let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else {
                return;
            };
            if !arguments.is_empty() {
                self.watch.check("a command line", &arguments);
                return;
            }
            // The kernel lets a parent go on in the middle of exec, when the new arguments are not to be read yet. They are
            // also empty in a process that has ended and was not waited for.
            if has_ended(pid) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the arguments of process {pid} cannot be read");
    }

    /// Waits until standard error has this text.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        self.stderr.wait_for(&self.name, text);
    }

    /// Waits until standard output has this text.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        self.stdout.wait_for(&self.name, text);
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub fn signal(&self, signal: Signal) {
        // Not reaped before `finish`, so the pid is still its own.
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end, and searches what it wrote.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let in_time = self.stdout.wait_for_end() && self.stderr.wait_for_end();
        assert!(
            in_time,
            "{} has not ended:\n{}\n{}",
            self.name,
            self.stdout.text(),
            self.stderr.text()
        );
        let status = self.child.wait().unwrap();
        self.ended = true;
        self.search();
        output(&self, status)
    }

    fn search(&self) {
        self.watch
            .check(&format!("stderr of {}", self.name), &self.stderr.bytes());
        if !self.declared {
            self.watch
                .check(&format!("stdout of {}", self.name), &self.stdout.bytes());
        }
    }
}

/// Whether a process is only waiting to be waited for.
fn has_ended(pid: i32) -> bool {
    // The name in parentheses may hold anything, so the state is what comes after the last of them.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

fn output(process: &Process, status: ExitStatus) -> Output {
    Output {
        code: status.code(),
        signal: status.signal(),
        stdout: process.stdout.text(),
        stderr: process.stderr.text(),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its children may hold its streams open, and may be there to stay.
        for stream in [&self.stdout, &self.stderr] {
            stream.wait(LEFT_BEHIND, |read| read.ended);
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of {}:\n{}", self.name, self.stderr.text());
        }
        self.search();
    }
}

/// A pipe that a thread reads to its end.
struct Stream(Arc<(Mutex<Received>, Condvar)>);

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Received::default()), Condvar::new()));
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut read = writer.0.lock().unwrap_or_else(PoisonError::into_inner);
                read.bytes.extend_from_slice(&buffer[..count]);
                read.ended = count == 0;
                writer.1.notify_all();
                if read.ended {
                    return;
                }
            }
        });
        Self(shared)
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when it took so long that the test is hung.
    fn wait(&self, limit: Duration, wanted: impl Fn(&Received) -> bool) -> bool {
        let (read, _) = self
            .0
            .1
            .wait_timeout_while(self.lock(), limit, |read| !wanted(read))
            .unwrap_or_else(PoisonError::into_inner);
        wanted(&read)
    }

    fn wait_for_end(&self) -> bool {
        self.wait(HUNG, |read| read.ended)
    }

    #[track_caller]
    fn wait_for(&self, name: &str, text: &str) {
        let has = |read: &Received| String::from_utf8_lossy(&read.bytes).contains(text);
        self.wait(HUNG, |read| read.ended || has(read));
        let found = has(&self.lock());
        assert!(found, "{name} never wrote {text:?}:\n{}", self.text());
    }

    fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }
}
