use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{JobFile, Marks, Place, SharedStage, Stage};
use crate::config::JobLog;
use crate::platform::Environment;

fn marks(directory: &Path) -> Marks<'_> {
    Marks {
        directory: Some(directory),
        is_job: true,
        is_uploaded: false,
        host: "a-secret-host",
        uid: 7,
    }
}

fn azure_ml() -> Environment {
    Environment::from([
        ("AZUREML_RUN_ID", "jane_doe_run_1"),
        ("AZUREML_CR_NODE_RANK", "3"),
    ])
}

/// A job in a directory, and the agents that log it.
struct Job {
    directory: tempfile::TempDir,
    stage: SharedStage,
    is_uploaded: bool,
}

impl Job {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            stage: SharedStage::new(Stage::Running),
            is_uploaded: false,
        }
    }

    /// One whose `logs` the platform has put there.
    fn uploaded() -> Self {
        let job = Self {
            is_uploaded: true,
            ..Self::new()
        };
        fs::create_dir(job.logs()).unwrap();
        job
    }

    fn logs(&self) -> std::path::PathBuf {
        self.directory.path().join("logs")
    }

    fn file(
        &self,
        environment: &Environment,
        is_first: bool,
    ) -> JobFile<impl Fn(u64) -> Vec<u8> + use<>> {
        let marks = Marks {
            is_uploaded: self.is_uploaded,
            ..marks(self.directory.path())
        };
        let place = Place::of(&JobLog::Auto, environment, marks).unwrap();
        let gap = |lost| format!("gap {lost}\n").into_bytes();
        JobFile::new(place, is_first, self.stage.clone(), gap)
    }

    fn end(&self) {
        self.stage.set(Stage::Failed);
    }

    /// Names and contents of our files.
    fn found(&self) -> Vec<(String, String)> {
        found(&self.logs().join("jobcred"))
    }
}

fn found(directory: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap_or_default())
        })
        .filter(|(name, _)| name != ".gitignore")
        .collect();
    files.sort();
    files
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn nothing_is_made_before_the_end_and_then_logs_only_after_a_failure_in_azure_ml() {
    for (environment, stage, made) in [
        (Environment::default(), Stage::Failed, 0),
        (azure_ml(), Stage::Ended, 0),
        (azure_ml(), Stage::Failed, 1),
    ] {
        let job = Job::new();
        let mut file = job.file(&environment, true);
        file.write_all(b"one\n").unwrap();
        let _ = file.flush();
        assert_eq!(count(job.directory.path()), 0);
        file.write_all(b"two\n").unwrap();
        job.stage.set(stage);
        let _ = file.flush();
        assert_eq!(count(job.directory.path()), made);
        assert_eq!(job.found().len(), made);
        for (_, text) in job.found() {
            assert_eq!(text, "one\ntwo\n");
        }
    }
}

#[test]
fn logs_that_command_makes_is_left_to_it_until_the_end() {
    let job = Job::new();
    let mut file = job.file(&Environment::default(), true);
    file.write_all(b"one\n").unwrap();
    fs::create_dir(job.logs()).unwrap();
    let _ = file.flush();
    assert_eq!(count(&job.logs()), 0);
    job.end();
    file.flush().unwrap();
    assert_eq!(job.found()[0].1, "one\n");
    let ignored = fs::read_to_string(job.logs().join("jobcred/.gitignore")).unwrap();
    assert_eq!(ignored, "*\n");
}

#[test]
fn logs_that_is_uploaded_gets_lines_at_once_and_the_name_tells_no_secret() {
    let job = Job::uploaded();
    let mut file = job.file(&azure_ml(), true);
    for line in ["one\n", "two\n"] {
        file.write_all(line.as_bytes()).unwrap();
        file.flush().unwrap();
    }
    let [(name, text)] = job.found().try_into().unwrap();
    assert_eq!(text, "one\ntwo\n");
    assert!(name.starts_with("node3-"), "{name}");
    assert!(!name.contains("jane") && !name.contains("host"), "{name}");
    let path = job.logs().join("jobcred").join(name);
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
    // The agent that is started again goes on in the same file.
    let mut again = job.file(&azure_ml(), false);
    again.write_all(b"three\n").unwrap();
    again.flush().unwrap();
    let [(_, text)] = job.found().try_into().unwrap();
    assert_eq!(text, "one\ntwo\nthree\n");
}

#[test]
fn machines_and_users_have_files_of_their_own() {
    let directory = Path::new("/somewhere");
    let name = |marks| Place::of(&JobLog::Auto, &azure_ml(), marks).unwrap().name;
    let one = name(marks(directory));
    assert_eq!(one, name(marks(Path::new("/elsewhere"))));
    let host = Marks {
        host: "another",
        ..marks(directory)
    };
    let uid = Marks {
        uid: 8,
        ..marks(directory)
    };
    assert_ne!(one, name(host));
    assert_ne!(one, name(uid));
}

#[test]
fn what_command_removes_is_not_made_again_under_it() {
    let job = Job::uploaded();
    let mut file = job.file(&azure_ml(), true);
    file.write_all(b"one\n").unwrap();
    file.flush().unwrap();
    fs::remove_dir_all(job.logs()).unwrap();
    fs::create_dir(job.logs()).unwrap();
    file.write_all(b"two\n").unwrap();
    let mut again = job.file(&azure_ml(), false);
    again.write_all(b"three\n").unwrap();
    for file in [&mut file, &mut again] {
        file.flush().unwrap_err();
    }
    assert_eq!(count(&job.logs()), 0);
    job.end();
    for file in [&mut file, &mut again] {
        file.flush().unwrap();
    }
    assert_eq!(job.found()[0].1, "two\nthree\n");
}

#[test]
fn a_directory_that_is_gone_stays_gone() {
    let job = Job::new();
    let mut file = job.file(&azure_ml(), true);
    file.write_all(b"one\n").unwrap();
    let path = job.directory.path().to_owned();
    fs::remove_dir(&path).unwrap();
    job.end();
    file.flush().unwrap_err();
    assert!(!path.exists());
}

#[test]
fn what_somebody_put_in_its_place_is_left_alone() {
    let job = Job::uploaded();
    let precious = job.directory.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    let write = || {
        let mut file = job.file(&azure_ml(), true);
        file.write_all(b"x\n").unwrap();
        file.flush()
    };
    write().unwrap();
    let ours = job.logs().join("jobcred");
    let [(name, _)] = job.found().try_into().unwrap();
    for put in [
        (|from, to| symlink(from, to).unwrap()) as fn(&Path, &Path),
        |from, to| fs::hard_link(from, to).unwrap(),
        |_, to| {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
            nix::unistd::mkfifo(to, mode).unwrap();
        },
    ] {
        fs::remove_file(ours.join(&name)).unwrap();
        put(&precious, &ours.join(&name));
        write().unwrap_err();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    }
    fs::remove_dir_all(&ours).unwrap();
    symlink(job.directory.path(), &ours).unwrap();
    write().unwrap_err();
    assert!(!job.directory.path().join(name).exists());
}

#[test]
fn the_configuration_has_the_last_word() {
    let job = Job::new();
    let marks = marks(job.directory.path());
    assert!(Place::of(&JobLog::Off, &azure_ml(), marks).is_none());
    let chosen = job.directory.path().join("a/b");
    let setting = JobLog::In(chosen.clone());
    let place = Place::of(&setting, &Environment::default(), marks).unwrap();
    let mut file = JobFile::new(place, false, job.stage.clone(), |_| Vec::new());
    file.write_all(b"x\n").unwrap();
    file.flush().unwrap();
    assert_eq!(found(&chosen).len(), 1);
    let relative = Marks {
        directory: Some(Path::new("x")),
        ..marks
    };
    assert!(Place::of(&JobLog::Auto, &azure_ml(), relative).is_none());
}
