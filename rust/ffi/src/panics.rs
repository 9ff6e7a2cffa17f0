//! Panics become errors: nothing is printed and nothing unwinds into C++.

use std::cell::Cell;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static LOCATION: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs `work`; a panic in it is described in one line.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        set_hook(Box::new(|info| {
            LOCATION.set(info.location().map(|location| format!(" at {location}")));
        }));
    });
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        std::mem::forget(panic); // dropping an unknown payload could panic again
        text.unwrap_or_default() + &LOCATION.take().unwrap_or_default()
    })
}
