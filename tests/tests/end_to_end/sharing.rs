//! Who may reach an agent, and whom a client trusts, with users of their own. Needs real root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use jobcred_tests::{AzureMl, AzureMlOptions};

use crate::support::{Call, Process, World, binary};

/// The agent's user and group, and the group that a pod shares.
const AGENT: u32 = 61_500;
const SHARED: u32 = 61_600;
/// Users of other containers.
const ALLOWED: u32 = 61_501;
const OTHER: u32 = 61_502;

/// A cluster's world in which every user can run `jobcred` and the agent's user owns a directory.
struct Pod {
    aml: AzureMl,
    world: World,
    program: PathBuf,
}

impl Pod {
    fn new() -> Self {
        let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
        let world = World::new()
            .with_environment(aml.environment())
            .with_secrets(aml.secrets());
        let program = world.path().join("jobcred");
        // The build's own directory may be closed to other users.
        let built = binary("jobcred");
        if fs::hard_link(&built, &program).is_err() {
            fs::copy(&built, &program).unwrap();
        }
        let own = world.path().join("volume");
        fs::create_dir(&own).unwrap();
        chown(&own, Some(AGENT), Some(AGENT))
            .expect("this test needs real root: it becomes other users");
        let world = world.with_environment([(
            "JOBCRED_SOCKET",
            own.join("own").join("agent.sock").to_str().unwrap(),
        )]);
        Self {
            aml,
            world,
            program,
        }
    }

    fn socket(&self) -> PathBuf {
        self.world
            .path()
            .join("volume")
            .join("own")
            .join("agent.sock")
    }

    /// `jobcred` as a user who is in these groups.
    fn as_user(&self, uid: u32, groups: &[u32], arguments: &[&str]) -> Call<'_> {
        let id = uid.to_string();
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        let mut all = vec!["--reuid", &id, "--regid", &id];
        let list = groups.join(",");
        if groups.is_empty() {
            all.push("--clear-groups");
        } else {
            all.extend(["--groups", &list]);
        }
        all.push(self.program.to_str().unwrap());
        all.extend(arguments);
        let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"]
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .expect("setpriv (util-linux) is installed");
        self.world.call(&setpriv, &all)
    }

    fn agent(&self, call: Call<'_>) -> Process {
        let process = call.start();
        process.wait_for_stderr("listening at");
        assert!(self.socket().exists());
        process
    }

    fn mode(path: &std::path::Path) -> (u32, u32, u32) {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    }
}

#[test]
fn a_private_agent_serves_its_own_user_and_root() {
    let pod = Pod::new();
    let agent = pod.agent(pod.as_user(AGENT, &[], &["agent"]));
    // Nobody but root looks into it, as the kernel has it: not even its own user, and no core file is written.
    for file in ["environ", "mem", "maps"] {
        let file = format!("/proc/{}/{file}", agent.pid());
        assert_eq!(fs::metadata(&file).unwrap().uid(), 0, "{file}");
    }
    let directory = pod.socket().parent().unwrap().to_owned();
    assert_eq!(Pod::mode(&directory), (0o700, AGENT, AGENT));
    assert_eq!(Pod::mode(&pod.socket()), (0o600, AGENT, AGENT));

    pod.as_user(AGENT, &[], &["token"]).run().succeeded();
    // Root is let in, but does not trust just anybody's agent.
    let root = pod.world.jobcred(&["token"]).run();
    assert_ne!(root.code, Some(0));
    assert!(root.stderr.contains(&AGENT.to_string()), "{}", root.stderr);
    let root = pod
        .world
        .jobcred(&["token"])
        .env("JOBCRED_AGENT_UID", AGENT.to_string());
    root.run().succeeded();

    for groups in [vec![], vec![AGENT], vec![SHARED]] {
        let other = pod
            .as_user(ALLOWED, &groups, &["token"])
            .env("JOBCRED_AGENT_UID", AGENT.to_string())
            .run();
        assert_eq!(other.code, Some(123), "{}", other.stderr);
    }
    assert_eq!(pod.aml.requests().len(), 1);
}

#[test]
fn an_agent_shared_with_a_group_serves_those_in_it_who_are_allowed() {
    let pod = Pod::new();
    let call = pod
        .as_user(AGENT, &[SHARED], &["agent"])
        .env("JOBCRED_SOCKET_GROUP", SHARED.to_string())
        .env("JOBCRED_ALLOW_UIDS", ALLOWED.to_string());
    let agent = pod.agent(call);
    let directory = pod.socket().parent().unwrap().to_owned();
    assert_eq!(Pod::mode(&directory), (0o750, AGENT, SHARED));
    assert_eq!(Pod::mode(&pod.socket()), (0o660, AGENT, SHARED));

    let ask = |uid: u32, groups: &[u32], trust: bool| {
        let call = pod.as_user(uid, groups, &["token"]);
        if trust {
            call.env("JOBCRED_AGENT_UID", AGENT.to_string()).run()
        } else {
            call.run()
        }
    };
    ask(ALLOWED, &[SHARED], true).succeeded();
    // The group alone is not enough, nor is the permission without the group.
    let denied = ask(OTHER, &[SHARED], true);
    assert_eq!(denied.code, Some(125), "{}", denied.stderr);
    assert!(denied.stderr.contains("may not ask"), "{}", denied.stderr);
    assert!(
        denied.stderr.contains(&OTHER.to_string()),
        "{}",
        denied.stderr
    );
    assert_eq!(ask(ALLOWED, &[], true).code, Some(123));
    // A client sends nothing to an agent of somebody it was not told to trust, and names them.
    let untrusting = ask(ALLOWED, &[SHARED], false);
    assert_ne!(untrusting.code, Some(0));
    assert!(
        untrusting.stderr.contains(&AGENT.to_string()),
        "{}",
        untrusting.stderr
    );
    // One request was answered; whoever does not trust the agent sends none.
    assert_eq!(agent.stderr().matches("path=\"/v1/token\"").count(), 1);
    assert_eq!(pod.aml.requests().len(), 1);
}

#[test]
fn without_a_list_of_users_the_group_is_the_list() {
    let pod = Pod::new();
    let call = pod
        .as_user(AGENT, &[SHARED], &["agent"])
        .env("JOBCRED_SOCKET_GROUP", SHARED.to_string());
    let _agent = pod.agent(call);
    for uid in [ALLOWED, OTHER] {
        let call = pod.as_user(uid, &[SHARED], &["token"]);
        call.env("JOBCRED_AGENT_UID", AGENT.to_string())
            .run()
            .succeeded();
    }
    let outside = pod.as_user(OTHER, &[], &["token"]);
    let outside = outside.env("JOBCRED_AGENT_UID", AGENT.to_string()).run();
    assert_eq!(outside.code, Some(123), "{}", outside.stderr);
}

#[test]
fn a_group_that_the_agent_is_not_in_is_an_error() {
    let pod = Pod::new();
    let call = pod.as_user(AGENT, &[], &["agent"]);
    let output = call.env("JOBCRED_SOCKET_GROUP", SHARED.to_string()).run();
    assert_eq!(output.code, Some(122), "{}", output.stderr);
    assert!(
        output.stderr.contains(&SHARED.to_string()),
        "{}",
        output.stderr
    );
}

#[test]
fn a_squatted_place_is_not_used() {
    let pod = Pod::new();
    let volume = pod.world.path().join("volume");
    let own = volume.join("own");
    let elsewhere = pod.world.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let refused = |why: &str| {
        let output = pod.as_user(AGENT, &[], &["agent"]).run();
        assert_eq!(output.code, Some(122), "{why}: {}", output.stderr);
        assert!(output.stderr.contains(why), "{why}: {}", output.stderr);
    };
    // A directory of somebody else's.
    fs::create_dir(&own).unwrap();
    chown(&own, Some(OTHER), Some(OTHER)).unwrap();
    refused("belongs to uid 61502");
    // One's own, but open to others.
    chown(&own, Some(AGENT), Some(AGENT)).unwrap();
    for mode in [0o777, 0o1777, 0o775] {
        fs::set_permissions(&own, fs::Permissions::from_mode(mode)).unwrap();
        refused("can be written by others");
    }
    // A link to somewhere else.
    fs::remove_dir(&own).unwrap();
    symlink(&elsewhere, &own).unwrap();
    refused("is not a directory");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // Something in the socket's place that is none: it is left alone.
    fs::remove_file(&own).unwrap();
    fs::create_dir(&own).unwrap();
    chown(&own, Some(AGENT), Some(AGENT)).unwrap();
    fs::write(pod.socket(), "precious").unwrap();
    refused("left alone");
    assert_eq!(fs::read(pod.socket()).unwrap(), b"precious");
    fs::remove_file(pod.socket()).unwrap();
    symlink("/etc/hostname", pod.socket()).unwrap();
    refused("left alone");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let aml = AzureMl::start(AzureMlOptions::default()).unwrap();
    let world = World::new()
        .with_environment(aml.environment())
        .with_secrets(aml.secrets());
    let directory = world.path().join("own");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    // Nobody answers there any more.
    drop(UnixListener::bind(world.socket()).unwrap());
    assert!(world.socket().exists());
    let agent = world.agent();
    assert_eq!(world.storage().status, 200);

    let second = world.jobcred(&["agent"]).run();
    assert_eq!(second.code, Some(122), "{}", second.stderr);
    assert!(
        second.stderr.contains("already answers"),
        "{}",
        second.stderr
    );
    agent.is_unharmed();

    // A `run` beside it goes aside, and says so; COMMAND gets its own agent.
    let program = binary("jobcred").display().to_string();
    let run = world
        .jobcred(&[
            "run",
            "--",
            "sh",
            "-c",
            &format!("echo $JOBCRED_SOCKET; {program} token"),
        ])
        .run()
        .succeeded();
    let place = run.stdout.lines().next().unwrap().to_owned();
    assert_ne!(place, world.socket().to_str().unwrap());
    assert!(run.stderr.contains("already answers"), "{}", run.stderr);
    assert!(!PathBuf::from(&place).exists(), "its socket goes with it");
    agent.is_unharmed();

    let inode = fs::symlink_metadata(world.socket()).unwrap().ino();
    // Somebody's socket that took the place meanwhile is not the agent's to remove.
    fs::remove_file(world.socket()).unwrap();
    let _other = UnixListener::bind(world.socket()).unwrap();
    agent.end().succeeded();
    assert!(world.socket().exists());
    assert_ne!(fs::symlink_metadata(world.socket()).unwrap().ino(), inode);
}
