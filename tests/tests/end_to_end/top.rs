//! `jobcred top` in a real terminal multiplexer, as a person would look at it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jobcred_tests::{AzureMl, AzureMlOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{World, binary};

/// How often the screen is looked at, a tenth of a second apart.
const LOOKS: u32 = 300;

/// A terminal of its own: a tmux server that nobody else uses, and that ends with the test.
struct Terminal<'a> {
    world: &'a World,
    socket: String,
}

impl<'a> Terminal<'a> {
    fn running(world: &'a World, command: &str) -> Self {
        let terminal = Self {
            world,
            socket: world.path().join("tmux").display().to_string(),
        };
        terminal.tmux(&["new-session", "-d", "-x", "110", "-y", "30", command]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-S", &self.socket, "-f", "/dev/null"])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.world.path())
            .env("JOBCRED_SOCKET", self.world.socket())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Looks until the screen shows all of `parts`.
    #[track_caller]
    fn wait_for(&self, parts: &[&str]) -> String {
        let mut screen = String::new();
        for _ in 0..LOOKS {
            screen = self.tmux(&["capture-pane", "-p"]);
            if parts.iter().all(|part| screen.contains(part)) {
                return screen;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("not all of {parts:?} are on the screen:\n{screen}");
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_shows_what_changes_and_gives_the_terminal_back() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    let agent = world.agent();
    let shell = format!(
        "{} top; echo \"ended with $?\"; exec sh",
        binary("jobcred").display()
    );
    let terminal = Terminal::running(&world, &shell);
    terminal.wait_for(&["compute-identity", "nobody has asked yet", "callers: 0"]);
    let rank = world
        .jobcred(&["token", "https://storage.azure.com"])
        .env("RANK", "3")
        .env("WORLD_SIZE", "8");
    rank.run().succeeded();
    let screen = terminal.wait_for(&["https://storage.azure.com", "callers: 1", "1 fetched"]);
    assert!(screen.contains("█"), "{screen}");
    assert!(screen.contains("object id"), "{screen}");
    // An agent that goes away is said to be gone, and the last picture stays.
    agent.end();
    terminal.wait_for(&["OLD: ", "https://storage.azure.com"]);
    terminal.tmux(&["send-keys", "q"]);
    terminal.wait_for(&["ended with 0"]);
    // The terminal echoes what is typed again, line by line.
    terminal.tmux(&["send-keys", "echo gi''ven back", "Enter"]);
    terminal.wait_for(&["given back"]);
}

#[test]
fn a_caller_that_lives_is_shown_with_its_rank() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    let agent = world.agent();
    // Any program that asks and then waits: here a Python of a few lines.
    let script = "import os, socket, time\n\
        s = socket.socket(socket.AF_UNIX); s.connect(os.environ['JOBCRED_SOCKET'])\n\
        s.sendall(b'GET /v1/token?resource=https://storage.azure.com HTTP/1.1\\r\\nHost: localhost\\r\\njobcred: 1\\r\\n\\r\\n')\n\
        s.recv(100); print('asked', flush=True); time.sleep(600)\n";
    let rank = world
        .call(Path::new("python3"), &["-c", script])
        .env("RANK", "3")
        .env("WORLD_SIZE", "8")
        .env("LOCAL_RANK", "1")
        .start();
    rank.wait_for_stdout("asked");
    let terminal = Terminal::running(&world, &format!("{} top", binary("jobcred").display()));
    terminal.wait_for(&["callers: 1", "python3", "3 of 8, local 1"]);
    drop(rank);
    terminal.wait_for(&["3 of 8, local 1", "ended"]);
    agent.end();
}

#[test]
fn a_terminal_that_goes_away_takes_top_with_it_even_where_that_is_ignored() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    let agent = world.agent();
    let pid_file = world.path().join("pid");
    let script = world.path().join("script");
    let text = format!(
        "trap '' HUP\necho $$ >{}\nexec {} top\n",
        pid_file.display(),
        binary("jobcred").display()
    );
    fs::write(&script, text).unwrap();
    let terminal = Terminal::running(&world, &format!("sh {}", script.display()));
    terminal.wait_for(&["compute-identity"]);
    let pid = fs::read_to_string(pid_file).unwrap();
    drop(terminal);
    for _ in 0..LOOKS {
        if !Path::new("/proc").join(pid.trim()).exists() {
            agent.end();
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    let _ = kill(pid, Signal::SIGKILL);
    panic!("top goes on without a terminal");
}

#[test]
fn without_a_terminal_or_an_agent_it_says_so() {
    let world = World::new();
    let output = world.jobcred(&["top"]).run();
    assert_eq!(output.code, Some(2));
    assert!(output.stderr.contains("status --json"), "{}", output.stderr);
    let terminal = Terminal::running(
        &world,
        &format!(
            "{} top; echo \"ended with $?\"; exec sh",
            binary("jobcred").display()
        ),
    );
    terminal.wait_for(&["no jobcred agent answers", "ended with 123"]);
}
