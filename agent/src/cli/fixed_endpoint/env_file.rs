//! `endpoint.env`: shell lines that lead other containers to a sidecar's endpoint.
//!
//! It outlives the sidecar, which uses its secret again when it is started again: what other containers have sourced stays good. The
//! agent that serves the endpoint holds a lock on it, by which a second agent beside the socket is told from another program.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::super::env::quote;
use crate::config::{Config, Dialect};
use crate::front::dialect::Keys;
use crate::strategy::OWN_ENDPOINTS_VARIABLE;

/// The file's name, in the socket's directory.
pub(super) const NAME: &str = "endpoint.env";
/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 16 * 1024;
/// Appends loopback to `NO_PROXY` and `no_proxy` of the shell that sources the file: [`crate::supervisor::with_loopback`] in plain
/// sh. The function runs in a subshell, so that its variables are its own.
const EXEMPT_LOOPBACK: &str = r#"jobcred_exempt() (
    list=$1
    if [ "$list" != '*' ]; then
        case ${list%"${list##*[![:space:]]}"} in
        '' | *,) list=${list%"${list##*[!,[:space:]]}"} ;;
        esac
        for name in 127.0.0.1 localhost; do
            rest=$1, found=
            while [ -n "$rest" ]; do
                entry=${rest%%,*} rest=${rest#*,}
                entry=${entry#"${entry%%[![:space:]]*}"}
                entry=${entry%"${entry##*[![:space:]]}"}
                [ "$entry" != "$name" ] || found=yes
            done
            [ -n "$found" ] || list=${list:+$list,}$name
        done
    fi
    printf %s "$list"
)
NO_PROXY=$(jobcred_exempt "${NO_PROXY:-${no_proxy-}}")
no_proxy=$(jobcred_exempt "${no_proxy:-$NO_PROXY}")
export NO_PROXY no_proxy
unset -f jobcred_exempt
"#;

/// The file of one sidecar.
pub(super) struct EnvFile {
    path: PathBuf,
    dialects: Vec<Dialect>,
    /// Of those who may read it besides this user.
    group: Option<u32>,
    /// Held while this agent serves the endpoint.
    lock: Option<Flock<File>>,
}

/// What an endpoint answers to.
pub(super) struct FoundKeys {
    pub(super) keys: Keys,
    /// Whether they take the place of others that were in the file.
    pub(super) is_renewed: bool,
}

impl EnvFile {
    pub(super) fn new(directory: &Path, config: &Config) -> Self {
        let dialects = config.dialects.clone();
        Self {
            path: directory.join(NAME),
            dialects: dialects.unwrap_or_else(|| vec![Dialect::AppService]),
            group: config.socket_group,
            lock: None,
        }
    }

    /// Those in the file, if it still leads to `address`; else new ones, which are written to it.
    pub(super) fn keys(&mut self, address: SocketAddr) -> io::Result<FoundKeys> {
        let known = read(&self.path).ok();
        let kept = known
            .as_deref()
            .and_then(|text| self.read_keys(text, address));
        let is_renewed = kept.is_none() && known.is_some();
        let keys = if let Some(keys) = kept {
            keys
        } else {
            let keys = Keys::generate(&self.dialects)
                .ok_or_else(|| io::Error::other("the system has no randomness"))?;
            let text = render(&keys, &self.dialects, address);
            write(&self.path, &text, self.group)?;
            keys
        };
        // A lock of an earlier try would stand in the way of this one.
        self.lock = None;
        self.lock = lock(&self.path).ok();
        Ok(FoundKeys { keys, is_renewed })
    }

    /// Whether an agent serves the endpoint that the file leads to.
    pub(super) fn has_an_agent(&self) -> bool {
        lock(&self.path).is_err_and(|errno| errno == Errno::EWOULDBLOCK)
    }

    /// Removes it. A failure does not matter, because this agent makes new keys anyway.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// The keys that `text` has, if it is what would be written for `address`.
    fn read_keys(&self, text: &str, address: SocketAddr) -> Option<Keys> {
        let value = |name: &str| {
            let mut values = text.lines().filter_map(|line| {
                let value = line.strip_prefix("export ")?.strip_prefix(name)?;
                value.strip_prefix("='")?.strip_suffix('\'')
            });
            values.next().map(str::to_owned)
        };
        Keys::found(value).filter(|keys| render(keys, &self.dialects, address) == text)
    }
}

fn lock(path: &Path) -> Result<Flock<File>, Errno> {
    let file = open(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
}

fn render(keys: &Keys, dialects: &[Dialect], address: SocketAddr) -> String {
    let variables: Vec<_> = dialects
        .iter()
        .flat_map(|dialect| keys.variables(*dialect, address))
        .collect();
    let urls: Vec<&str> = variables
        .iter()
        .map(|(_, value)| value.as_str())
        .filter(|value| value.starts_with("http://"))
        .collect();
    let own = (OWN_ENDPOINTS_VARIABLE, urls.join(" "));
    let mut text = String::from("# Made by jobcred. Source it: . FILE\n");
    for (name, value) in variables.iter().chain([&own]) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "export {name}={}", quote(value));
    }
    if !urls.is_empty() {
        text.push_str(EXEMPT_LOOPBACK);
    }
    text
}

/// The content of a file of our own that no other user can have written.
fn read(path: &Path) -> io::Result<String> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    let is_ours = metadata.is_file() && metadata.uid() == geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o022 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes it whole or not at all, for this user and the group that the socket is shared with.
fn write(path: &Path, text: &str, group: Option<u32>) -> io::Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    if let Some(gid) = group {
        std::os::unix::fs::fchown(&file, None, Some(gid))?;
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    file.write_all(text.as_bytes())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;

    use super::{EXEMPT_LOOPBACK, EnvFile, Keys};
    use crate::config::{Config, Dialect};
    use crate::platform::Environment;
    use crate::supervisor::with_loopback;

    fn keys(config: &Config, address: SocketAddr, file: &Path) -> io::Result<Keys> {
        let mut file = EnvFile::new(file.parent().unwrap(), config);
        Ok(file.keys(address)?.keys)
    }

    fn config(dialects: &[Dialect]) -> Config {
        Config {
            dialects: Some(dialects.to_vec()),
            ..Config::default()
        }
    }

    #[test]
    fn a_file_that_still_leads_here_keeps_its_secret() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("endpoint.env");
        let address = "127.0.0.1:4567".parse().unwrap();
        let all = config(&Dialect::ALL);
        let first = keys(&all, address, &file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = keys(&all, address, &file).unwrap();
        assert_eq!(again.secret, first.secret);
        assert_eq!(again.prefix, first.prefix);
        // Another port, other dialects.
        let moved = keys(&all, "127.0.0.1:4568".parse().unwrap(), &file).unwrap();
        assert_ne!(moved.secret, first.secret);
        let fewer = keys(&Config::default(), address, &file).unwrap();
        assert_ne!(fewer.secret, moved.secret);
        assert!(fewer.prefix.is_none());
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("IDENTITY_HEADER") && !text.contains("MSI_SECRET"));
    }

    #[test]
    fn a_shared_file_is_readable_for_its_group_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("endpoint.env");
        let group = nix::unistd::getegid().as_raw();
        let shared = Config {
            socket_group: Some(group),
            ..Config::default()
        };
        keys(&shared, "127.0.0.1:1".parse().unwrap(), &file).unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o640, group));
    }

    #[test]
    fn a_file_that_another_user_could_have_written_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("endpoint.env");
        let address = "127.0.0.1:4567".parse().unwrap();
        let first = keys(&Config::default(), address, &file).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        let second = keys(&Config::default(), address, &file).unwrap();
        assert_ne!(second.secret, first.secret);
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        let third = keys(&Config::default(), address, &file).unwrap();
        assert_ne!(third.secret, second.secret);
        // The link was replaced, and not followed.
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        for text in [
            "",
            "export IDENTITY_HEADER=''\n",
            "export IDENTITY_HEADER='short'\n",
        ] {
            fs::write(&file, text).unwrap();
            let fresh = keys(&Config::default(), address, &file).unwrap();
            assert_eq!(fresh.secret.expose().len(), 64);
        }
    }

    /// `NO_PROXY` and `no_proxy` after a strict shell has run `script` with these values.
    fn sourced(script: &str, variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let output = std::process::Command::new("sh")
            .args(["-euc", &format!("{script}\nenv -0")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| {
            let mut entries = text.split('\0').filter_map(|entry| entry.split_once('='));
            let (_, value) = entries.find(|(found, _)| *found == name).unwrap();
            value.to_owned()
        };
        ["NO_PROXY", "no_proxy"]
            .map(|name| (name.to_owned(), value(name)))
            .to_vec()
    }

    #[test]
    fn c5_a_shell_that_sources_the_file_exempts_loopback_as_run_does() {
        let values = [
            "",
            "*",
            "* ",
            " *",
            "*,",
            "*,x",
            "x,*",
            "a",
            "a,b",
            "a b",
            "a b\t,\n ",
            ",",
            " , ",
            "127.0.0.1,localhost",
            "localhost, x,",
            "a , localhost ,\t127.0.0.1",
            "a 127.0.0.1 localhost",
            "127.0.0.1:80,.localhost,notlocalhost",
            "127.0.0.1,localhost,::1",
            "a'b\"c$(exit 9)`exit 9`\\,-n,%s",
        ];
        for upper in values {
            for lower in values {
                let variables = [("NO_PROXY", upper), ("no_proxy", lower)];
                let environment: Environment = variables
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect();
                assert_eq!(
                    sourced(EXEMPT_LOOPBACK, &variables),
                    with_loopback(&environment),
                    "{variables:?}"
                );
            }
        }
    }

    #[test]
    fn c5_the_file_has_the_exemption_only_if_it_has_an_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("endpoint.env");
        let address = "127.0.0.1:4567".parse().unwrap();
        keys(&Config::default(), address, &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let found = sourced(&text, &[("HTTP_PROXY", "http://proxy:3128")]);
        assert!(
            found
                .iter()
                .all(|(_, value)| value == "127.0.0.1,localhost"),
            "{found:?}"
        );
        // Sourced twice, as a profile may do.
        let twice = sourced(&format!("{text}{text}"), &[("NO_PROXY", "a")]);
        let [first, second] = &twice[..] else {
            panic!("{twice:?}")
        };
        assert_eq!(
            (&*first.1, &*second.1),
            ("a,127.0.0.1,localhost", "a,127.0.0.1,localhost")
        );
        keys(&config(&[]), address, &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("no_proxy"), "{text}");
    }

    #[test]
    fn s3_a_file_has_an_agent_for_as_long_as_its_keys_are_served() {
        let directory = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:4567".parse().unwrap();
        let new = || EnvFile::new(directory.path(), &Config::default());
        let second = new();
        assert!(!second.has_an_agent(), "there is no file");
        let mut serving = new();
        assert!(!serving.keys(address).unwrap().is_renewed);
        assert!(second.has_an_agent());
        serving.keys(address).unwrap();
        assert!(second.has_an_agent(), "a second try loses the lock");
        drop(serving);
        assert!(!second.has_an_agent());
        // With another port, containers that sourced the file must do so again.
        let moved = "127.0.0.1:4568".parse().unwrap();
        assert!(new().keys(moved).unwrap().is_renewed);
    }
}
