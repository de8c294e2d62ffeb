//! What holds for every call that comes in: no panic leaves it, and the caller's thread is as it was.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe, Location};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::error::Error;

/// Runs a call that ends in an object or in an error. The error goes to `place`, which C need not have initialised and
/// which gets NULL when there is none.
pub(crate) fn call<T>(
    place: Option<&mut MaybeUninit<*mut Error>>,
    act: impl FnOnce() -> Result<T, Error>,
) -> Option<Box<T>> {
    let (value, error) = match guard(|| act().map(Box::new)) {
        Some(Ok(value)) => (Some(value), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, Some(Error::internal(&panic_message()))),
    };
    if let Some(place) = place {
        place.write(error.map_or(ptr::null_mut(), |error| Box::into_raw(Box::new(error))));
    }
    value
}

/// Runs `act`; nothing when it panicked. Keeps errno, and a cancellation of the thread waiting.
pub(crate) fn guard<T>(act: impl FnOnce() -> T) -> Option<T> {
    let errno = Errno::last_raw();
    let cancellation = Cancellation::hold();
    silence_panics();
    let was_inside = INSIDE.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(act));
    INSIDE.set(was_inside);
    drop(cancellation);
    Errno::set_raw(errno);
    result.ok()
}

/// A thread that C cancels is unwound by force, which Rust answers by ending the process. So it waits for the end of the
/// call: the thread is cancelled at its next cancellation point.
struct Cancellation(c_int);

impl Cancellation {
    fn hold() -> Self {
        let mut before = PTHREAD_CANCEL_ENABLE;
        // SAFETY: a function of the C library with these types; the pointer is good for the call.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        Self(before)
    }
}

impl Drop for Cancellation {
    fn drop(&mut self) {
        let mut ignored = 0;
        // SAFETY: as above; the value is the one it returned.
        unsafe { pthread_setcancelstate(self.0, &raw mut ignored) };
    }
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

// pthread.h of glibc and of musl.
const PTHREAD_CANCEL_ENABLE: c_int = 0;
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// A library has no business on the standard error of its program, so what panics inside a call only leaves its place.
///
/// The hook is that of the copy of std in this library: the program's own, if it is in Rust, is another.
fn silence_panics() {
    // Not a `Once`: a child forked in the middle of it would wait for ever.
    if IS_SILENCED.swap(true, Ordering::Relaxed) {
        return;
    }
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if INSIDE.get() {
            PANICKED_AT.set(info.location().map(Place::of));
        } else {
            usual(info);
        }
    }));
}

/// A line of source.
#[derive(Clone, Copy)]
struct Place {
    /// The end of the file's name: where the library was built is nobody's business.
    file: [u8; 40],
    line: u32,
}

impl Place {
    fn of(location: &Location<'_>) -> Self {
        let mut file = [b' '; 40];
        let name = location.file().as_bytes();
        for (to, from) in file.iter_mut().rev().zip(name.iter().rev()) {
            *to = *from;
        }
        Self {
            file,
            line: location.line(),
        }
    }
}

fn panic_message() -> String {
    match PANICKED_AT.take() {
        Some(Place { file, line }) => format!(
            "a fault of libjobcred at {}:{line}; please report it",
            String::from_utf8_lossy(&file).trim_start()
        ),
        None => "a fault of libjobcred; please report it".to_owned(),
    }
}

static IS_SILENCED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANICKED_AT: Cell<Option<Place>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::ptr;

    use nix::errno::Errno;

    use super::{call, guard};
    use crate::error::{Error, Kind};

    #[test]
    fn a_panic_is_an_internal_error_that_names_its_place() {
        let mut place = MaybeUninit::uninit();
        let value = call(Some(&mut place), || -> Result<u8, Error> {
            panic!("a token, who knows")
        });
        assert!(value.is_none());
        // SAFETY: written by `call`.
        let error = unsafe { place.assume_init() };
        // SAFETY: an error's box, since there is no value.
        let error = unsafe { Box::from_raw(error) };
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.text().contains("boundary.rs:"), "{}", error.text());
        assert!(!error.text().contains("token"), "{}", error.text());
    }

    #[test]
    fn the_place_of_the_error_is_written_in_any_case() {
        let mut place = MaybeUninit::new(ptr::dangling_mut());
        assert_eq!(call(Some(&mut place), || Ok(7)).as_deref(), Some(&7));
        // SAFETY: initialised from the start.
        assert!(unsafe { place.assume_init() }.is_null());
        assert_eq!(call(None, || Ok(7)).as_deref(), Some(&7));
        assert!(call::<u8>(None, || Err(Error::invalid("no"))).is_none());
    }

    #[test]
    fn errno_is_as_it_was() {
        Errno::EXDEV.set();
        guard(|| Errno::ENOENT.set());
        assert_eq!(Errno::last(), Errno::EXDEV);
        guard(|| {
            Errno::ENOENT.set();
            panic!("on purpose");
        });
        assert_eq!(Errno::last(), Errno::EXDEV);
    }
}
