//! How COMMAND ended, and ending the same way.

use signal_hook::low_level::emulate_default_handler;

/// How COMMAND ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code, or could not be started, with the code a shell gives for that.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl Ending {
    /// The code a shell reports for it.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }

    /// Ends this process the same way: whoever waits for us sees what it would have seen from COMMAND.
    pub fn imitate(self) -> ! {
        if let Self::Killed(signal) = self {
            // The kernel spares PID 1 signals that it has no handler for. We are not dumpable, so a second core is not written.
            let spared = nix::unistd::getpid().as_raw() == 1;
            if !spared && kills(signal) {
                let _ = emulate_default_handler(signal);
            }
        }
        std::process::exit(self.code())
    }
}

/// Whether the default action of `signal` ends a process, and so imitating it can work.
fn kills(signal: i32) -> bool {
    use signal_hook::consts::{SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    const SIGSTOP: i32 = nix::libc::SIGSTOP;
    // Realtime signals are unknown to the call above, which then does nothing.
    !matches!(
        signal,
        SIGCHLD | SIGCONT | SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU | SIGURG | SIGWINCH
    )
}
