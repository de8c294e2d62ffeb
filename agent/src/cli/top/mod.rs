//! `jobcred top`: what the agent holds and who asks, as it changes.

mod bar;
mod screen;
mod view;

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::view::View;
use super::arguments::{GlobalOptions, TopOptions};
use super::{exit, seek};
use crate::platform::{Clock, Environment};
use crate::supervisor::say;

/// How long one look at the agent may take: keys wait for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is noticed that the process was told to end, and that a key was pressed.
const TICK_MILLIS: u8 = 100;

pub(super) fn top(global: &GlobalOptions, options: &TopOptions) -> i32 {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        say(
            "`top` needs a terminal; for scripts there is `jobcred status --json`, for monitoring /metrics",
        );
        return exit::USAGE;
    }
    // The first look is made before the screen is taken: who has no agent reads why on the usual screen.
    let client = seek::impatient_client(global, PATIENCE);
    let mut view = View::new(&Environment::of_process());
    match client.status() {
        Ok(status) => view.learn(status),
        Err(error) => return seek::report(&error),
    }
    let told_to_end = Arc::new(AtomicBool::new(false));
    // Not SIGHUP: with it the terminal is gone, and there is nothing to give back.
    for signal in [SIGTERM, SIGINT] {
        // Where it fails the signal ends the process as it always does, and the terminal keeps the last picture.
        let _ = signal_hook::flag::register(signal, Arc::clone(&told_to_end));
    }
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            ratatui::restore();
            say(&format!("cannot use this terminal: {error}"));
            return exit::INTERNAL;
        }
    };
    let result = watch(&mut terminal, &mut view, options, &told_to_end, || {
        client.status()
    });
    ratatui::restore();
    match result {
        Ok(()) => exit::OK,
        Err(error) => {
            say(&format!("the terminal failed: {error}"));
            exit::INTERNAL
        }
    }
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    view: &mut View,
    options: &TopOptions,
    told_to_end: &AtomicBool,
    mut look: impl FnMut() -> Result<jobcred_wire::Status, jobcred_client::Error>,
) -> std::io::Result<()> {
    let interval = Duration::from_secs(options.interval);
    let clock = Clock::system();
    let mut looked = tokio::time::Instant::now();
    loop {
        terminal.draw(|frame| screen::draw(frame, view, clock.now().as_secs()))?;
        // Once a second even where the agent is asked less often, for the times on the screen.
        let redraw = tokio::time::Instant::now() + interval.min(Duration::from_secs(1));
        while tokio::time::Instant::now() < redraw {
            if told_to_end.load(Ordering::SeqCst) {
                return Ok(());
            }
            if !wait_for_terminal()? {
                return Ok(());
            }
            // Not only when there is something to read: a new size comes as a signal.
            if !event::poll(Duration::ZERO)? {
                continue;
            }
            match act(&event::read()?, view) {
                Act::End => return Ok(()),
                Act::Redraw => break,
                Act::Nothing => {}
            }
        }
        if looked.elapsed() >= interval {
            looked = tokio::time::Instant::now();
            match look() {
                Ok(status) => view.learn(status),
                Err(error) => view.lose(&error),
            }
        }
    }
}

/// Waits for the terminal for at most [`TICK_MILLIS`]; false when it has gone away. The library below would read its end for ever.
fn wait_for_terminal() -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    let mut descriptors = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    match poll(&mut descriptors, PollTimeout::from(TICK_MILLIS)) {
        // A signal, a new size among them.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let seen = descriptors[0].revents().unwrap_or(PollFlags::empty());
    Ok(!seen.intersects(gone))
}

enum Act {
    Nothing,
    Redraw,
    End,
}

fn act(event: &Event, view: &mut View) -> Act {
    match event {
        Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press,
            ..
        }) => match code {
            KeyCode::Char('q') | KeyCode::Esc => Act::End,
            // In raw mode ^C is a key.
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Act::End,
            KeyCode::Down | KeyCode::Char('j') => {
                view.scroll(1);
                Act::Redraw
            }
            KeyCode::Up | KeyCode::Char('k') => {
                view.scroll(-1);
                Act::Redraw
            }
            _ => Act::Nothing,
        },
        Event::Resize(..) => Act::Redraw,
        _ => Act::Nothing,
    }
}
