//! Keys and the audit log in the model.

use dormouse_core::Timestamp;
use dormouse_core::key::{self, Key, KeyId};

use super::World;
use crate::audit::{Filter, Record};
use crate::key::{Created, Keys, Revoked};

impl World {
    pub(super) fn create_key(&mut self, new: Key) -> Created {
        if let Err(refused) = key::may_create(&self.keys, &new) {
            return Created::Refused(refused);
        }
        self.keys.push(new);
        self.keys.sort_by_key(|key| (key.created_at, key.id));
        self.key_changes += 1;
        Created::Done
    }

    pub(super) fn revoke_key(&mut self, id: KeyId, now: Timestamp) -> Revoked {
        let may = key::may_revoke(&self.keys, id);
        let Some(found) = self.keys.iter_mut().find(|key| key.id == id) else {
            return Revoked::NotFound;
        };
        if found.revoked_at.is_some() {
            return Revoked::Before(found.clone());
        }
        if !may {
            return Revoked::Last;
        }
        found.revoked_at = Some(now);
        self.key_changes += 1;
        Revoked::Done(found.clone())
    }

    pub(super) fn keys(&self, known: Option<i64>) -> Option<Keys> {
        let generation = self.key_changes;
        (known != Some(generation)).then(|| Keys {
            generation,
            keys: self.keys.clone(),
        })
    }

    pub(super) fn record(&mut self, record: Record) {
        self.audit.entry(record.id).or_insert(record);
    }

    pub(super) fn records(&self, filter: &Filter) -> Vec<Record> {
        let meant = |record: &&Record| {
            (filter.key.is_none() || record.key == filter.key)
                && filter
                    .action
                    .as_ref()
                    .is_none_or(|action| record.action == *action)
                && filter
                    .target
                    .as_ref()
                    .is_none_or(|target| record.target == *target)
                && filter.after.is_none_or(|after| record.at >= after)
                && filter.until.is_none_or(|until| record.at < until)
                && filter.before.is_none_or(|before| record.id < before)
        };
        let newest = self.audit.values().rev().filter(meant);
        newest.take(filter.limit as usize).cloned().collect()
    }
}
