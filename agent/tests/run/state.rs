//! What COMMAND inherits, compared with what it would have without jobcred, for several ways of starting.

use std::process::Command;

use crate::place::{BINARY, Place, text};

/// What a process can tell of what it was given. Left out is what differs from one start to the next.
const TELLS: &str = r#"
import os, resource, signal, sys
left_out = {"Pid", "Tgid", "PPid", "NStgid", "NSpid", "NSpgid", "NSsid", "SigQ", "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches", "Cpus_allowed", "Mems_allowed", "Threads"}
for line in open("/proc/self/status"):
    name = line.split(":")[0]
    if not name.startswith(("Vm", "Rss", "Hugetlb")) and name not in left_out:
        print(line.strip())
for name in sorted(dir(resource)):
    if name.startswith("RLIMIT_"):
        print(name, resource.getrlimit(getattr(resource, name)))
print("nice", os.getpriority(os.PRIO_PROCESS, 0), "scheduler", os.sched_getscheduler(0), sorted(os.sched_getaffinity(0)))
for name in ("oom_score_adj", "cgroup", "coredump_filter", "timerslack_ns", "attr/current"):
    try:
        print(name, open("/proc/self/" + name).read().strip())
    except OSError as error:
        print(name, error.errno)
print("directory", os.getcwd(), "umask", os.umask(0), "user", os.getresuid(), os.getresgid(), os.getgroups())
print("blocked", sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
for number in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        print("descriptor", number, os.readlink("/proc/self/fd/" + number).split(":")[0], os.get_inheritable(int(number)))
    except OSError:
        pass
# `run` stands where COMMAND would stand, so what is its own would be COMMAND's.
me, starter = {os.getpid()}, os.getppid()
if "ours" in sys.argv:
    me.add(starter)
    starter = int(open(f"/proc/{starter}/stat").read().rsplit(")", 1)[1].split()[1])
for what, number in ("session", os.getsid(0)), ("group", os.getpgid(0)):
    print(what, "own" if number in me else "the starter's" if number == starter else number)
"#;

fn told(start: &[&str], run: &[&str]) -> String {
    let place = Place::new();
    let whose = if run.is_empty() { "plain" } else { "ours" };
    let words = [start, run, &["python3", "-S", "-c", TELLS, whose]].concat();
    let mut command: Command = place.command(words[0]);
    let output = command.args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{start:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn the_command_inherits_what_it_would_inherit_without_us() {
    let odd_shell =
        "umask 027; cd /usr; ulimit -c 0; ulimit -n 321; exec 5</dev/null 9>/dev/null; exec \"$@\"";
    let mut starts: Vec<Vec<&str>> = vec![
        vec!["env"],
        vec!["sh", "-c", odd_shell, "sh"],
        vec!["setsid", "--wait"],
        vec!["nohup"],
        vec!["nice", "-n", "7"],
        vec![
            "env",
            "--ignore-signal=HUP,USR2",
            "--block-signal=USR1,TERM,CHLD",
        ],
        vec!["setpriv", "--no-new-privs", "--pdeathsig=clear"],
        vec![
            "prlimit",
            "--core=0:0",
            "--nproc=4000:5000",
            "--stack=9000000:",
            "--",
        ],
        vec!["prlimit", "--fsize=0:0", "--"],
        vec!["env", "--ignore-signal=XFSZ,TTOU"],
        vec!["taskset", "1"],
        vec!["choom", "-n", "500", "--"],
        vec!["timeout", "100"],
        vec!["timeout", "--foreground", "100"],
    ];
    if nix::unistd::geteuid().is_root() {
        starts.push(vec![
            "setpriv",
            "--bounding-set=-sys_admin,-net_raw",
            "--inh-caps=-all",
        ]);
        starts.push(vec![
            "setpriv",
            "--ambient-caps=+net_raw",
            "--inh-caps=+net_raw",
        ]);
    }
    for start in starts {
        let plain = told(&start, &[]);
        let ours = told(&start, &[BINARY, "run", "-q", "--sandbox", "--"]);
        assert!(plain.lines().count() > 40, "{plain}");
        let differs: Vec<_> = plain
            .lines()
            .zip(ours.lines())
            .filter(|(a, b)| a != b)
            .collect();
        assert_eq!(differs, [], "{start:?}");
        assert_eq!(plain.lines().count(), ours.lines().count(), "{start:?}");
    }
}
