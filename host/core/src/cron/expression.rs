//! Cron expressions in time zones.
//!
//! Reading expressions and counting through the calendar is the crate croner's. Where the clock changes, it does as
//! Vixie's cron: an expression of a single minute and hour ticks once a day, so in a gap at the gap's end, and of an hour
//! that comes twice in the first; any other ticks by the clock on the wall, not in the one and in both of the other. Absent
//! on purpose: seconds and years.

use std::sync::OnceLock;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::limit;
use crate::time::Timestamp;

/// An expression of five fields in a time zone: `TZ=Europe/Paris 0 9 * * 1-5`.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
}

/// The time at which expressions are tried out: one that has no tick after it never has.
const TRIED_AT: Timestamp = Timestamp::from_millis(946_684_800_000);

impl Cron {
    /// Reads an expression: minute, hour, day of the month, month, day of the week, or one of `@hourly`, `@daily`,
    /// `@weekly`, `@monthly`, `@yearly`; before it `TZ=` and the name of a time zone, or else it is UTC.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let refuse = |reason: String| format!("cron \"{}\": {reason}", shown(text));
        if text.len() > limit::CRON_BYTES_MAX {
            let reason = format!("it is longer than {} bytes", limit::CRON_BYTES_MAX);
            return Err(refuse(reason));
        }
        let (zone, fields) = match text.strip_prefix("TZ=").or(text.strip_prefix("CRON_TZ=")) {
            Some(rest) => rest.split_once(' ').ok_or_else(|| {
                refuse("an expression follows the time zone: TZ=Europe/Paris 0 9 * * *".to_owned())
            })?,
            None => ("UTC", text),
        };
        let zone = time_zones().get(zone).map_err(|_| {
            refuse(format!(
                "\"{zone}\" is not a time zone such as Europe/Paris or UTC"
            ))
        })?;
        let count = fields.split_whitespace().count();
        let nickname = count == 1 && fields.trim_start().starts_with('@');
        if count != 5 && !nickname {
            return Err(refuse(format!(
                "it has {count} fields, not five: minute, hour, day of the month, month, day of the week"
            )));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let pattern = parser.parse(fields).map_err(|error| refuse(error.to_string()))?;
        let cron = Cron { pattern, zone };
        if cron.next(TRIED_AT).is_none() {
            return Err(refuse("it never comes".to_owned()));
        }
        Ok(cron)
    }

    /// The name of its time zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// Its first tick after a time. None: there is none within what can be counted.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?;
        let start = start.to_zoned(self.zone.clone());
        let found = self.pattern.find_next_occurrence(&start, false).ok()?;
        let found = Timestamp::from_millis(found.timestamp().as_millisecond());
        (found > after && found < Timestamp::MAX).then_some(found)
    }
}

/// The time zones that come with this release.
fn time_zones() -> &'static TimeZoneDatabase {
    static ZONES: OnceLock<TimeZoneDatabase> = OnceLock::new();
    ZONES.get_or_init(TimeZoneDatabase::bundled)
}

/// An expression, short enough to be read.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    /// The ticks after a time, as many as are expected.
    fn assert_ticks(cron: &str, after: &str, expected: &[&str]) {
        let cron = Cron::parse(cron).expect("valid");
        let mut at = time(after);
        for tick in expected {
            at = cron.next(at).expect("another");
            assert_eq!(at, time(tick), "{cron:?}");
        }
    }

    #[test]
    fn ticks_are_by_the_wall_clock_of_their_zone() {
        assert_ticks(
            "0 9 * * *",
            "2026-11-25T08:59:59.999Z",
            &["2026-11-25T09:00:00Z", "2026-11-26T09:00:00Z"],
        );
        assert_ticks(
            "TZ=Europe/Paris 0 9 * * *",
            "2026-03-27T08:00:00Z",
            // Summer time begins on the 29th.
            &["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"],
        );
        assert_ticks(
            "CRON_TZ=Asia/Kathmandu 30 0 1 */6 *",
            "2026-01-01T00:00:00Z",
            &["2026-06-30T18:45:00Z", "2026-12-31T18:45:00Z"],
        );
        // Of day of the month and day of the week either will do.
        assert_ticks(
            "0 0 13 * FRI",
            "2026-02-07T00:00:00Z",
            &["2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"],
        );
        assert_ticks("0 12 L * *", "2026-02-01T00:00:00Z", &["2026-02-28T12:00:00Z"]);
        assert_ticks("0 12 15W * *", "2026-11-01T00:00:00Z", &["2026-11-16T12:00:00Z"]);
        assert_ticks(
            "0 12 * * FRI#2",
            "2026-11-01T00:00:00Z",
            &["2026-11-13T12:00:00Z"],
        );
        assert_ticks("0 12 * * 7", "2026-11-25T00:00:00Z", &["2026-11-29T12:00:00Z"]);
        assert_ticks(
            "*/20 9-10 1,15 JAN-FEB *",
            "2026-01-01T10:39:00Z",
            &["2026-01-01T10:40:00Z", "2026-01-15T09:00:00Z"],
        );
        assert_ticks("0 0 29 2 *", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        assert_ticks(
            "TZ=UTC @hourly",
            "2026-01-01T00:00:00Z",
            &["2026-01-01T01:00:00Z"],
        );
    }

    #[test]
    fn a_fixed_time_ticks_once_a_day_also_where_the_clock_changes() {
        // There is no half past two on that day: it ticks when the gap ends.
        assert_ticks(
            "TZ=Europe/Paris 30 2 * * *",
            "2026-03-28T12:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        );
        // And on this one there are two: it ticks in the first.
        assert_ticks(
            "TZ=Europe/Paris 30 2 * * *",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        );
        // In the middle of the second of them, the next day is next.
        assert_ticks(
            "TZ=Europe/Paris 30 2 * * *",
            "2026-10-25T01:10:00Z",
            &["2026-10-26T01:30:00Z"],
        );
    }

    #[test]
    fn what_is_not_fixed_ticks_as_often_as_its_time_is() {
        assert_ticks(
            "TZ=Europe/Paris 30 * * * *",
            "2026-03-29T00:00:00Z",
            &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
        );
        assert_ticks(
            "TZ=Europe/Paris 30 * * * *",
            "2026-10-24T23:45:00Z",
            &[
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:30:00Z",
            ],
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (text, word) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 * * * * *", "6 fields"),
            ("60 * * * *", "cron \"60 * * * *\""),
            ("* * 32 * *", "cron"),
            ("* * * 13 *", "cron"),
            ("a * * * *", "cron"),
            ("@fortnightly", "cron"),
            ("TZ=Europe/Paris", "follows the time zone"),
            ("TZ=Middle/Earth 0 9 * * *", "\"Middle/Earth\" is not a time zone"),
            ("0 0 30 2 *", "never comes"),
            (&"*".repeat(10_000), "longer than"),
        ] {
            let refused = Cron::parse(text).expect_err(text);
            assert!(refused.contains(word), "{text}: {refused}");
        }
    }

    /// The zones that the property is tried in: ordinary ones, one whose clocks change by half an hour, and ones at both
    /// ends of the day.
    const ZONES: [&str; 6] = [
        "UTC",
        "Europe/Paris",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/St_Johns",
    ];

    /// A field as it is written, and whether a value is meant by it.
    #[derive(Clone, Debug)]
    enum Field {
        Any,
        Every(i8),
        Fixed(i8),
        Either(i8, i8),
    }

    impl Field {
        fn text(&self) -> String {
            match self {
                Field::Any => "*".to_owned(),
                Field::Every(step) => format!("*/{step}"),
                Field::Fixed(value) => value.to_string(),
                Field::Either(one, other) => format!("{one},{other}"),
            }
        }

        fn means(&self, value: i8) -> bool {
            match self {
                Field::Any => true,
                Field::Every(step) => value % step == 0,
                Field::Fixed(fixed) => value == *fixed,
                Field::Either(one, other) => value == *one || value == *other,
            }
        }
    }

    fn field(most: i8) -> impl Strategy<Value = Field> {
        prop_oneof![
            Just(Field::Any),
            (2..most.min(20)).prop_map(Field::Every),
            (0..most).prop_map(Field::Fixed),
            (0..most / 2, most / 2..most).prop_map(|(one, other)| Field::Either(one, other)),
        ]
    }

    /// The ticks of an expression of minute and hour between two times, minute by minute: the plain statement of the rule.
    fn by_the_minute(zone: &TimeZone, minute: &Field, hour: &Field, from: i64, to: i64) -> Vec<i64> {
        let fixed = matches!((minute, hour), (Field::Fixed(_), Field::Fixed(_)));
        let civil = |at: i64| {
            let at = jiff::Timestamp::from_second(at).expect("in range");
            at.to_zoned(zone.clone()).datetime()
        };
        let mut ticks = Vec::new();
        let mut at = from;
        while at <= to {
            let (before, here) = (civil(at - 60), civil(at));
            let jumped = before.saturating_add(jiff::Span::new().minutes(1));
            let means = |time: jiff::civil::DateTime| minute.means(time.minute()) && hour.means(time.hour());
            let mut tick = means(here);
            if fixed && here > jumped {
                // A gap: whether its time was in it.
                let mut missing = jumped;
                while missing < here {
                    tick |= means(missing);
                    missing = missing.saturating_add(jiff::Span::new().minutes(1));
                }
            }
            if fixed && tick {
                // Not in the second of two.
                let first = zone.to_ambiguous_zoned(here).earlier().expect("is there");
                tick = first.timestamp().as_second() == at;
            }
            if tick {
                ticks.push(at);
            }
            at += 60;
        }
        ticks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn ticks_are_those_that_counting_minutes_finds(
            zone in 0..ZONES.len(),
            minute in field(60),
            hour in field(24),
            day in 0_i64..800,
            second in 0_i64..86_400,
        ) {
            let name = ZONES[zone];
            let zone = time_zones().get(name).expect("a zone");
            // Around changes of the clock, mostly: those after some day of 2025 on.
            let begin = jiff::Timestamp::from_second(1_735_689_600 + day * 86_400 + second).expect("in range");
            let near = zone.following(begin).next().map_or(begin, |change| change.timestamp());
            let from = (near.as_second() - 86_400 + second) / 60 * 60;
            let to = from + 2 * 86_400;
            let expected = by_the_minute(&zone, &minute, &hour, from, to);
            let text = format!("TZ={name} {} {} * * *", minute.text(), hour.text());
            let cron = Cron::parse(&text).expect("valid");
            let mut found = Vec::new();
            let mut at = Timestamp::from_millis(from * 1_000 - 1);
            while let Some(next) = cron.next(at) {
                prop_assert!(next > at);
                at = next;
                if at.as_millis() > to * 1_000 {
                    break;
                }
                found.push(at.as_millis() / 1_000);
            }
            prop_assert_eq!(found, expected, "{} from {}", text, from);
        }
    }
}
