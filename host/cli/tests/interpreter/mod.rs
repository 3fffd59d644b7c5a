//! Random programs: what they are, what they should come to, and whether they did.
//!
//! | room | what it owns |
//! |---|---|
//! | [`program`] | the programs; the guest's own file |
//! | [`generate`] | programs from dice |
//! | [`predict`] | what a program should come to, by walking it: pure |
//! | [`application`] | the application's database, which the programs' SQL steps change |
//! | [`verdict`] | holds runs, database and witness against the prediction |
//! | [`storm`] | sends programs to nodes while a nemesis works |

pub(crate) mod application;
pub(crate) mod generate;
pub(crate) mod predict;
// The guest uses the rest.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../testing/guests/interpreter/src/program.rs"]
pub(crate) mod program;
pub(crate) mod storm;
pub(crate) mod verdict;
