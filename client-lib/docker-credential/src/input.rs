//! Standard input, bounded in length and in time: no container tool bounds its helper.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

/// Everything on standard input. `store` gets a credential there, so the bytes are wiped on drop.
pub(crate) fn read_all() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut stdin = io::stdin().lock();
    let is_person = stdin.is_terminal();
    let mut bytes = Zeroizing::new(vec![0; MAX_INPUT_BYTES + 1]);
    let mut length = 0;
    loop {
        if !is_person {
            wait(&stdin)?;
        }
        let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) else {
            return Err(io::Error::other("the input is too long"));
        };
        match stdin.read(rest) {
            Ok(0) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(io::Error::other("the input cannot be read")),
        }
    }
}

fn wait(stdin: &impl AsFd) -> io::Result<()> {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    loop {
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(io::Error::other("no input came")),
            Err(Errno::EINTR) => {}
            // What poll cannot judge, the read that follows can.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// An address is below 1 KiB and a stored credential below 16.
const MAX_INPUT_BYTES: usize = 64 * 1024;

/// Tools write at once. One that keeps the pipe open for ever must not hang on us.
const PATIENCE: Duration = Duration::from_secs(10);
