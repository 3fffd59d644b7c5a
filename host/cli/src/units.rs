//! Durations, sizes and times as people write and read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Reads `60s`, `5m`, `1h30m`, `500ms` or `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("\"{text}\" is not a duration such as 500ms, 60s, 5m or 1h30m");
    let signed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// Reads `33554432`, `32MiB`, `64MB` or `1GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "kb" => 1_000,
        "mib" | "m" => 1 << 20,
        "mb" => 1_000_000,
        "gib" | "g" => 1 << 30,
        "gb" => 1_000_000_000,
        _ => 0,
    };
    let wrong = || format!("\"{text}\" is not a size such as 32MiB or 33554432");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    if unit == 0 {
        return Err(wrong());
    }
    number.checked_mul(unit).ok_or_else(wrong)
}

/// A size for people: three digits and a unit.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1_000.0;
        unit += 1;
    }
    if value < 9.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A duration for people: `4 ms`, `1.2 s`, `3m 20s`, `2h 5m`, `3d 4h`.
pub(crate) fn show_duration(duration: SignedDuration) -> String {
    let millis = duration.as_millis().max(0);
    match millis {
        0..=999 => format!("{millis} ms"),
        // Cut, not rounded: "60.0 s" would look like a mistake.
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {}s", millis / 60_000, millis % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{}h {}m", millis / 3_600_000, millis % 3_600_000 / 60_000),
        _ => format!("{}d {}h", millis / 86_400_000, millis % 86_400_000 / 3_600_000),
    }
}

/// How long ago, for tables: `4s ago`. Clocks may differ a little, so the future is "now".
pub(crate) fn show_ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        ..=0 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "soon", "-5s", "5 parsecs"] {
            assert!(
                duration(text).unwrap_err().contains("is not a duration"),
                "{text}"
            );
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, size) in [("32MiB", 32 << 20), ("0", 0), ("1 GB", 1_000_000_000), ("7", 7)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "12 sheep", "99999999999GiB", "-1"] {
            assert!(bytes(text).unwrap_err().contains("is not a size"), "{text}");
        }
    }

    #[test]
    fn shows_what_people_read() {
        for (size, text) in [
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (198_412, "198 kB"),
            (999_600, "1.0 MB"),
        ] {
            assert_eq!(show_bytes(size), text);
        }
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (59_999, "59.9 s"),
            (200_000, "3m 20s"),
            (7_500_000, "2h 5m"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(show_duration(SignedDuration::from_millis(millis)), text);
        }
    }
}
