//! Texts and failures as guests give them, made into what the rest may rely on.

use dormouse_core::{Failure, Json, Outcome, Retry, limit};

use crate::bindings::types;

/// Checks a payload.
///
/// # Errors
/// `output-too-large` or `invalid-json`; `what` names it. Neither gets better by trying again.
pub(crate) fn payload(text: &str, what: &str) -> Result<Json, Failure> {
    within(text.len(), what)?;
    Json::parse(text).map_err(|error| Failure::terminal("invalid-json", format!("{what} is {error}")))
}

/// Checks a payload's size alone.
pub(crate) fn within(bytes: usize, what: &str) -> Result<(), Failure> {
    if bytes > limit::OUTPUT_BYTES_MAX {
        return Err(Failure::terminal(
            "output-too-large",
            format!(
                "{what} has {bytes} bytes; {} is the most. Keep large data elsewhere and pass its address",
                limit::OUTPUT_BYTES_MAX
            ),
        ));
    }
    Ok(())
}

/// Checks a step's name.
///
/// # Errors
/// `invalid-name`.
pub(crate) fn step_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() {
        return Err(Failure::terminal(
            "invalid-name",
            "a step needs a name; this one's is empty",
        ));
    }
    if name.len() > limit::STEP_NAME_BYTES_MAX {
        return Err(Failure::terminal(
            "invalid-name",
            format!(
                "a step's name has {} bytes; {} is the most: \"{}…\"",
                name.len(),
                limit::STEP_NAME_BYTES_MAX,
                cut(name, 40)
            ),
        ));
    }
    Ok(())
}

/// The longest beginning of a text that has at most this many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Cuts a text to size, with a note when something was lost.
pub(crate) fn cut_with_note(text: String, bytes: usize) -> String {
    if text.len() <= bytes {
        return text;
    }
    format!("{} … ({} bytes in all)", cut(&text, bytes), text.len())
}

/// A guest's failure as the host keeps it: everything within its limit, bad details left out.
pub(crate) fn failure(failure: types::Failure) -> Failure {
    let mut message = cut_with_note(failure.message, limit::FAILURE_MESSAGE_BYTES_MAX);
    let details = match failure
        .details
        .map(|text| payload(&text, "the failure's details"))
    {
        None => None,
        Some(Ok(details)) => Some(details),
        Some(Err(why)) => {
            message.push_str(&format!(" (its details were left out: {})", why.message));
            None
        }
    };
    Failure {
        message,
        code: failure
            .code
            .map(|code| cut(&code, limit::FAILURE_CODE_BYTES_MAX).to_owned()),
        details,
        retry: match failure.retry {
            types::Retry::Default => Retry::Default,
            types::Retry::Never => Retry::Never,
            types::Retry::After(millis) => Retry::After(millis),
        },
    }
}

/// A failure as the guest gets it.
pub(crate) fn failure_to_guest(failure: Failure) -> types::Failure {
    types::Failure {
        message: failure.message,
        code: failure.code,
        details: failure.details.map(|details| details.as_str().to_owned()),
        retry: match failure.retry {
            Retry::Default => types::Retry::Default,
            Retry::Never => types::Retry::Never,
            Retry::After(millis) => types::Retry::After(millis),
        },
    }
}

/// An outcome as the guest gets it.
pub(crate) fn outcome_to_guest(outcome: Outcome) -> Result<String, types::Failure> {
    match outcome {
        Ok(json) => Ok(json.as_str().to_owned()),
        Err(failure) => Err(failure_to_guest(failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_too_long_or_no_json() {
        let code = |result: Result<Json, Failure>| result.expect_err("refused").code.expect("has a code");
        assert_eq!(code(payload("{", "the output")), "invalid-json");
        let large = format!("\"{}\"", "x".repeat(limit::OUTPUT_BYTES_MAX));
        assert_eq!(code(payload(&large, "the output")), "output-too-large");
        assert!(step_name("").is_err());
        assert!(step_name(&"ä".repeat(128)).is_err());
        assert!(step_name(&"ä".repeat(127)).is_ok());
    }

    #[test]
    fn keeps_a_failure_whose_details_are_bad() {
        let kept = failure(types::Failure {
            message: "ä".repeat(limit::FAILURE_MESSAGE_BYTES_MAX),
            code: Some("ä".repeat(limit::FAILURE_CODE_BYTES_MAX)),
            details: Some("{".to_owned()),
            retry: types::Retry::After(7),
        });
        assert_eq!(kept.details, None);
        assert_eq!(kept.retry, Retry::After(7));
        assert!(kept.message.contains("bytes in all") && kept.message.contains("left out"));
        assert!(kept.code.expect("kept").len() <= limit::FAILURE_CODE_BYTES_MAX);
    }
}
