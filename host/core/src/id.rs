//! Ids of events and runs: ULIDs, so that they sort by time and land side by side in a table.
//!
//! Absent on purpose: making them up. The time and the random bits are arguments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use ulid::Ulid;

use crate::time::Timestamp;

/// A text that is not a ULID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an id: 26 characters of Crockford's base 32")]
pub struct InvalidId(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// From a time and 80 random bits.
            pub fn from_parts(time: Timestamp, random: [u8; 10]) -> $name {
                let mut bytes = [0; 16];
                bytes[..6].copy_from_slice(&time.as_millis_u64().to_be_bytes()[2..]);
                bytes[6..].copy_from_slice(&random);
                $name(Ulid::from_bytes(bytes))
            }

            /// From a time and what it stands for: asked again with the same, it is the same id. `parts` are told apart
            /// by their order and lengths.
            pub fn derived(time: Timestamp, parts: &[&[u8]]) -> $name {
                let mut hash = Sha256::new();
                for part in parts {
                    hash.update((part.len() as u64).to_be_bytes());
                    hash.update(part);
                }
                let mut random = [0; 10];
                random.copy_from_slice(&hash.finalize()[..10]);
                $name::from_parts(time, random)
            }

            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(Ulid::from_bytes(bytes))
            }

            /// Its 16 bytes, big-endian: they sort as the ids do.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// The time in it.
            pub fn time(self) -> Timestamp {
                Timestamp::from_millis(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0.array_to_str(&mut [0; ulid::ULID_LEN]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<$name, InvalidId> {
                // The first character holds three bits only: a greater one would wrap around silently.
                match text.as_bytes().first() {
                    Some(b'0'..=b'7') => {}
                    _ => return Err(InvalidId(text.to_owned())),
                }
                Ulid::from_string(text).map($name).map_err(|_| InvalidId(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// The id of a received event.
    EventId
}
id! {
    /// The id of a run.
    RunId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_time_order_and_round_trips() {
        let early = RunId::from_parts(Timestamp::from_millis(1_000), [0xff; 10]);
        let late = RunId::from_parts(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early < late);
        assert!(early.to_bytes() < late.to_bytes());
        assert_eq!(early.time(), Timestamp::from_millis(1_000));
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(early.to_string().len(), 26);
    }

    #[test]
    fn a_derived_id_is_the_same_again_and_tells_its_parts_apart() {
        let at = Timestamp::from_millis(1_000);
        let id = |parts: &[&[u8]]| RunId::derived(at, parts);
        assert_eq!(id(&[b"ab", b"c"]), id(&[b"ab", b"c"]));
        assert_ne!(id(&[b"ab", b"c"]), id(&[b"a", b"bc"]));
        assert_ne!(id(&[b"ab", b"c"]), id(&[b"c", b"ab"]));
        assert_eq!(id(&[b"ab"]).time(), at);
    }

    #[test]
    fn refuses_what_is_not_one() {
        for text in [
            "",
            "x",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "01ARZ3NDEKTSV4RRFFQ69G5FAUU",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
