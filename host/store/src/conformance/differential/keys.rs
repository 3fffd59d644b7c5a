//! Keys, and the audit log.

use dormouse_core::EventId;
use dormouse_core::key::{Key, KeyId, Kind, Role};

use super::{MODULES, Pair};
use crate::audit::{Filter, Record};
use crate::conformance::keys::key;
use crate::key::{Created, Revoked};

/// So few that they are taken, and met again.
const IDS: u64 = 12;

impl Pair {
    pub(super) async fn keys(&mut self) {
        for _ in 0..3 {
            match self.random.below(4) {
                0 => self.create_key().await,
                1 => self.revoke_key().await,
                _ => self.record().await,
            }
        }
    }

    async fn create_key(&mut self) {
        let now = self.time();
        let role = match self.random.one_in(2) {
            true => Role::Admin,
            false => Role::ALL[self.random.below(4) as usize],
        };
        let limited = role != Role::Admin && self.random.one_in(2);
        let new = Key {
            kind: match self.random.one_in(4) {
                true => Kind::Event,
                false => Kind::Api,
            },
            modules: limited.then(|| vec![MODULES[self.random.below(2) as usize].to_owned()]),
            payloads: self.random.one_in(2),
            created_at: now,
            expires_at: self.random.one_in(3).then_some(now),
            ..key(self.random.below(IDS) as u8, role)
        };
        match both!(self, create_key(new.clone())).expect("answers") {
            Created::Done => self.succeeded("create-key"),
            Created::Refused(_) => self.succeeded("key-refused"),
        }
    }

    async fn revoke_key(&mut self) {
        let (id, now) = (KeyId::from_bytes([self.random.below(IDS) as u8; 6]), self.time());
        if let Revoked::Done(_) = both!(self, revoke_key(id, now)).expect("answers") {
            self.succeeded("revoke-key");
        }
    }

    async fn record(&mut self) {
        let now = self.time();
        let record = Record {
            id: EventId::from_parts(now, self.id()),
            at: now,
            key: self.random.one_in(2).then(|| self.some_key()),
            who: "somebody".to_owned(),
            from: "::1".to_owned(),
            action: format!("action.{}", self.random.below(3)),
            target: format!("target {}", self.random.below(3)),
            result: "done".to_owned(),
            detail: self.random.one_in(3).then(|| "nul \0 here".to_owned()),
        };
        both!(self, record(record.clone())).expect("stores");
        self.succeeded("record");
    }

    fn some_key(&mut self) -> KeyId {
        KeyId::from_bytes([self.random.below(4) as u8; 6])
    }

    pub(super) async fn compare_keys(&mut self) {
        let known = both!(self, keys(None)).expect("reads");
        let generation = known.map(|keys| keys.generation);
        both!(self, keys(generation)).expect("reads");
        for number in 0..16 {
            let bit = |bit: u32| number >> bit & 1 == 1;
            let filter = Filter {
                key: bit(0).then(|| self.some_key()),
                action: bit(1).then(|| "action.1".to_owned()),
                target: bit(2).then(|| "target 2".to_owned()),
                after: bit(3).then(|| self.earlier()),
                until: bit(2).then(|| self.earlier()),
                before: None,
                limit: 1 + self.random.below(20) as u32,
            };
            let page = both!(self, records(filter.clone())).expect("lists");
            let next = Filter {
                before: page.last().map(|record| record.id),
                ..filter
            };
            both!(self, records(next.clone())).expect("lists");
        }
    }
}
