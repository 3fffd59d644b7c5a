//! Postgres' times in their binary format, which counts microseconds or days from 2000-01-01, and as text.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// 2000-01-01T00:00:00Z in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// Why a time of the database has no text: RFC 3339 has years 0 to 9999 only.
const BEYOND: &str = "the time is infinite or outside of the years 0 to 9999";

fn epoch() -> Date {
    jiff::civil::date(2000, 1, 1)
}

pub(super) fn timestamptz(micros: i64) -> Result<String, &'static str> {
    instant(micros).map(|instant| instant.to_string())
}

pub(super) fn timestamp(micros: i64) -> Result<String, &'static str> {
    instant(micros).map(|instant| instant.to_zoned(TimeZone::UTC).datetime().to_string())
}

fn instant(micros: i64) -> Result<Timestamp, &'static str> {
    let since_1970 = micros.checked_add(EPOCH_MICROS).ok_or(BEYOND)?;
    let instant = Timestamp::from_microsecond(since_1970).map_err(|_| BEYOND)?;
    match instant.to_zoned(TimeZone::UTC).year() {
        0.. => Ok(instant),
        _ => Err(BEYOND),
    }
}

pub(super) fn date(days: i32) -> Result<String, &'static str> {
    let span = Span::new().try_days(days).map_err(|_| BEYOND)?;
    let date = epoch().checked_add(span).map_err(|_| BEYOND)?;
    match date.year() {
        0.. => Ok(date.to_string()),
        _ => Err(BEYOND),
    }
}

pub(super) fn time(micros: i64) -> Result<String, &'static str> {
    if micros == DAY_MICROS {
        return Ok("24:00:00".to_owned());
    }
    let midnight = Time::midnight();
    let time = midnight.checked_add(Span::new().microseconds(micros.clamp(0, DAY_MICROS)));
    time.map(|time| time.to_string()).map_err(|_| BEYOND)
}

pub(super) fn read_timestamptz(text: &str) -> Result<i64, String> {
    let instant: Timestamp = text
        .parse()
        .map_err(|_| "it is not a time such as 2026-01-31T12:00:00Z, with Z or an offset".to_owned())?;
    Ok(instant.as_microsecond() - EPOCH_MICROS)
}

pub(super) fn read_timestamp(text: &str) -> Result<i64, String> {
    let time: DateTime = text
        .parse()
        .map_err(|_| "it is not a time such as 2026-01-31T12:00:00, without an offset".to_owned())?;
    let instant = TimeZone::UTC
        .to_timestamp(time)
        .map_err(|error| error.to_string())?;
    Ok(instant.as_microsecond() - EPOCH_MICROS)
}

pub(super) fn read_date(text: &str) -> Result<i32, String> {
    let date: Date = text
        .parse()
        .map_err(|_| "it is not a date such as 2026-01-31".to_owned())?;
    let span = epoch().until(date).map_err(|error| error.to_string())?;
    Ok(span.get_days())
}

pub(super) fn read_time(text: &str) -> Result<i64, String> {
    let time: Time = text
        .parse()
        .map_err(|_| "it is not a time of day such as 12:00:00".to_owned())?;
    let since = time
        .since(Time::midnight())
        .and_then(|span| span.total(jiff::Unit::Microsecond));
    // Less than a day: a float holds that many microseconds exactly.
    since
        .map(|micros| micros as i64)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for text in [
            "2026-01-31T12:34:56.123456Z",
            "1969-12-31T23:59:59.5Z",
            "0001-01-01T00:00:00Z",
            "9999-12-30T00:00:00Z",
        ] {
            let micros = read_timestamptz(text).expect(text);
            assert_eq!(timestamptz(micros).as_deref(), Ok(text));
        }
        assert_eq!(read_timestamptz("2000-01-01T02:00:00+02:00"), Ok(0));
        assert_eq!(read_timestamp("2000-01-02 00:00:00"), Ok(DAY_MICROS));
        assert_eq!(timestamp(1).as_deref(), Ok("2000-01-01T00:00:00.000001"));
        for text in ["2026-02-28", "1999-12-31", "0001-01-01", "9999-12-31"] {
            assert_eq!(date(read_date(text).expect(text)).as_deref(), Ok(text));
        }
        assert_eq!(read_date("2000-01-31"), Ok(30), "days, not months and days");
        for text in ["00:00:00", "23:59:59.999999"] {
            assert_eq!(time(read_time(text).expect(text)).as_deref(), Ok(text));
        }
        assert_eq!(time(DAY_MICROS).as_deref(), Ok("24:00:00"));
    }

    #[test]
    fn what_is_none_is_told() {
        for micros in [i64::MAX, i64::MIN, -70_000_000_000_000_000] {
            assert_eq!(timestamptz(micros), Err(BEYOND), "{micros}");
            assert_eq!(timestamp(micros), Err(BEYOND), "{micros}");
        }
        for days in [i32::MAX, i32::MIN, -800_000] {
            assert_eq!(date(days), Err(BEYOND), "{days}");
        }
        assert!(read_timestamptz("2026-01-31T12:00:00").is_err(), "no offset");
        assert!(read_timestamp("2026-01-31T12:00:00Z").is_err(), "an offset");
        assert!(read_timestamptz("yesterday").is_err());
        assert!(read_date("2026-02-30").is_err());
        assert!(read_time("25:00:00").is_err());
    }
}
