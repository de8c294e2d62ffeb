//! The client, and its second life in a forked child.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::boundary::guard;
use crate::error::Error;
use crate::settings::Settings;

/// A client of the agent. It looks for the agent when it is first needed and again for every new connection, so that it may
/// be made before the agent runs and outlives a restart of it. It keeps tokens until the agent said to ask again.
#[derive(Debug)]
pub struct Client {
    current: AtomicPtr<Life>,
}

/// A client as one process knows it.
#[derive(Debug)]
struct Life {
    pid: u32,
    client: jobcred_client::Client,
    /// Of the parents' lives that this process keeps, the next one.
    next: AtomicPtr<Life>,
}

/// A client; `settings` may be NULL. The environment is read here, not later. Returns NULL only after a fault of the
/// library; every function takes a client that is NULL for an error.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_client_new(settings: Option<&Settings>) -> Option<Box<Client>> {
    guard(|| {
        let builder = jobcred_client::Client::builder();
        let client = match settings {
            Some(settings) => settings.apply(builder),
            None => builder,
        };
        Box::new(Client {
            current: AtomicPtr::new(Life::begin(client.build())),
        })
    })
}

/// Frees a client, with the tokens it keeps and its connections. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn jobcred_client_free(client: Option<Box<Client>>) {
    guard(|| drop(client));
}

impl Client {
    /// The client as this process may use it.
    ///
    /// After a fork it is a new one: in the child, what another thread of the parent was changing at that moment stays as it
    /// is for ever, locks included.
    pub(crate) fn of(client: Option<&Self>) -> Result<&jobcred_client::Client, Error> {
        let client = client.ok_or_else(|| Error::invalid("the client is NULL"))?;
        let life = client.current.load(Ordering::Acquire);
        // SAFETY: `current` always points to a life, which is freed with the client or never.
        let life = unsafe { &*life };
        if life.pid == std::process::id() {
            Ok(&life.client)
        } else {
            Ok(client.begin_anew(life))
        }
    }

    #[cold]
    fn begin_anew(&self, parents: &Life) -> &jobcred_client::Client {
        let inherited = ptr::from_ref(parents).cast_mut();
        let own = Life::begin(parents.client.afresh());
        let result =
            self.current
                .compare_exchange(inherited, own, Ordering::AcqRel, Ordering::Acquire);
        let current = match result {
            Ok(_) => {
                parents.keep();
                own
            }
            Err(others) => {
                // SAFETY: from `Life::begin` above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(own) });
                others
            }
        };
        // SAFETY: the one that `current` points to, by this thread's doing or by another's of this process.
        &unsafe { &*current }.client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let life = self.current.load(Ordering::Acquire);
        // SAFETY: `current` always points to a life, and nobody uses a client that is freed.
        let (life, pid) = (life, unsafe { &*life }.pid);
        if pid == std::process::id() {
            // SAFETY: from `Life::begin`, not freed before since `current` pointed to it.
            drop(unsafe { Box::from_raw(life) });
        } else {
            // SAFETY: as above. It is the parent's, in whatever state the fork found it: kept as it is.
            unsafe { &*life }.keep();
        }
    }
}

impl Life {
    fn begin(client: jobcred_client::Client) -> *mut Self {
        Box::into_raw(Box::new(Self {
            pid: std::process::id(),
            client,
            next: AtomicPtr::default(),
        }))
    }

    /// Keeps a life that must neither be used nor taken apart in this process, where a leak checker finds it.
    fn keep(&self) {
        let own = ptr::from_ref(self).cast_mut();
        let mut first = KEPT.load(Ordering::Acquire);
        loop {
            self.next.store(first, Ordering::Release);
            match KEPT.compare_exchange_weak(first, own, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(others) => first = others,
            }
        }
    }
}

/// The parents' lives in this process: one for every client that was used before a fork.
static KEPT: AtomicPtr<Life> = AtomicPtr::new(ptr::null_mut());
