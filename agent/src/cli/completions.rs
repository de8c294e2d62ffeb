//! `jobcred completions`, and the pages of the manual: what the definition of the arguments tells shells and readers.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use super::arguments::{Arguments, CompletionsOptions, ManOptions};
use super::{exit, output};
use crate::supervisor::say;

/// Prints what makes a shell complete the arguments. The exit code.
pub(super) fn completions(options: &CompletionsOptions) -> i32 {
    let mut script = Vec::new();
    clap_complete::generate(
        options.shell,
        &mut Arguments::command(),
        "jobcred",
        &mut script,
    );
    // A shell that takes half a script would complain of it; a reader that has gone away would not.
    output::print(&String::from_utf8_lossy(&script));
    exit::OK
}

/// Writes `jobcred.1`, and a page for each subcommand, into a directory. The exit code.
pub(super) fn man(options: &ManOptions) -> i32 {
    match write_pages(&options.directory) {
        Ok(()) => exit::OK,
        Err(error) => {
            say(&format!(
                "no manual in {}: {error}",
                options.directory.display()
            ));
            exit::INTERNAL
        }
    }
}

fn write_pages(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command(), directory)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::{CommandFactory as _, ValueEnum as _};
    use clap_complete::Shell;

    use super::super::arguments::Arguments;
    use super::write_pages;

    fn script(shell: Shell) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "jobcred", &mut script);
        String::from_utf8(script).unwrap()
    }

    #[test]
    fn every_shell_is_told_of_subcommands_and_options() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["explain", "completions", "sandbox"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn bash_completes_a_subcommand() {
        let program = format!(
            "{}\nCOMP_WORDS=(jobcred expl) COMP_CWORD=1\n_jobcred jobcred expl jobcred\necho \"${{COMPREPLY[@]}}\"",
            script(Shell::Bash)
        );
        let output = Command::new("bash")
            .args(["-c", &program])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "explain\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn the_manual_has_a_page_for_the_command_and_for_each_subcommand() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("man1");
        write_pages(&below).unwrap();
        let page = |name: &str| std::fs::read_to_string(below.join(name)).unwrap();
        assert!(page("jobcred.1").contains("jobcred\\-explain(1)"));
        assert!(page("jobcred-run.1").contains("\\-\\-required"));
        assert!(!below.join("jobcred-man.1").exists());
    }
}
