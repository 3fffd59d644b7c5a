//! Hints between nodes: NOTIFY when something became ready or ended, LISTEN for what others say. Both have connections
//! of their own, away from writes: a transaction that notifies holds a lock over its commit. Nothing depends on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};

use super::connect::Address;
use super::readers::Readers;

/// The one channel.
const CHANNEL: &str = "dormouse";
/// At most one notification in so long: fifty a second.
const PAUSE: Duration = Duration::from_millis(20);
/// Before trying again to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells the others, now and then, when it is nudged. Ends when nobody can nudge any more.
pub(super) async fn tell(
    nudge: Arc<Notify>,
    others: Arc<AtomicBool>,
    desk: Readers,
    own: String,
    pooled: bool,
) {
    loop {
        nudge.notified().await;
        if !others.load(Ordering::Acquire) {
            continue;
        }
        let own = own.clone();
        let told = desk
            .run(move |mut conn| {
                // The payload is the same each time, so that Postgres folds what is queued. It says who speaks, so
                // that a node does not listen to itself. Losing one is no harm, so nobody waits for the disk.
                let mut text = format!("SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}, '{own}'");
                // Behind a pooler it is in a transaction already.
                if !pooled {
                    text = format!("BEGIN; {text}; COMMIT");
                }
                async move {
                    let told = conn.simple(text).await;
                    (conn, told)
                }
            })
            .await;
        if let Err(error) = told {
            tracing::debug!(%error, "other nodes were not told; they will see at their next poll");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Moves a number when another node said something.
pub(super) async fn listen(address: Arc<Address>, hints: watch::Sender<u64>, own: String) {
    loop {
        // Anew each time: the last connection may be one to a server that is a standby now.
        let pool = address.pool_of_one();
        match PgListener::connect_with(&pool).await {
            Ok(mut listener) => match listener.listen(CHANNEL).await {
                Ok(()) => {
                    // Something may have been said while nobody listened.
                    hints.send_modify(|number| *number += 1);
                    loop {
                        match listener.try_recv().await {
                            Ok(Some(said)) if said.payload() == own => {}
                            Ok(Some(_)) => hints.send_modify(|number| *number += 1),
                            // The connection was lost, and is made anew.
                            Ok(None) | Err(_) => break,
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot listen for other nodes"),
            },
            Err(error) => tracing::debug!(%error, "cannot connect to listen for other nodes"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
