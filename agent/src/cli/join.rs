//! `jobcred join`: an agent for a program that is running already, started for it where there is none.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use super::arguments::GlobalOptions;
use super::recipe::recipe;
use super::setup::Setup;
use super::{exit, output, place};
use crate::front::election::{Part, ask_for_lease};
use crate::front::leases::LONGEST_LINGER;
use crate::front::socket::try_connect;
use crate::supervisor::{LeaseReader, say, start_detached};

/// How long the agent may take to say something. It decides first, and may have to ask the metadata service.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn join(options: &GlobalOptions) -> i32 {
    let setup = match Setup::read(options) {
        Ok(setup) => setup,
        Err(report) => {
            say(&report);
            return exit::USAGE;
        }
    };
    let mut place = match place::for_run(&setup, place::mark(&setup).as_ref()) {
        Ok(place) => place,
        Err(error) => {
            say(&error.to_string());
            return exit::NO_SOCKET;
        }
    };
    let path = place.seat.path().to_owned();
    if let Some(reason) = &place.aside {
        say(&format!(
            "{reason}: there is an agent of our own at {}",
            path.display()
        ));
    }
    // Whichever it is, it stays until the caller has had the time to ask for a lease.
    let linger = LONGEST_LINGER.as_secs().to_string();
    let mut pid = None;
    let part = place.seat.take_part();
    let started = matches!(part, Part::Owner(_));
    if let Part::Owner(socket) = part {
        let alone = [OsString::from("--linger"), linger.clone().into()];
        let recipe = recipe(options, &setup, &path, alone, None, None);
        let (listener, file) = socket.into_parts();
        match start_detached(&recipe, &listener) {
            Ok(child) => {
                pid = Some(child);
                file.leave();
            }
            Err(error) => {
                say(&format!("cannot start the agent: {error}"));
                place.seat.clear(file);
                return exit::INTERNAL;
            }
        }
    }
    // The claim is held until there is an answer, so that it does not end in between.
    if let Some(told) = first_word(&path, &linger) {
        pid = Some(told);
    } else {
        say("the agent has not answered yet");
    }
    let found = json!({"socket": path, "pid": pid, "started": started});
    output::print(&format!("{found}\n"));
    exit::OK
}

/// The pid of the agent, once it has answered a request for a lease.
fn first_word(path: &Path, linger: &str) -> Option<u32> {
    let stream: UnixStream = try_connect(path).ok()??;
    ask_for_lease(&stream, &format!("?linger={linger}")).ok()?;
    let mut lease = LeaseReader::new(stream);
    loop {
        let news = lease.read();
        if let Some(told) = news.told {
            return Some(told.pid);
        }
        if news.ended {
            return None;
        }
        let mut wait = [PollFd::new(lease.as_fd(), PollFlags::POLLIN)];
        // An answer comes in a few pieces at most, so this bounds the whole.
        match poll(&mut wait, PollTimeout::try_from(PATIENCE).ok()?) {
            Ok(1..) => {}
            _ => return None,
        }
    }
}
