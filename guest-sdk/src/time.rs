//! Points in time: Unix milliseconds on the contract's side, [`SystemTime`] and RFC 3339 on the function's.
//!
//! Absent: a calendar. The time types of `jiff`, `time` and `chrono` turn into a [`SystemTime`] by `.into()`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A duration in whole milliseconds; a fraction counts as a whole one, so that no wait is shorter than asked for.
pub(crate) fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A Unix time in milliseconds as a [`SystemTime`].
pub fn from_unix_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// A [`SystemTime`] as a Unix time in milliseconds, rounded up; what lies before 1970 is 0.
pub fn to_unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, to_millis)
}

/// What `sleep_until` takes: a [`SystemTime`], or an RFC 3339 text such as `2026-11-22T18:00:00Z`.
pub trait IntoTime {
    /// The Unix time in milliseconds.
    ///
    /// # Errors
    /// A sentence about what is wrong with the text.
    fn into_unix_millis(self) -> Result<u64, String>;
}

impl IntoTime for SystemTime {
    fn into_unix_millis(self) -> Result<u64, String> {
        Ok(to_unix_millis(self))
    }
}

impl IntoTime for &str {
    fn into_unix_millis(self) -> Result<u64, String> {
        parse_rfc3339(self).ok_or_else(|| {
            format!("\"{self}\" is not a time as RFC 3339 has it, such as 2026-11-22T18:00:00Z")
        })
    }
}

impl IntoTime for &String {
    fn into_unix_millis(self) -> Result<u64, String> {
        self.as_str().into_unix_millis()
    }
}

impl IntoTime for String {
    fn into_unix_millis(self) -> Result<u64, String> {
        self.as_str().into_unix_millis()
    }
}

/// Reads `2026-11-22T18:00:00.5+01:00`. Milliseconds since 1970, rounded up; nothing before 1970.
fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !text.is_ascii() {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = &text[from..to];
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| bytes[at] != byte) || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }

    let mut rest = &text[19..];
    let mut nanos = 0u64;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        for place in 0..9 {
            let digit = fraction
                .as_bytes()
                .get(place)
                .filter(|_| place < length)
                .map_or(0, |b| b - b'0');
            nanos = nanos * 10 + u64::from(digit);
        }
        rest = &fraction[length..];
    }
    let offset_minutes = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = rest[1..].split_once(':')?;
            if hours.len() != 2
                || minutes.len() != 2
                || !(hours.to_owned() + minutes).bytes().all(|b| b.is_ascii_digit())
            {
                return None;
            }
            let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
        - offset_minutes * 60;
    let millis = u64::try_from(seconds).ok()?.checked_mul(1_000)?;
    millis.checked_add(nanos.div_ceil(1_000_000))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar: whole years counted from March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months_from_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between the 1st of March of the year 0 and 1970.
    year * 365 + leap_days + (153 * months_from_march + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_read() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-22T18:00:00Z", 1_795_370_400_000),
            ("2026-11-22T19:30:00+01:30", 1_795_370_400_000),
            ("2026-11-22 17:00:00.25-01:00", 1_795_370_400_250),
            ("2024-02-29T23:59:59.9999999999Z", 1_709_251_200_000),
            ("2000-03-01t00:00:00z", 951_868_800_000),
        ];
        for (text, millis) in cases {
            assert_eq!(text.into_unix_millis(), Ok(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_by_its_text() {
        let cases = [
            "",
            "tomorrow",
            "2026-11-22",
            "2026-11-22T18:00:00",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T18:00:00.Z",
            "2026-11-22T18:00:00+1:00",
            "2026-11-22T18:00:00+aa:00",
            "1969-12-31T23:59:59Z",
            "2026-11-22T18:00:00Zx",
            "２026-11-22T18:00:00Z",
        ];
        for text in cases {
            let reason = text.into_unix_millis().expect_err(text);
            assert!(reason.contains(text), "{reason}");
        }
    }

    #[test]
    fn durations_are_rounded_up() {
        assert_eq!(to_millis(Duration::from_nanos(1)), 1);
        assert_eq!(to_millis(Duration::from_millis(7)), 7);
        assert_eq!(to_millis(Duration::MAX), u64::MAX);
    }
}
