//! JSON texts that are carried, not interpreted.
//!
//! Payloads go from the client to the guest and back as the text they came as: a number of thirty digits keeps all of
//! them, and members keep their order. Absent on purpose: a value tree.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// A text known to be one JSON value. Cheap to clone; equal when the texts are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON: {0}")]
pub struct InvalidJson(pub String);

impl Json {
    /// `null`.
    pub fn null() -> Json {
        Json(Arc::from("null"))
    }

    /// Checks a text.
    ///
    /// # Errors
    /// When it is not exactly one JSON value; says where.
    pub fn parse(text: &str) -> Result<Json, InvalidJson> {
        serde_json::from_str::<&RawValue>(text)
            .map(|raw| Json(Arc::from(raw.get())))
            .map_err(|error| InvalidJson(error.to_string()))
    }

    /// Takes a text from where only checked texts are kept, such as the journal.
    pub fn trusted(text: impl Into<Arc<str>>) -> Json {
        Json(text.into())
    }

    /// Serialises a value.
    ///
    /// # Errors
    /// When the value has no JSON form, such as a map with keys that are not strings.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Json, InvalidJson> {
        serde_json::to_string(value)
            .map(|text| Json(Arc::from(text)))
            .map_err(|error| InvalidJson(error.to_string()))
    }

    /// Reads it into a type.
    ///
    /// # Errors
    /// When it does not have that shape.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, InvalidJson> {
        serde_json::from_str(&self.0).map_err(|error| InvalidJson(error.to_string()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Length of the text in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How deep arrays and objects nest in it: 0 for a plain value.
    pub fn depth(&self) -> usize {
        let (mut depth, mut deepest) = (0_usize, 0_usize);
        let (mut quoted, mut escaped) = (false, false);
        for byte in self.0.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        deepest
    }

    /// Never true: a JSON text has at least one character.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Json(Arc::from(raw.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_as_it_came() {
        let text = r#"{"b":123456789012345678901234567890,"a":1.0}"#;
        let json = Json::parse(&format!("  {text}\n")).expect("valid");
        assert_eq!(json.as_str(), text);
        assert_eq!(serde_json::to_string(&json).expect("serialises"), text);
        assert!(Json::parse("{} {}").is_err());
        assert!(Json::parse("").is_err());
    }
}
