//! A directory with the library installed in it, and the programs that are built from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use tempfile::TempDir;

/// Where one test has its library, its programs and its agent's socket.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// Installs the library that `make test` has built, as a person would.
    pub fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let build = build();
        expect_fresh(&build.join("libjobcred.so"));
        run(Command::new(root().join("install"))
            .arg(place.prefix())
            .arg(build));
        place
    }

    fn prefix(&self) -> PathBuf {
        self.dir.path().join("usr")
    }

    pub fn lib(&self) -> PathBuf {
        self.prefix().join("lib")
    }

    pub fn include(&self) -> PathBuf {
        self.prefix().join("include")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Compiles with the flags that pkg-config gives.
    pub fn compile(&self, name: &str, compiler: &str, source: &Path) -> PathBuf {
        self.build(name, compiler, source, &[])
    }

    /// The same with the library linked in.
    pub fn compile_static(&self, name: &str, source: &Path) -> PathBuf {
        fs::remove_file(self.lib().join("libjobcred.so")).unwrap();
        let program = self.build(name, "gcc -std=c99", source, &["--static"]);
        std::os::unix::fs::symlink("libjobcred.so.0", self.lib().join("libjobcred.so")).unwrap();
        let dynamic = run(Command::new("readelf").arg("--dynamic").arg(&program));
        assert!(!text(&dynamic).contains("libjobcred"));
        program
    }

    /// One of the programs beside this file.
    pub fn compile_test(&self, name: &str) -> PathBuf {
        let source = root().join(format!("tests/programs/{name}.c"));
        let compiler = "gcc -std=c11 -D_POSIX_C_SOURCE=200809L -pthread";
        self.build(name, compiler, &source, &[])
    }

    fn build(&self, name: &str, compiler: &str, source: &Path, how: &[&str]) -> PathBuf {
        let flags = run(Command::new("pkg-config")
            .args(["--cflags", "--libs", "jobcred"])
            .args(how)
            .env("PKG_CONFIG_PATH", self.lib().join("pkgconfig")));
        let program = self.dir.path().join(name);
        let mut words = compiler.split(' ');
        run(Command::new(words.next().unwrap())
            .args(words)
            .args(["-g", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(source)
            .args(text(&flags).split_whitespace()));
        program
    }

    /// Runs a program with an empty environment, but for where the library is.
    pub fn command(&self, program: &Path) -> Command {
        self.under(&[], program)
    }

    /// The same with other words before it.
    pub fn under(&self, prefix: &[&str], program: &Path) -> Command {
        let mut words = prefix
            .iter()
            .map(AsRef::as_ref)
            .chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        self.clean(&mut command);
        command
    }

    /// `jobcred run --sandbox --`, to which a command is to be added.
    pub fn sandbox(&self) -> Command {
        let mut command = Command::new(build().join("jobcred"));
        self.clean(&mut command);
        command.args(["run", "--sandbox", "--"]);
        command
    }

    fn clean(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("TMPDIR", self.dir.path())
            .env("LD_LIBRARY_PATH", self.lib());
    }
}

/// Runs a command to its end, which has to be a good one.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; see tests/setup"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a program wrote to standard output.
pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The example for users.
pub fn example() -> PathBuf {
    root().join("examples/token.c")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `target/<profile>`, from `target/<profile>/deps/test`.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    deps.parent().unwrap().to_owned()
}

/// Nothing builds a C library for a test, so the one that is there might be of yesterday.
fn expect_fresh(library: &Path) {
    let changed = |path: &Path| -> SystemTime {
        let found = fs::metadata(path).and_then(|facts| facts.modified());
        found.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; run `cargo build -p jobcred-capi` first, as `make test` does",
                path.display()
            )
        })
    };
    let built = changed(library);
    for crate_root in [root().to_owned(), root().join("..")] {
        for file in fs::read_dir(crate_root.join("src")).unwrap() {
            let file = file.unwrap().path();
            assert!(
                changed(&file) <= built,
                "{} is newer than the library: run `cargo build -p jobcred-capi`",
                file.display()
            );
        }
    }
}
