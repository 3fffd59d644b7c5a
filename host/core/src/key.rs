//! Keys: what they look like, what is stored of them, and what their holders may do.
//!
//! A key is 256 random bits with a public id before them. Stored is the digest of the digest of these bits. Plain SHA-256 is
//! right for that: a slow or salted hash protects words that people think of, which can be guessed one by one; nobody
//! guesses 256 random bits, and no table can list them. The digest is taken twice since clients of Inngest send the first
//! one in the place of their key: what is stored can be presented in no form.
//!
//! Absent on purpose: randomness, time and where keys are kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::time::Timestamp;

/// The longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// A key may be limited to so many modules.
pub const MODULES_MAX: usize = 100;

/// A key's public name: twelve hexadecimal digits. It is part of the key, and says in lists and records which one it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 6]);

/// A text that is not the id of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the id of a key: twelve hexadecimal digits")]
pub struct InvalidKeyId(String);

impl KeyId {
    /// From six random bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> KeyId {
        KeyId(bytes)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<KeyId, InvalidKeyId> {
        // What is not one may be a whole key: it is not repeated beyond an id's length.
        let shown = || InvalidKeyId(text.chars().take(12).collect());
        unhex(text).map(KeyId).ok_or_else(shown)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sending events, and nothing else.
    Event,
    /// The API and the pages, as far as its role goes.
    Api,
}

impl Kind {
    /// The word in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::Api => "api",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Kind::Event => "dormouse_event_",
            Kind::Api => "dormouse_api_",
        }
    }
}

/// What the holder of an API key may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Start, cancel, rerun, wake, pause: whatever is done to runs and functions.
    Operator,
    /// Upload, activate and delete versions.
    Deployer,
    /// Keys and the audit log.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::Deployer, Role::Admin];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Deployer => "deployer",
            Role::Admin => "admin",
        }
    }

    /// The role of a word.
    pub fn parse(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// The secret part of a key. It is shown once, and never by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    /// What is stored of it.
    pub fn verifier(&self) -> Verifier {
        verifier(*Digest::of(&self.0).as_bytes())
    }

    /// The whole key, as its holder gets it.
    pub fn text(&self, kind: Kind, id: KeyId) -> String {
        format!("{}{id}_{}", kind.prefix(), hex(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is stored of a key's secret: the digest of its digest.
#[derive(Clone, Copy)]
pub struct Verifier([u8; 32]);

impl Verifier {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Verifier {
        Verifier(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// In the same time whatever they are: how long it takes says nothing about where they differ.
impl PartialEq for Verifier {
    fn eq(&self, other: &Verifier) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl Eq for Verifier {}

fn verifier(digest: [u8; 32]) -> Verifier {
    Verifier(*Digest::of(&digest).as_bytes())
}

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    /// What its holder may do; an event key's says nothing.
    pub role: Role,
    /// Only with these modules. None: with all.
    pub modules: Option<Vec<String>>,
    /// Whether its holder sees event data, outputs, logs and journals.
    pub payloads: bool,
    /// What its secret is compared with.
    pub verifier: Verifier,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// From when on it is good for nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Key {
    /// Whether it is good for anything.
    pub fn lives(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }

    /// What recognises it: the beginning of the key.
    pub fn prefix(&self) -> String {
        format!("{}{}", self.kind.prefix(), self.id)
    }

    /// Whether its holder can always make other keys: nobody is locked out while one such is there.
    pub fn keeps_the_door_open(&self) -> bool {
        self.kind == Kind::Api
            && self.role == Role::Admin
            && self.expires_at.is_none()
            && self.revoked_at.is_none()
    }
}

/// Why a key is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// While there is no API key, everything is open. The first one closes it, so it must be one that can make others.
    FirstMustBeAdmin,
    /// There are enough of them.
    TooMany,
    /// Its id is another's.
    Taken,
}

/// Whether a key may be made beside those there are.
///
/// # Errors
/// Why not.
pub fn may_create(there: &[Key], new: &Key) -> Result<(), Refused> {
    if there.iter().any(|key| key.id == new.id) {
        return Err(Refused::Taken);
    }
    if !is_closed(there) && !new.keeps_the_door_open() {
        return Err(Refused::FirstMustBeAdmin);
    }
    let kept = there.iter().filter(|key| key.revoked_at.is_none()).count();
    if kept >= crate::limit::KEYS_MAX {
        return Err(Refused::TooMany);
    }
    Ok(())
}

/// Whether revoking a key leaves somebody who can make others.
pub fn may_revoke(there: &[Key], id: KeyId) -> bool {
    let (own, others): (Vec<&Key>, Vec<&Key>) = there.iter().partition(|key| key.id == id);
    !own.iter().any(|key| key.keeps_the_door_open()) || others.iter().any(|key| key.keeps_the_door_open())
}

/// Whether keys are asked for at all: from the first API key on, whatever becomes of it.
pub fn is_closed(there: &[Key]) -> bool {
    there.iter().any(|key| key.kind == Kind::Api)
}

/// A key that somebody shows.
#[derive(Debug, Clone)]
pub struct Presented {
    /// What it says it is; a key in the form of Inngest's signing keys says nothing.
    kind: Option<Kind>,
    /// The id it says it has.
    pub id: KeyId,
    /// One of these is its verifier.
    verifiers: [Verifier; 2],
}

impl Presented {
    /// Reads a key in any form: `dormouse_api_ID_SECRET`, `dormouse_event_ID_SECRET`, and for clients of Inngest
    /// `signkey-ID-SECRET`, where the secret may also be its digest. None: it is no key of ours.
    pub fn parse(text: &str) -> Option<Presented> {
        let ours = [Kind::Api, Kind::Event]
            .into_iter()
            .find_map(|kind| Some((Some(kind), text.strip_prefix(kind.prefix())?.split_once('_')?)));
        let (kind, (id, secret)) = match ours {
            Some(found) => found,
            None => (None, text.strip_prefix("signkey-")?.split_once('-')?),
        };
        let id = unhex(id).map(KeyId)?;
        let secret: [u8; 32] = unhex(secret)?;
        let plain = Secret(secret).verifier();
        let verifiers = match kind {
            Some(_) => [plain, plain],
            None => [plain, verifier(secret)],
        };
        Some(Presented { kind, id, verifiers })
    }

    /// Whether it is this key.
    pub fn is(&self, key: &Key) -> bool {
        let kind = match self.kind {
            Some(kind) => kind == key.kind,
            None => key.kind == Kind::Api,
        };
        let [plain, digested] = self.verifiers.map(|verifier| verifier == key.verifier);
        kind & (self.id == key.id) & (plain | digested)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: KeyId = KeyId([0x3f, 0x9c, 0x2a, 0x1b, 0x7e, 0x60]);
    const SECRET: Secret = Secret([0xa5; 32]);

    fn key(id: u8, kind: Kind, role: Role) -> Key {
        Key {
            id: KeyId([id; 6]),
            kind,
            name: "a key".to_owned(),
            role,
            modules: None,
            payloads: false,
            verifier: Secret([id; 32]).verifier(),
            created_at: Timestamp::from_millis(0),
            created_by: "open".to_owned(),
            expires_at: None,
            revoked_at: None,
        }
    }

    fn stored(kind: Kind) -> Key {
        Key {
            id: ID,
            verifier: SECRET.verifier(),
            ..key(0, kind, Role::Viewer)
        }
    }

    fn is(text: &str, key: &Key) -> bool {
        Presented::parse(text).is_some_and(|presented| presented.is(key))
    }

    #[test]
    fn a_key_is_recognised_in_its_forms_and_what_is_stored_is_none_of_them() {
        let (api, event) = (stored(Kind::Api), stored(Kind::Event));
        let (secret, digest) = (hex(&SECRET.0), Digest::of(&SECRET.0).hex());
        assert!(is(&SECRET.text(Kind::Api, ID), &api));
        assert!(is(&SECRET.text(Kind::Event, ID), &event));
        assert!(!is(&SECRET.text(Kind::Event, ID), &api), "it says what it is");
        assert!(!is(&SECRET.text(Kind::Api, ID), &event));
        assert!(is(&format!("signkey-{ID}-{secret}"), &api));
        assert!(
            is(&format!("signkey-{ID}-{digest}"), &api),
            "as Inngest's clients send it"
        );
        assert!(!is(&format!("signkey-{ID}-{secret}"), &event));
        let kept = hex(api.verifier.as_bytes());
        for form in [
            format!("signkey-{ID}-{kept}"),
            format!("dormouse_api_{ID}_{kept}"),
            format!("dormouse_api_{ID}_{digest}"),
        ] {
            assert!(!is(&form, &api), "{form}");
        }
    }

    #[test]
    fn what_is_not_whole_or_another_s_is_no_key() {
        let text = SECRET.text(Kind::Api, ID);
        let api = stored(Kind::Api);
        for wrong in [
            "",
            "x",
            "dormouse_api_",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace("a5a5", "a5é"),
            &text.replace("3f9c", "3f9d"),
            &format!("{}b", &text[..text.len() - 1]),
        ] {
            assert!(!is(wrong, &api), "{wrong}");
        }
        assert!(!format!("{SECRET:?}{:?}", api.verifier).contains("a5"));
        let told = "dormouse_api_3f9c2a1b7e60_a5a5"
            .parse::<KeyId>()
            .expect_err("no id");
        assert!(!told.to_string().contains("a5a5"), "{told}");
    }

    #[test]
    fn the_first_key_can_make_others_and_the_last_such_stays() {
        let admin = key(1, Kind::Api, Role::Admin);
        let viewer = key(2, Kind::Api, Role::Viewer);
        let event = key(3, Kind::Event, Role::Viewer);
        let soon = Key {
            expires_at: Some(Timestamp::from_millis(9)),
            ..admin.clone()
        };
        for first in [&viewer, &event, &soon] {
            assert_eq!(may_create(&[], first), Err(Refused::FirstMustBeAdmin));
        }
        assert_eq!(may_create(&[], &admin), Ok(()));
        let there = [admin.clone(), viewer.clone()];
        assert_eq!(may_create(&there, &event), Ok(()));
        assert_eq!(may_create(&there, &viewer), Err(Refused::Taken));
        assert!(!may_revoke(&there, admin.id) && may_revoke(&there, viewer.id));
        let second = Key {
            id: KeyId([4; 6]),
            ..admin.clone()
        };
        assert!(may_revoke(&[admin.clone(), second.clone()], admin.id));
        let revoked = Key {
            revoked_at: Some(Timestamp::from_millis(1)),
            ..second
        };
        assert!(!may_revoke(&[admin.clone(), revoked.clone()], admin.id));
        assert!(is_closed(&[revoked]), "it does not open again");
        assert!(!is_closed(&[event]));
    }

    #[test]
    fn there_are_only_so_many() {
        let many: Vec<Key> = (0..crate::limit::KEYS_MAX)
            .map(|number| Key {
                id: KeyId([0, 0, 0, 0, (number >> 8) as u8, number as u8]),
                ..key(0, Kind::Api, Role::Admin)
            })
            .collect();
        let one_more = key(0xff, Kind::Event, Role::Viewer);
        assert_eq!(may_create(&many, &one_more), Err(Refused::TooMany));
        assert_eq!(may_create(&many[1..], &one_more), Ok(()));
    }

    #[test]
    fn a_key_lives_until_it_expires_or_is_revoked() {
        let (now, later) = (Timestamp::from_millis(5), Timestamp::from_millis(6));
        let plain = key(1, Kind::Api, Role::Viewer);
        let expiring = Key {
            expires_at: Some(later),
            ..plain.clone()
        };
        let revoked = Key {
            revoked_at: Some(now),
            ..plain.clone()
        };
        assert!(plain.lives(later) && expiring.lives(now));
        assert!(!expiring.lives(later) && !revoked.lives(now));
    }
}
