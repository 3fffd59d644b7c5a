//! Telling of ends: what comes of it, and who listens. The same on every database.

use dormouse_core::Json;
use dormouse_core::manifest::Manifest;
use dormouse_core::system::Kinds;

use super::ingest::{Small, check_carried};
use crate::ends::Tell;
use crate::error::Result;
use crate::ingest::Ingest;

/// What a version's functions listen to. One whose manifest this release does not read has no functions here.
pub(crate) fn listens(manifest: &Json) -> Kinds {
    Manifest::parse(manifest.as_str()).map_or(Kinds::NONE, |manifest| manifest.listens())
}

/// The ends that waits with some names and paths are for.
pub(crate) fn awaited(paths: &[(String, String)]) -> Kinds {
    let kinds = paths.iter().map(|(name, _)| Kinds::named(name));
    kinds.fold(Kinds::NONE, Kinds::and)
}

/// What would make it fail to tell, before anything of it is written.
pub(crate) fn check(small: &impl Small, tell: &Tell) -> Result<()> {
    check_carried(small, &tell.ingest)
}

/// What ends that are told bring.
pub(crate) fn ingests<'r>(tells: &[(usize, &'r Tell)]) -> impl Iterator<Item = &'r Ingest> {
    tells.iter().map(|(_, tell)| &tell.ingest)
}

/// What the versions that are not deleted listen to. The same text on both databases. What is awaited stands apart: whoever
/// stores a wait does not hold the registry's lock, and only adds to it.
pub(crate) const LISTEN: &str = "UPDATE registry SET listened = \
     (SELECT coalesce(max(listens & 1), 0) + coalesce(max(listens & 2), 0) + coalesce(max(listens & 4), 0) \
      FROM versions WHERE NOT deleted)";

#[cfg(test)]
mod tests {
    use dormouse_core::system;

    use super::*;

    #[test]
    fn the_statement_has_the_numbers_of_all_events() {
        for name in [system::FINISHED, system::FAILED, system::CANCELLED] {
            let bits = Kinds::named(name).bits();
            assert!(LISTEN.contains(&format!("max(listens & {bits})")), "{name}");
        }
    }
}
