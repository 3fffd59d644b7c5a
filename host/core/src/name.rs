//! Names of modules and functions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest module or function name.
pub const NAME_CHARS_MAX: usize = 63;

/// A text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a name: a lower-case letter, then at most 62 lower-case letters, digits and hyphens")]
pub struct InvalidName(pub String);

/// Checks a module's or a function's name: `[a-z][a-z0-9-]{0,62}`.
///
/// # Errors
/// When the text is anything else.
pub fn check(text: &str) -> Result<(), InvalidName> {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = text.len() <= NAME_CHARS_MAX
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && text.bytes().all(rest);
    if fits {
        Ok(())
    } else {
        Err(InvalidName(text.to_owned()))
    }
}

/// A function's full name: `module/function`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName {
    module: String,
    function: String,
}

impl FunctionName {
    /// From both parts.
    ///
    /// # Errors
    /// When one of them is not a name.
    pub fn new(module: &str, function: &str) -> Result<FunctionName, InvalidName> {
        check(module)?;
        check(function)?;
        Ok(FunctionName {
            module: module.to_owned(),
            function: function.to_owned(),
        })
    }

    /// The module's name.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// The function's id within its module.
    pub fn function(&self) -> &str {
        &self.function
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.module, self.function)
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FunctionName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<FunctionName, InvalidName> {
        let (module, function) = text.split_once('/').ok_or_else(|| InvalidName(text.to_owned()))?;
        FunctionName::new(module, function)
    }
}

impl Serialize for FunctionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FunctionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FunctionName, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_and_refuses_the_rest() {
        for name in ["a", "hello-world", "a1", &"a".repeat(63)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "1a", "-a", "A", "a_b", "a/b", "ä", &"a".repeat(64)] {
            assert!(check(name).is_err(), "{name}");
        }
        assert!("a/b/c".parse::<FunctionName>().is_err());
    }
}
