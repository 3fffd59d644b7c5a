//! What a later release brings. The routes have their names already, so that clients get an answer they can tell from a
//! mistake of theirs: 501, code `not-supported`.

use super::envelope::{Answer, Failed};
use crate::problem::Problem;

fn answer(what: &str) -> Answer {
    Err(Failed(Problem::not_supported(what)))
}

pub(super) async fn grants() -> Answer {
    answer("managing grants over the API; they stand in the server's configuration file, and this")
}
