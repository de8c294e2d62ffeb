//! The processes of one node, each under its own `jobcred run`: one agent, one request upstream, one principal, whoever dies.

use std::fs;

use jobcred_tests::{AzureMl, AzureMlOptions, Principal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, World, binary, wait_until};

/// A COMMAND that says it is ready and then answers each line of the pipe `$2` with what jobcred (`$1`) says of a token.
const RANK: &str = r#"
    echo ready
    count=0
    while read -r line < "$2"; do
        [ "$line" = end ] && exit 7
        "$1" token --json > "$2.out" 2> "$2.err"
        code=$?
        count=$((count + 1))
        echo "answer $count code $code"
    done
"#;

struct Node {
    aml: AzureMl,
    world: World,
}

/// One rank of the node.
struct Rank {
    process: Process,
    pipe: std::path::PathBuf,
}

impl Node {
    fn new() -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let world = World::new()
            .with_environment(aml.environment())
            .with_secrets(aml.secrets());
        Self { aml, world }
    }

    /// Starts a rank, without waiting for it.
    fn start(&self, number: u32) -> Rank {
        let pipe = self.world.path().join(format!("rank{number}"));
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        let _ = fs::remove_file(&pipe);
        nix::unistd::mkfifo(&pipe, mode).unwrap();
        let jobcred = binary("jobcred").display().to_string();
        let argument = pipe.display().to_string();
        let process = self
            .world
            .jobcred(&["run", "--", "sh", "-c", RANK, "sh", &jobcred, &argument])
            .env("RANK", number.to_string())
            .env("LOCAL_RANK", number.to_string())
            .start();
        Rank { process, pipe }
    }

    fn ready(&self, number: u32) -> Rank {
        let rank = self.start(number);
        rank.process.wait_for_stdout("ready\n");
        rank
    }

    fn status(&self) -> serde_json::Value {
        self.world.ask("GET", "/v1/status").json()
    }

    fn agent(&self) -> i32 {
        i32::try_from(self.status()["pid"].as_i64().unwrap()).unwrap()
    }

    /// Waits until so many count on an agent, whichever it is.
    #[track_caller]
    fn wait_for_leases(&self, count: u64) {
        wait_until(&format!("{count} leases"), || {
            // Between two agents the call fails.
            let call = self.world.jobcred(&["status", "--json"]).run();
            call.code == Some(0) && call.json()["leases"] == count
        });
    }

    /// Kills the run whose child the agent is, and the agent, at one go, as the kernel does to a cgroup that is out of memory.
    fn kill_owner(&self, ranks: &mut Vec<Rank>) {
        let agent = self.agent();
        let at = ranks
            .iter()
            .position(|rank| parent(agent) == rank.process.pid())
            .unwrap();
        let rank = ranks.remove(at);
        kill(Pid::from_raw(agent), Signal::SIGSTOP).unwrap();
        rank.process.signal(Signal::SIGSTOP);
        for pid in [rank.process.pid(), agent] {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        // Its COMMAND is an orphan now.
        fs::write(&rank.pipe, "end\n").unwrap();
        rank.process.finish();
    }
}

impl Rank {
    /// Lets it ask for a token, for the `times`th time: what it got.
    fn token(&self, times: usize) -> Result<serde_json::Value, String> {
        fs::write(&self.pipe, "token\n").unwrap();
        self.process
            .wait_for_stdout(&format!("answer {times} code "));
        let read = |kind: &str| {
            fs::read_to_string(self.pipe.with_file_name(format!(
                "{}.{kind}",
                self.pipe.file_name().unwrap().to_str().unwrap()
            )))
            .unwrap()
        };
        serde_json::from_str(&read("out")).map_err(|_| read("err"))
    }

    fn end(self) -> String {
        fs::write(&self.pipe, "end\n").unwrap();
        let output = self.process.finish();
        assert_eq!(output.code, Some(7), "{}", output.stderr);
        output.stderr
    }
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn eight_ranks_that_start_at_once_cost_one_request() {
    let node = Node::new();
    let ranks: Vec<Rank> = (0..8).map(|number| node.start(number)).collect();
    for rank in &ranks {
        rank.process.wait_for_stdout("ready\n");
    }
    for rank in &ranks {
        fs::write(&rank.pipe, "token\n").unwrap();
    }
    for rank in &ranks {
        rank.process.wait_for_stdout("answer 1 code 0\n");
    }
    assert_eq!(node.aml.requests().len(), 1);
    node.wait_for_leases(8);
    let agent = node.agent();
    for rank in ranks {
        assert_eq!(node.agent(), agent);
        rank.end();
    }
    // The last one does not wait for the agent of another: a lease that ends is all it takes.
    wait_until("the socket is removed", || !node.world.socket().exists());
}

#[test]
fn whoever_goes_first_takes_no_token_from_the_others() {
    let node = Node::new();
    let mut ranks: Vec<Rank> = (0..3).map(|number| node.ready(number)).collect();
    node.wait_for_leases(3);
    assert!(ranks[0].token(1).is_ok());
    let last = ranks.pop().unwrap();
    // The one who started the agent is among these.
    for rank in ranks {
        rank.end();
    }
    assert!(last.token(1).is_ok());
    assert_eq!(node.aml.requests().len(), 1, "the token was kept");
    last.end();
}

#[test]
fn a_successor_serves_the_same_principal_or_nobody() {
    let node = Node::new();
    let mut ranks: Vec<Rank> = (0..3).map(|number| node.ready(number)).collect();
    node.wait_for_leases(3);
    let own = node.aml.options().identities.first().unwrap().clone();
    let got = ranks[1].token(1).unwrap();
    assert_eq!(got["claims"]["object_id"], own.object_id);
    // The same application, so that only what was seen before tells the difference.
    let other = Principal {
        object_id: Principal::application().object_id,
        ..own
    };
    // Known to the others by their leases alone.
    wait_until("the agent knows its principal", || {
        !node.status()["principal"].is_null()
    });
    node.kill_owner(&mut ranks);
    node.wait_for_leases(2);
    node.aml.mint().set_impostor(Some(other));
    let refused = node.world.storage();
    assert_eq!((refused.status, refused.code().as_str()), (502, "rejected"));
    assert!(
        refused.error("message").contains("object id"),
        "{}",
        refused.body
    );
    node.aml.mint().set_impostor(None);
    // And once more, by what was handed on.
    node.kill_owner(&mut ranks);
    node.wait_for_leases(1);
    assert_eq!(node.world.storage().status, 200);
    let said = ranks.remove(0).end();
    assert!(said.contains("goes on with one of its own"), "{said}");
    assert!(!node.world.socket().exists());
}
