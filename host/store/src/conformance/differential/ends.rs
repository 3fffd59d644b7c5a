//! Ends of runs that are told.

use super::Pair;
use crate::conformance::fixture::json;
use crate::ends::{Tell, Told};
use crate::error::Error;
use crate::ingest::Ingest;
use crate::registry::NewVersion;

/// What versions listen to, by their number.
const LISTENS: [Option<&str>; 5] = [
    None,
    None,
    Some("dormouse/function.finished"),
    Some("inngest/function.*"),
    Some("dormouse/function.cancelled"),
];

/// A version that listens to what its number says.
pub(super) fn listening(number: u64, version: NewVersion) -> NewVersion {
    let Some(event) = LISTENS[number as usize % LISTENS.len()] else {
        return version;
    };
    NewVersion {
        manifest: json(&format!(
            r#"{{"schema":1,"functions":[{{"id":"a","triggers":[{{"event":"{event}"}}]}}]}}"#
        )),
        ..version
    }
}

impl Pair {
    pub(super) async fn tell(&mut self) {
        let limit = 1 + self.random.below(4) as u32;
        let untold = both!(self, untold(limit)).expect("reads");
        let chosen = self.random.pick(&untold).copied();
        let Some(run) = chosen.map(|untold| untold.run) else {
            return;
        };
        let event = self.event();
        let now = self.time();
        let mut runs = Vec::new();
        for _ in 0..self.random.below(3) {
            let mut run = self.run(event.id);
            run.lease = None;
            run.copy = None;
            runs.push(run);
        }
        let ingest = Ingest {
            events: vec![event],
            runs,
            generation: self.generation - i64::from(self.random.one_in(6)),
            now,
        };
        let tell = Tell { run, ingest };
        match both!(self, tell(tell.clone())) {
            Ok(Told::Done(_)) => {
                self.succeeded("tell");
                // As another node would, that was slower.
                if both!(
                    self,
                    tell(Tell {
                        run,
                        ingest: Ingest {
                            events: Vec::new(),
                            runs: Vec::new(),
                            ..tell.ingest.clone()
                        }
                    })
                )
                .expect("answers")
                    == Told::Before
                {
                    self.succeeded("tell-before");
                }
            }
            Ok(Told::Before) => self.succeeded("tell-before"),
            Err(Error::StaleRegistry) => self.succeeded("tell-stale"),
            Err(_) => {}
        }
    }
}
