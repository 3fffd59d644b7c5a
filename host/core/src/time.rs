//! Points in time, as the whole project stores and shows them: Unix milliseconds inside, RFC 3339 UTC outside.
//!
//! Absent on purpose: reading a clock. Whoever needs the time is given it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The last instant RFC 3339 can write: the end of the year 9999.
const MILLIS_MAX: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// The latest representable time; arithmetic saturates here.
    pub const MAX: Timestamp = Timestamp(MILLIS_MAX);

    /// From Unix milliseconds, clamped to 1970..=9999.
    pub const fn from_millis(millis: i64) -> Timestamp {
        if millis < 0 {
            Timestamp(0)
        } else if millis > MILLIS_MAX {
            Timestamp(MILLIS_MAX)
        } else {
            Timestamp(millis)
        }
    }

    /// Unix milliseconds.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Unix milliseconds, unsigned as the guest contract has them.
    pub const fn as_millis_u64(self) -> u64 {
        self.0 as u64
    }

    /// This time plus a duration, to the millisecond, saturating.
    pub fn after(self, duration: Duration) -> Timestamp {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.0.saturating_add(millis))
    }

    /// This time minus a duration, to the millisecond, saturating at the epoch.
    pub fn before(self, duration: Duration) -> Timestamp {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// When the text is not an RFC 3339 time with an offset.
    pub fn parse(text: &str) -> Result<Timestamp, InvalidTime> {
        text.parse::<jiff::Timestamp>()
            .map(|time| Timestamp::from_millis(time.as_millisecond()))
            .map_err(|_| InvalidTime(text.to_owned()))
    }
}

/// A text that is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an RFC 3339 time such as 2026-11-22T18:00:00Z")]
pub struct InvalidTime(pub String);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_rfc_3339_with_milliseconds() {
        let time = Timestamp::from_millis(1_790_000_000_120);
        assert_eq!(time.to_string(), "2026-09-21T14:13:20.120Z");
        assert_eq!(Timestamp::parse("2026-09-21T16:13:20.12+02:00"), Ok(time));
        assert!(Timestamp::parse("yesterday").is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.after(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.before(Duration::MAX), Timestamp::EPOCH);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::MAX), Duration::ZERO);
    }
}
