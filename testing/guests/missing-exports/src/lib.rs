//! A component that exports no functions.

/// So that there is something in it.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> i32 {
    42
}
