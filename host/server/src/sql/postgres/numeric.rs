//! Postgres' `numeric` in its binary format: digits of base 10,000, where the first stands, the sign, and how many
//! decimals are shown. Exact both ways, as text.

/// As many decimals as there can be.
const SCALE_MAX: usize = 16_383;
/// As many digits before the point as there can be.
const INTEGRAL_MAX: usize = 131_072;
/// Decimal digits in one of Postgres'.
const WIDTH: usize = 4;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITE: u16 = 0xD000;
const MINUS_INFINITE: u16 = 0xF000;

/// Appends a decimal such as `-12.50` or `1e-3`, or `NaN`, `Infinity`, `-Infinity`. Says why not.
pub(super) fn encode(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let special = match text {
        "NaN" => Some(NAN),
        "Infinity" => Some(INFINITE),
        "-Infinity" => Some(MINUS_INFINITE),
        _ => None,
    };
    if let Some(sign) = special {
        put(out, &[], 0, sign, 0);
        return Ok(());
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (NEGATIVE, rest),
        None => (0, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (integral, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = integral.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("it is not a decimal number".to_owned());
    }
    let beyond = || "it has more digits than Postgres can hold".to_owned();
    let exponent: i64 = match exponent.parse() {
        Ok(exponent) => exponent,
        Err(error) => {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let overflows = matches!(error.kind(), NegOverflow | PosOverflow);
            return Err(if overflows {
                beyond()
            } else {
                "it is not a decimal number".to_owned()
            });
        }
    };
    // Where the point stands in the digits; it may be before or behind all of them.
    let point = i64::try_from(integral.len())
        .map_err(|_| beyond())?
        .saturating_add(exponent);
    let count = i64::try_from(digits.len()).map_err(|_| beyond())?;
    let scale = usize::try_from((count - point).max(0)).map_err(|_| beyond())?;
    let before = usize::try_from(point.max(0)).map_err(|_| beyond())?;
    if scale > SCALE_MAX || before > INTEGRAL_MAX {
        return Err(beyond());
    }
    // Zeros on both sides, until the point stands between two digits of base 10,000.
    let mut padded = vec![b'0'; (WIDTH - before % WIDTH) % WIDTH];
    let leading = usize::try_from((-point).max(0)).map_err(|_| beyond())?;
    padded.extend(std::iter::repeat_n(b'0', leading));
    padded.extend(&digits);
    padded.extend(std::iter::repeat_n(
        b'0',
        usize::try_from((point - count).max(0)).map_err(|_| beyond())?,
    ));
    padded.extend(std::iter::repeat_n(b'0', (WIDTH - padded.len() % WIDTH) % WIDTH));
    let mut groups: Vec<u16> = padded
        .chunks(WIDTH)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0, |group, digit| group * 10 + u16::from(digit - b'0'))
        })
        .collect();
    let mut weight = i64::try_from(before.div_ceil(WIDTH)).map_err(|_| beyond())? - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= i64::try_from(zeros).map_err(|_| beyond())?;
    let (weight, sign) = if groups.is_empty() { (0, 0) } else { (weight, sign) };
    let weight = i16::try_from(weight).map_err(|_| beyond())?;
    let scale = u16::try_from(scale).map_err(|_| beyond())?;
    put(out, &groups, weight, sign, scale);
    Ok(())
}

fn put(out: &mut Vec<u8>, groups: &[u16], weight: i16, sign: u16, scale: u16) {
    // Far fewer than what sixteen bits count: digits are bounded above.
    let count = u16::try_from(groups.len()).unwrap_or(u16::MAX);
    out.extend(count.to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(scale.to_be_bytes());
    for group in groups {
        out.extend(group.to_be_bytes());
    }
}

/// The decimal as text, with as many decimals as Postgres would show. None: these are not the bytes of one.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let word = |index: usize| {
        let pair: [u8; 2] = bytes.get(index * 2..index * 2 + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(pair))
    };
    let (count, weight, sign, scale) = (word(0)?, word(1)?, word(2)?, word(3)?);
    let weight = i32::from(i16::from_be_bytes(weight.to_be_bytes()));
    let mut text = String::new();
    match sign {
        NAN => return Some("NaN".to_owned()),
        INFINITE => return Some("Infinity".to_owned()),
        MINUS_INFINITE => return Some("-Infinity".to_owned()),
        NEGATIVE => text.push('-'),
        _ => {}
    }
    // The group at a power of 10,000; zero where none is written.
    let group = |power: i32| -> Option<u16> {
        match usize::try_from(weight - power) {
            Ok(index) if index < usize::from(count) => word(4 + index),
            _ => Some(0),
        }
    };
    if weight < 0 {
        text.push('0');
    }
    for power in (0..=weight).rev() {
        match power == weight {
            true => text.push_str(&group(power)?.to_string()),
            false => text.push_str(&format!("{:04}", group(power)?)),
        }
    }
    if scale > 0 {
        text.push('.');
        let shown = text.len() + usize::from(scale);
        let mut power = -1;
        while text.len() < shown {
            text.push_str(&format!("{:04}", group(power)?));
            power -= 1;
        }
        text.truncate(shown);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_comes_back() {
        for (text, back) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.00", "0.00"),
            ("1", "1"),
            ("-12.50", "-12.50"),
            ("10000", "10000"),
            ("100000000", "100000000"),
            (
                "123456789012345678901234567890.123456789",
                "123456789012345678901234567890.123456789",
            ),
            ("0.0001", "0.0001"),
            ("0.00001", "0.00001"),
            ("-0.000000000123", "-0.000000000123"),
            ("1e3", "1000"),
            ("1.5E+2", "150"),
            ("1.5e-3", "0.0015"),
            ("12345e-7", "0.0012345"),
            ("+7", "7"),
            ("007.10", "7.10"),
            ("9999.9999", "9999.9999"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
        ] {
            let mut bytes = Vec::new();
            encode(text, &mut bytes).expect(text);
            assert_eq!(decode(&bytes).as_deref(), Some(back), "{text}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_postgres() {
        let mut bytes = Vec::new();
        encode("-1234567.8901", &mut bytes).expect("encodes");
        // Three groups, the first at 10,000^1, negative, four decimals: 123, 4567, 8901.
        assert_eq!(bytes, [0, 3, 0, 1, 0x40, 0, 0, 4, 0, 123, 0x11, 0xD7, 0x22, 0xC5]);
    }

    #[test]
    fn what_is_no_decimal_or_too_long_is_told() {
        for (text, words) in [
            ("", "not a decimal"),
            ("-", "not a decimal"),
            ("1.2.3", "not a decimal"),
            ("seven", "not a decimal"),
            ("1e", "not a decimal"),
            ("1ex", "not a decimal"),
            ("0x10", "not a decimal"),
            ("1e200000", "more digits"),
            ("1e-20000", "more digits"),
            ("1e99999999999999999999", "more digits"),
        ] {
            let reason = encode(text, &mut Vec::new()).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
        assert_eq!(decode(&[0, 1]), None);
        assert_eq!(decode(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 1]), None);
    }
}
