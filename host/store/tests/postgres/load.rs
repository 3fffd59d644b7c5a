//! Writers that go on whatever becomes of the server, and what has to be there afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_core::RunId;
use dormouse_store::execute::{Appended, Then};
use dormouse_store::{Error, Store};
use tokio::task::JoinHandle;

use crate::{Member, step};

/// Each appends to a run of its own, one entry after the other.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<(RunId, u32)>>,
}

impl Load {
    pub(crate) async fn start(member: &Arc<Member>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for _ in 0..16 {
            let (member, stop) = (Arc::clone(member), Arc::clone(&stop));
            let run = member.create(true).await;
            writers.push(tokio::spawn(async move {
                let mut seq = 0;
                while !stop.load(Ordering::Acquire) {
                    let append = member.append(run, 1, vec![step(seq, "1")], Then::Continue);
                    match member.store.append(append).await {
                        Ok(Appended::Done) => seq += 1,
                        Ok(other) => panic!("{other:?}"),
                        Err(Error::Unavailable(_) | Error::Busy | Error::Unknown(_)) => {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (run, seq)
            }));
        }
        Load { stop, writers }
    }

    /// Ends it. What was said to be stored is, once, and nothing else.
    pub(crate) async fn end(self, member: &Member) {
        self.stop.store(true, Ordering::Release);
        for writer in self.writers {
            let (run, seq) = writer.await.expect("no panic");
            let journal = member.store.journal(run, 0).await.expect("reads");
            let seqs: Vec<u32> = journal.iter().map(|record| record.seq).collect();
            assert_eq!(seqs, (0..seq).collect::<Vec<_>>());
            assert!(seq > 5, "it went on");
        }
    }
}
