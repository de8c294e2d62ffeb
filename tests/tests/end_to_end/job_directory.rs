//! COMMAND's working directory is COMMAND's: what the job's log leaves there, when, and what COMMAND can do there meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use jobcred_tests::{AzureMl, AzureMlOptions};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Call, Process, World, binary, wait_until};

/// What the shell of these tests begins with: `token` asks for one, `logged` waits until the log has so many events of a kind.
const WORDS: &str = r#"
    token() { "$JOBCRED" token --json "$@" > /dev/null; }
    count() { cat logs/jobcred/*.jsonl | grep -c "\"event\":\"$1\""; }
    logged() { until [ "$(count "$1")" -eq "$2" ]; do sleep 0.05; done; }
"#;

/// What the shell around it ends with.
const RUN: &str = "exec \"$JOBCRED\" run -- sh -ec \"$0\"";

/// An Azure ML job, and the directory its COMMANDs run in.
struct Job {
    _aml: AzureMl,
    world: World,
}

impl Job {
    fn new() -> Self {
        let job = Self::elsewhere();
        Self {
            world: job
                .world
                .with_environment([("AZUREML_RUN_ID", "jane_run_1")]),
            ..job
        }
    }

    /// One that is none of Azure ML's.
    fn elsewhere() -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let world = World::new()
            .with_environment(aml.environment())
            .with_secrets(aml.secrets());
        fs::create_dir(world.work()).unwrap();
        Self { _aml: aml, world }
    }

    /// One whose platform has made `logs`.
    fn uploaded() -> Self {
        let job = Self::new();
        fs::create_dir(job.world.work().join("logs")).unwrap();
        job
    }

    /// `jobcred run` of a script in the working directory.
    fn run(&self, script: &str) -> Call<'_> {
        self.call(&format!("cd \"$WORK\"; {RUN}"), script)
    }

    /// The same in a mount namespace of its own, where this has been done before.
    fn run_mounted(&self, before: &str, script: &str) -> Call<'_> {
        let before = format!("exec unshare --mount sh -ec '{before}; {RUN}' \"$0\"");
        self.call(&before, script)
    }

    /// A shell that does this, with a script as its `$0`.
    fn call(&self, outer: &str, script: &str) -> Call<'_> {
        let script = format!("{WORDS}{script}");
        self.world
            .call(Path::new("/bin/sh"), &["-ec", outer, &script])
            .env("JOBCRED", binary("jobcred"))
            .env("WORK", self.world.work())
            .env("JOBCRED_JOB_LOG", "auto")
    }

    /// What lies in the working directory.
    fn names(&self) -> Vec<String> {
        names(&self.world.work())
    }

    /// The kinds of the events in the log.
    fn events(&self) -> Vec<String> {
        let lines = self.world.job_log();
        let event = |line: &serde_json::Value| line["event"].as_str().unwrap().to_owned();
        lines.iter().map(event).collect()
    }

    #[track_caller]
    fn wait_for_two_leases(&self) {
        wait_until("two leases", || {
            self.world.ask("GET", "/v1/status").json()["leases"] == 2
        });
    }

    fn agent(&self) -> i32 {
        let status = self.world.ask("GET", "/v1/status").json();
        i32::try_from(status["pid"].as_i64().unwrap()).unwrap()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn wait_for_end(pid: i32) {
    wait_until(&format!("the end of process {pid}"), || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
            stat.rsplit_once(") ").unwrap().1.starts_with('Z')
        })
    });
}

/// A run that does the one, has its agent killed, and does the other.
fn run_and_kill_agent(job: &Job, before: &str, after: &str) {
    let go_on = job.world.path().join("go-on");
    let script = format!(
        "{before}; echo ready; until [ -e {} ]; do sleep 0.05; done; {after}",
        go_on.display()
    );
    let run = job.run(&script).start();
    run.wait_for_stdout("ready");
    let agent = job.agent();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    wait_for_end(agent);
    fs::write(go_on, "").unwrap();
    run.finish().succeeded();
}

const ALL: [&str; 4] = ["start", "principal", "token", "end"];

#[test]
fn a_command_makes_and_removes_its_own_logs() {
    for job in [Job::new(), Job::elsewhere()] {
        let script = "
            token
            mkdir logs
            echo mine > logs/train.log
            token https://vault.azure.net
            [ \"$(ls -A logs)\" = train.log ]
            rm logs/train.log
            rmdir logs
            mkdir logs
            token https://graph.microsoft.com
            [ -z \"$(ls -A logs)\" ]
            [ \"$(ls -A)\" = logs ]";
        job.run(script).run().succeeded();
        let kinds = ["start", "principal", "token", "token", "token", "end"];
        assert_eq!(job.events(), kinds);
    }
}

#[test]
fn a_directory_stays_as_it_is_until_the_command_has_ended() {
    let look = "token; [ -z \"$(ls -A)\" ]; exit 7";
    let job = Job::elsewhere();
    assert_eq!(job.run(look).run().code, Some(7));
    assert_eq!(job.names(), [""; 0]);
    let job = Job::new();
    // The next step of the job may want to make `logs`.
    job.run("token").run().succeeded();
    assert_eq!(job.names(), [""; 0]);
    assert_eq!(job.run(look).run().code, Some(7));
    assert_eq!(job.names(), ["logs"]);
    assert_eq!(job.events(), ALL);
    // Nobody's working tree looks changed by it.
    let work = job.world.work();
    let git = |arguments: &[&str]| {
        let git = job.world.call(Path::new("git"), &["-C"]).args(&[&work]);
        git.args(arguments).run().succeeded().stdout
    };
    git(&["init", "--quiet"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
}

#[test]
fn a_command_that_cannot_start_leaves_its_directory_as_it_is() {
    let job = Job::new();
    let outer = "cd \"$WORK\"; exec \"$JOBCRED\" run -- /not/there";
    let output = job.call(outer, "").run();
    assert_eq!(output.code, Some(127));
    assert_eq!(job.names(), [""; 0]);
}

#[test]
fn logs_that_the_platform_made_get_lines_at_once_and_a_killed_agents_stay() {
    let job = Job::uploaded();
    run_and_kill_agent(&job, "token; logged token 1", "token; logged token 2");
    let again = [
        "start",
        "principal",
        "token",
        "start",
        "principal",
        "token",
        "end",
    ];
    assert_eq!(job.events(), again);
    let lines = job.world.job_log();
    assert!(lines.iter().all(|line| line["agent"] == lines[0]["agent"]));
    assert_eq!(lines[3]["restarts"], 1);
    assert_eq!(names(&job.world.work().join("logs/jobcred")).len(), 2);
}

#[test]
fn what_the_platform_made_and_the_command_removes_is_not_made_again_under_it() {
    let job = Job::uploaded();
    let script = "
        token
        logged token 1
        rm -r logs
        mkdir logs
        token https://vault.azure.net
        [ -z \"$(ls -A logs)\" ]
        rmdir logs
        exit 7";
    assert_eq!(job.run(script).run().code, Some(7));
    assert_eq!(job.events(), ["token", "end"]);
}

#[test]
fn a_killed_agents_lines_are_lost_and_the_next_ones_are_not() {
    let job = Job::new();
    run_and_kill_agent(&job, "token", "token; [ -z \"$(ls -A)\" ]; mkdir logs");
    assert_eq!(job.events(), ALL);
    assert_eq!(job.world.job_log()[0]["restarts"], 1);
}

#[test]
fn nothing_is_made_under_a_command_whose_run_was_killed() {
    let job = Job::new();
    let run = job
        .run("token; echo ready $$; exec tail -f /dev/null")
        .start();
    let command = command_of(&run);
    let agent = job.agent();
    run.signal(Signal::SIGKILL);
    wait_for_end(agent);
    assert!(fs::exists(format!("/proc/{command}/cwd")).unwrap());
    assert_eq!(job.names(), [""; 0]);
    kill(Pid::from_raw(command), Signal::SIGKILL).unwrap();
}

/// The pid that COMMAND has said it has.
fn command_of(run: &Process) -> i32 {
    run.wait_for_stdout("\n");
    let said = run.stdout();
    said.trim().rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_command_unmounts_its_working_directory() {
    for (made, waits) in [(":", ":"), ("mkdir logs", "logged token 1")] {
        let job = Job::new();
        let before = format!("mount -t tmpfs none \"$WORK\"; cd \"$WORK\"; {made}");
        let script =
            format!("token; {waits}; cd /; umount \"$WORK\"; token; [ -z \"$(ls -A \"$WORK\")\" ]");
        job.run_mounted(&before, &script).run().succeeded();
        // Nor is anything made in what has come to light.
        assert_eq!(job.names(), [""; 0]);
    }
}

#[test]
fn two_agents_at_once_keep_one_whole_log() {
    let job = Job::uploaded();
    let run = |name: &str| {
        let socket = job.world.path().join(name).join("agent.sock");
        let script = "token; echo ready; logged token 2";
        job.run(script).env("JOBCRED_SOCKET", socket).start()
    };
    let runs = [run("one"), run("two")];
    for run in runs {
        run.finish().succeeded();
    }
    let lines = job.world.job_log();
    let mut agents: Vec<_> = lines
        .iter()
        .map(|line| line["agent"].as_str().unwrap())
        .collect();
    agents.sort_unstable();
    agents.dedup();
    assert_eq!(agents.len(), 2);
    for agent in agents {
        let own = lines.iter().filter(|line| line["agent"] == agent);
        let kinds: Vec<_> = own.map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(kinds, ALL);
    }
}

#[test]
fn runs_that_share_an_agent_leave_the_log_when_the_last_has_ended() {
    let job = Job::new();
    let go_on = job.world.path().join("go-on");
    let first = job.run("token; echo ready; read -r line < \"$PIPE\"");
    let pipe = job.world.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let first = first.env("PIPE", &pipe).start();
    first.wait_for_stdout("ready");
    let script = format!(
        "echo ready; until [ -e {} ]; do sleep 0.05; done; [ -z \"$(ls -A)\" ]; mkdir logs",
        go_on.display()
    );
    let second = job.run(&script).start();
    second.wait_for_stdout("ready");
    let agent = job.agent();
    job.wait_for_two_leases();
    fs::write(&pipe, "\n").unwrap();
    first.finish().succeeded();
    assert_eq!(job.names(), [""; 0]);
    fs::write(go_on, "").unwrap();
    second.finish().succeeded();
    wait_for_end(agent);
    assert_eq!(job.events(), ALL);
}

#[test]
fn whichever_of_those_that_share_an_agent_fails_the_log_is_left() {
    // In an order of their own each: the one that started the agent, and the one that shares it.
    for (codes, leaves) in [([0, 7], true), ([7, 0], true), ([0, 0], false)] {
        let job = Job::new();
        let go_on = |name: &str| job.world.path().join(name);
        let (one, other) = ((codes[0], go_on("one")), (codes[1], go_on("other")));
        let start = |(code, go_on): &(i32, PathBuf), first: &str| {
            let script = format!(
                "{first}; echo ready; until [ -e {} ]; do sleep 0.05; done; [ -z \"$(ls -A)\" ]; exit {code}",
                go_on.display()
            );
            let run = job.run(&script).start();
            run.wait_for_stdout("ready");
            run
        };
        let first = start(&one, "token");
        let second = start(&other, ":");
        let agent = job.agent();
        job.wait_for_two_leases();
        for (run, (code, go_on)) in [(first, one), (second, other)] {
            fs::write(go_on, "").unwrap();
            assert_eq!(run.finish().code, Some(code));
        }
        wait_for_end(agent);
        assert_eq!(!job.names().is_empty(), leaves, "{codes:?}");
        if leaves {
            assert_eq!(job.events(), ALL);
        }
    }
}

#[test]
fn what_else_is_in_logs_is_left_alone_and_a_log_that_is_off_leaves_nothing() {
    let job = Job::uploaded();
    let logs = job.world.work().join("logs");
    fs::write(logs.join("train.log"), "mine\n").unwrap();
    job.run("token")
        .env("JOBCRED_JOB_LOG", "off")
        .run()
        .succeeded();
    assert_eq!(names(&logs), ["train.log"]);
    job.run("token").run().succeeded();
    assert_eq!(names(&logs), ["jobcred", "train.log"]);
    let text = fs::read_to_string(logs.join("train.log")).unwrap();
    assert_eq!(text, "mine\n");
    assert_eq!(job.events(), ALL);
    let ours = names(&logs.join("jobcred"));
    assert_eq!(ours.len(), 2, "{ours:?}");
    assert_eq!(ours[0], ".gitignore");
}

#[test]
fn many_runs_one_after_the_other_leave_one_file() {
    const RUNS: usize = 50;
    let job = Job::new();
    for _ in 0..RUNS {
        job.run("token; mkdir -p logs").run().succeeded();
    }
    let events = job.events();
    let of = |kind| events.iter().filter(|event| *event == kind).count();
    assert_eq!((of("start"), of("token"), of("end")), (RUNS, RUNS, RUNS));
    assert_eq!(names(&job.world.work().join("logs/jobcred")).len(), 2);
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_nothing_and_one_that_takes_nothing_only_the_log() {
    let job = Job::new();
    let mount = |options: &str| format!("mount -t tmpfs -o {options} none \"$WORK\"; cd \"$WORK\"");
    // Two pages for the directories, as tmpfs counts them, and none is left for a line.
    let before = format!(
        "{}; mkdir logs; dd if=/dev/zero of=full bs=4k 2> /dev/null || :",
        mount("size=64k")
    );
    let script = "token
        if echo x > test; then exit 1; fi
        rm full
        token https://vault.azure.net
        logged token 2
        logged start 1
        cat logs/jobcred/*.jsonl
        exit 7";
    let output = job.run_mounted(&before, script).run();
    assert_eq!(output.code, Some(7), "{}", output.stderr);
    assert_eq!(output.stdout.lines().count(), 4, "{}", output.stdout);
    for line in output.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let output = job.run_mounted(&mount("ro"), "token; exit 7").run();
    assert_eq!(output.code, Some(7), "{}", output.stderr);
}

#[test]
fn a_log_that_hangs_keeps_nobody_waiting() {
    let job = Job::uploaded();
    job.run("token; logged token 1").run().succeeded();
    let ours = job.world.work().join("logs/jobcred");
    let name = names(&ours)
        .into_iter()
        .find(|name| name.starts_with("node"));
    let path = ours.join(name.unwrap());
    let before = fs::read(&path).unwrap();
    // Whoever writes waits in the kernel, without end.
    let lock = Flock::lock(fs::File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    let script = "token; for _ in 1 2 3; do token https://vault.azure.net; done; exit 7";
    assert_eq!(job.run(script).run().code, Some(7));
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(lock);
}
