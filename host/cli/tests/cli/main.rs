//! The `dormouse` binary from outside: one program of tests, because each would be linked by itself otherwise.

mod command_line;
mod new_project;
mod stub;
mod watching;
