//! A terminal stays COMMAND's: a shell with job control starts `run`, and somebody types.

use crate::place::{BINARY, Place, text};

/// Types into a shell on a terminal of its own and waits for what must be shown. `argv`: the command line that starts `run`.
const TYPES: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios
COMMAND = '''
import os, signal, sys
def say(*words):
    # In one go, as handlers speak in the middle of others' words.
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())
def size(*_):
    say("SIZE", os.get_terminal_size(0).columns)
signal.signal(signal.SIGWINCH, size)
count = 0
def interrupted(*_):
    global count
    count += 1
    say("INT", count)
signal.signal(signal.SIGINT, interrupted)
say("TTY", os.isatty(0), os.isatty(1), os.isatty(2), os.tcgetpgrp(0) == os.getpgrp())
size()
for line in sys.stdin:
    say("READ", line.strip())
say("END")
sys.exit(5)
'''
with open(sys.argv[1], "w") as script:
    script.write(COMMAND)
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
seen = ""
def expect(what):
    global seen
    while what not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        if not ready:
            sys.exit(f"never shown: {what}\n{seen}")
        seen += os.read(terminal, 4096).decode(errors="replace")
    seen = seen.split(what, 1)[1]
def typed(keys):
    os.write(terminal, keys.encode())
def resize(columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
resize(100)
typed("PS1='ready''> '\n")
expect("ready> ")
typed(" ".join(sys.argv[2:]) + " python3 " + sys.argv[1] + "\n")
expect("TTY True True True True")
expect("SIZE 100")
typed("one\n")
expect("READ one")
resize(81)
expect("SIZE 81")
for count in 1, 2:
    typed("\x03")
    expect(f"INT {count}")
for turn in range(2):
    typed("\x1a")
    expect("Stopped")
    expect("ready> ")
    typed("fg\n")
    expect("python3")
    typed(f"again{turn}\n")
    expect(f"READ again{turn}")
typed("\x03")
expect("INT 3")
typed("\x04")
expect("END")
expect("ready> ")
typed("echo code=$?.\n")
expect("code=5.")
typed("exit\n")
os.close(terminal)
os.waitpid(pid, 0)
print("well")
"#;

/// Starts a command line in the background of a shell whose terminal stops what writes from there.
const STOPS: &str = r#"
import os, pty, select, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
def expect(what):
    seen = ""
    while what not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        if not ready:
            sys.exit(f"never shown: {what}\n{seen}")
        seen += os.read(terminal, 4096).decode(errors="replace")
os.write(terminal, b"PS1='ready''> '\n")
expect("ready> ")
words = " ".join(sys.argv[1:])
os.write(terminal, f"stty tostop; {words} sh -c 'exit 5' & wait $!; echo code=$?.\n".encode())
expect("code=5.")
os.write(terminal, b"exit\n")
os.close(terminal)
os.waitpid(pid, 0)
print("well")
"#;

#[test]
fn in_the_background_no_word_of_ours_stops_the_command() {
    let place = Place::new();
    let output = place
        .command("python3")
        .args(["-c", STOPS, BINARY, "run", "--sandbox", "--"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "well\n", "{}", text(&output.stderr));
}

#[test]
fn what_is_typed_and_resized_and_stopped_is_the_commands() {
    let place = Place::new();
    let script = place.file("command.py");
    for prefix in [&["env"][..], &[BINARY, "run", "-q", "--sandbox", "--"]] {
        let output = place
            .command("python3")
            .args(["-c", TYPES, script.to_str().unwrap()])
            .args(prefix)
            .output()
            .unwrap();
        assert_eq!(
            text(&output.stdout),
            "well\n",
            "{prefix:?}: {}",
            text(&output.stderr)
        );
    }
}
