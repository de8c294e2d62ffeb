//! The offer of this run's identity endpoint to whichever agent answers at its place.
//!
//! It stands for as long as its connection does. An agent may say no (it has no descriptor left, say) or hang up; whoever asks at
//! the endpoint waits then, so it is offered again, soon at first. One that was taken costs nothing: nobody looks until something comes.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::Endpoint;
use super::timer::Timer;

/// How an agent's yes begins.
const YES: &[u8] = b"HTTP/1.1 200";
/// The wait before it is offered again. It doubles with every refusal in a row.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The endpoint, and how far its offer is.
pub(super) struct Offer {
    /// Closed for good when there is nobody left to answer; `None` also where COMMAND's SDKs are not led here.
    endpoint: Option<Endpoint>,
    stage: Stage,
    /// Refusals since it was last taken, or offered to somebody new.
    refusals: u32,
}

enum Stage {
    /// There is nobody to offer it to.
    Idle,
    /// It was offered over this connection, and the answer begins so, as far as it has come.
    Made(UnixStream, Vec<u8>),
    /// It was not taken, and is offered again when this fires.
    Refused(Timer),
}

impl Offer {
    /// Nobody is offered it yet.
    pub(super) fn new(endpoint: Option<Endpoint>) -> Self {
        Self {
            endpoint,
            stage: Stage::Idle,
            refusals: 0,
        }
    }

    /// Offers it to the agent that answers at `socket` now, or next. One that has another offer by now gives that up with its
    /// connection.
    pub(super) fn make(&mut self, socket: &Path) {
        self.refusals = 0;
        self.send(socket);
    }

    fn send(&mut self, socket: &Path) {
        self.withdraw();
        let Some(endpoint) = &self.endpoint else {
            return;
        };
        match endpoint.offer(socket) {
            Ok(connection) => self.stage = Stage::Made(connection, Vec::new()),
            Err(_) => self.wait(),
        }
    }

    /// Takes it back.
    pub(super) fn withdraw(&mut self) {
        self.stage = Stage::Idle;
    }

    /// Closes the endpoint for good: refused at once is better than waited for without end.
    pub(super) fn close(&mut self) {
        self.withdraw();
        self.endpoint = None;
    }

    fn wait(&mut self) {
        // Its descriptor is free for the timer.
        self.withdraw();
        if let Ok(timer) = Timer::new() {
            timer.start(back_off(self.refusals));
            self.stage = Stage::Refused(timer);
        }
        self.refusals = self.refusals.saturating_add(1);
    }

    /// Where something comes when there is reason for [`Self::go_on`].
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Made(connection, _) => Some(connection.as_fd()),
            Stage::Refused(timer) => Some(timer.as_fd()),
        }
    }

    /// Something has come: an answer, the end of the connection, or the time to offer it to `socket` again.
    pub(super) fn go_on(&mut self, socket: &Path) {
        match &mut self.stage {
            Stage::Idle => {}
            Stage::Made(connection, said) => {
                let goes_on = receive(connection, said);
                if !goes_on || !YES.starts_with(said) {
                    self.wait();
                } else if said == YES {
                    self.refusals = 0;
                }
            }
            Stage::Refused(_) => self.send(socket),
        }
    }
}

/// Takes in what is there, and keeps of it as much as a yes has. False when there will be no more.
fn receive(connection: &UnixStream, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match recv(connection, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((count, _)) => {
                let missing = YES.len().saturating_sub(said.len());
                said.extend(buffer.iter().take(count.min(missing)));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return errno == Errno::WOULDBLOCK,
        }
    }
}

fn back_off(refusals: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << refusals.min(16))
        .min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use super::{LONGEST_WAIT, Offer, Stage, back_off};
    use crate::config::Dialect;
    use crate::supervisor::Endpoint;

    #[test]
    fn it_stands_until_the_agent_says_no_or_is_gone_and_is_made_again_then() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let endpoint = Endpoint::open(&[Dialect::AppService]).unwrap();
        let mut offer = Offer::new(Some(endpoint));
        let accept = || -> UnixStream { listener.accept().unwrap().0 };
        offer.make(&socket);
        let mut far = accept();
        for part in ["HTTP/1", ".1 200 OK\r\n\r\n", "and more"] {
            far.write_all(part.as_bytes()).unwrap();
            offer.go_on(&socket);
            assert!(matches!(offer.stage, Stage::Made(..)), "{part}");
        }
        drop(far);
        offer.go_on(&socket);
        assert!(matches!(offer.stage, Stage::Refused(_)));
        // As if it were time.
        offer.go_on(&socket);
        let mut far = accept();
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        offer.go_on(&socket);
        assert!(matches!(offer.stage, Stage::Refused(_)));
        drop(listener);
        offer.make(&socket);
        assert!(matches!(offer.stage, Stage::Refused(_)), "nobody there");
        offer.close();
        offer.make(&socket);
        assert!(offer.as_fd().is_none());
    }

    #[test]
    fn who_refuses_again_and_again_is_asked_seldom() {
        assert_eq!(back_off(0), Duration::from_secs(1));
        assert_eq!(back_off(u32::MAX), LONGEST_WAIT);
    }
}
