//! Keys: what is the same on every database.

use dormouse_core::Timestamp;
use dormouse_core::key::{self, Key, KeyId, Kind, Role, Verifier};

use crate::error::{Error, Result};
use crate::key::Revoked;

/// How a kind is stored.
pub(crate) fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Event => 0,
        Kind::Api => 1,
    }
}

/// How a role is stored.
pub(crate) fn role_number(role: Role) -> i64 {
    match role {
        Role::Viewer => 0,
        Role::Operator => 1,
        Role::Deployer => 2,
        Role::Admin => 3,
    }
}

/// How a list of modules is stored.
pub(crate) fn modules_text(modules: Option<&[String]>) -> Option<String> {
    modules.map(|modules| modules.join(","))
}

/// The cells of a key's row, in order.
pub(crate) struct Row<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: i64,
    pub(crate) name: &'a str,
    pub(crate) role: i64,
    pub(crate) modules: Option<&'a str>,
    pub(crate) payloads: bool,
    pub(crate) verifier: [u8; 32],
    pub(crate) created_at: Timestamp,
    pub(crate) created_by: &'a str,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

impl Row<'_> {
    /// The key. A row that says what this release does not know is no key: nobody gets in by it.
    pub(crate) fn read(self) -> Result<Key> {
        let corrupt = |what: &str| Error::Corrupt(format!("key {}: its {what}", self.id));
        let split = |text: &str| text.split(',').map(str::to_owned).collect();
        Ok(Key {
            id: self.id.parse().map_err(|_| corrupt("id"))?,
            kind: match self.kind {
                0 => Kind::Event,
                1 => Kind::Api,
                _ => return Err(corrupt("kind")),
            },
            name: self.name.to_owned(),
            role: usize::try_from(self.role)
                .ok()
                .and_then(|number| Role::ALL.get(number).copied())
                .ok_or_else(|| corrupt("role"))?,
            modules: self.modules.map(split),
            payloads: self.payloads,
            verifier: Verifier::from_bytes(self.verifier),
            created_at: self.created_at,
            created_by: self.created_by.to_owned(),
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
        })
    }
}

/// The generation that keys say: a key is never deleted, so each that is made or revoked moves it on.
pub(crate) fn generation(keys: &[Key]) -> i64 {
    let revoked = keys.iter().filter(|key| key.revoked_at.is_some()).count();
    (keys.len() + revoked) as i64
}

/// What becomes of a key that is to be revoked at a time. [`Revoked::Done`] has the key as it is to be stored.
pub(crate) fn revoke(there: &[Key], id: KeyId, now: Timestamp) -> Revoked {
    let Some(found) = there.iter().find(|key| key.id == id) else {
        return Revoked::NotFound;
    };
    if found.revoked_at.is_some() {
        return Revoked::Before(found.clone());
    }
    if !key::may_revoke(there, id) {
        return Revoked::Last;
    }
    Revoked::Done(Key {
        revoked_at: Some(now),
        ..found.clone()
    })
}

/// The id of the key that a record names.
pub(crate) fn key_id(text: Option<&str>) -> Result<Option<KeyId>> {
    let read = |text: &str| text.parse();
    let id = text.map(read).transpose();
    id.map_err(|_| Error::Corrupt("a record names a key that is none".to_owned()))
}
