//! Secrets of modules: words that stand for them, and the values that take their place in what goes out.
//!
//! A configuration says where a secret is, never what it is; its value is read when a request that needs it is sent, and
//! nothing keeps it. Its placeholder follows from the run's own seed, which nobody outside knows: a text that comes from
//! elsewhere cannot hold one. Absent on purpose: values in the journal, in logs or in errors; what a server sends back of
//! them is put into words again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use dormouse_core::{Digest, Failure};
use dormouse_engine::{FetchRequest, FetchResponse};
use serde::{Deserialize, Serialize};

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Secret {
    /// In an environment variable of the server.
    Env(String),
    /// In a file, without the line break at its end.
    File(PathBuf),
}

/// Shorter values are not looked for in what comes back: they would be found everywhere.
const SOUGHT_BYTES_MIN: usize = 4;

impl Secret {
    fn value(&self, name: &str) -> Result<String, Failure> {
        let value = match self {
            Secret::Env(variable) => std::env::var(variable).ok(),
            Secret::File(path) => std::fs::read_to_string(path)
                .ok()
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        };
        value.filter(|value| !value.is_empty()).ok_or_else(|| {
            let place = match self {
                Secret::Env(variable) => format!("the environment variable {variable}"),
                Secret::File(path) => format!("the file {}", path.display()),
            };
            Failure::new(
                "secret-unavailable",
                format!(
                    "the secret \"{name}\" cannot be read: {place} is not there, is empty or is not UTF-8"
                ),
            )
        })
    }
}

/// The word that stands for a secret in a run.
///
/// # Errors
/// `grant-missing`.
pub(crate) fn placeholder(
    secrets: &BTreeMap<String, Secret>,
    module: &str,
    seed: &[u8; 32],
    name: &str,
) -> Result<String, Failure> {
    if !secrets.contains_key(name) {
        return Err(Failure::terminal(
            "grant-missing",
            format!(
                "module \"{module}\" is not granted a secret \"{name}\": name it in the server's configuration file, \
                 [modules.{module}] secrets.{name} = {{ env = \"VARIABLE\" }}, and send SIGHUP; runs that start \
                 afterwards have it"
            ),
        ));
    }
    Ok(word(seed, name))
}

fn word(seed: &[u8; 32], name: &str) -> String {
    let mut text = b"secret placeholder\0".to_vec();
    text.extend_from_slice(seed);
    text.extend_from_slice(name.as_bytes());
    let digest = Digest::of(&text);
    let hex: String = digest.as_bytes()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("dormouse-secret-{hex}")
}

/// What was put into a request: each word and its value.
pub(crate) struct Filled(Vec<(String, String)>);

/// Puts the secrets into a request, where their words are.
///
/// # Errors
/// `secret-unavailable`, worth another try: the secret may be there then.
pub(crate) fn fill(
    secrets: &BTreeMap<String, Secret>,
    seed: &[u8; 32],
    request: &mut FetchRequest,
) -> Result<Filled, Failure> {
    let mut filled = Vec::new();
    for (name, secret) in secrets {
        let word = word(seed, name);
        let in_body = find(&request.body, word.as_bytes()).is_some();
        let in_headers = request.headers.iter().any(|(_, value)| value.contains(&word));
        if !in_body && !in_headers && !request.url.contains(&word) {
            continue;
        }
        let value = secret.value(name)?;
        request.url = request.url.replace(&word, &escaped(&value));
        for (_, field) in &mut request.headers {
            *field = field.replace(&word, &value);
        }
        if in_body {
            request.body = replace(&request.body, word.as_bytes(), value.as_bytes()).into();
        }
        filled.push((word, value));
    }
    Ok(Filled(filled))
}

impl Filled {
    /// Takes the secrets out of a response again.
    pub(crate) fn conceal(&self, response: &mut FetchResponse) {
        for (word, value) in self.forms().filter(|(_, value)| value.len() >= SOUGHT_BYTES_MIN) {
            for (_, field) in &mut response.headers {
                *field = field.replace(value.as_ref(), word);
            }
            if find(&response.body, value.as_bytes()).is_some() {
                response.body = replace(&response.body, value.as_bytes(), word.as_bytes()).into();
            }
        }
    }

    /// Takes the secrets out of a message.
    pub(crate) fn conceal_text(&self, mut text: String) -> String {
        for (word, value) in self.forms() {
            text = text.replace(value.as_ref(), word);
        }
        text
    }

    /// The words, and the values as they were put in: as they are, and as a part of the URL.
    fn forms(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.0.iter().flat_map(|(word, value)| {
            let forms = [Cow::Borrowed(value.as_str()), Cow::Owned(escaped(value))];
            forms.map(|form| (word.as_str(), form))
        })
    }
}

/// A value as a part of a URL.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

fn replace(mut bytes: &[u8], sought: &[u8], by: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    while let Some(place) = find(bytes, sought) {
        replaced.extend_from_slice(&bytes[..place]);
        replaced.extend_from_slice(by);
        bytes = &bytes[place + sought.len()..];
    }
    replaced.extend_from_slice(bytes);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 32] = [7; 32];

    #[test]
    fn words_are_replaced_on_the_way_out_and_values_on_the_way_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        std::fs::write(&file, "s3cr&t\n").expect("written");
        let secrets = BTreeMap::from([("key".to_owned(), Secret::File(file))]);
        let word = placeholder(&secrets, "shop", &SEED, "key").expect("granted");
        assert_ne!(
            placeholder(&secrets, "shop", &[8; 32], "key").expect("granted"),
            word
        );
        let mut request = FetchRequest {
            method: "POST".to_owned(),
            url: format!("http://a/?key={word}"),
            headers: vec![("authorization".to_owned(), format!("Bearer {word}"))],
            body: format!("[{word}{word}]").into(),
        };
        let filled = fill(&secrets, &SEED, &mut request).expect("filled");
        assert_eq!(request.url, "http://a/?key=s3cr%26t");
        assert_eq!(request.headers[0].1, "Bearer s3cr&t");
        assert_eq!(&request.body[..], b"[s3cr&ts3cr&t]");
        let mut response = FetchResponse {
            status: 200,
            headers: vec![("echo".to_owned(), "s3cr&t".to_owned())],
            body: "you sent s3cr&t and s3cr%26t".into(),
        };
        filled.conceal(&mut response);
        assert_eq!(response.headers[0].1, word);
        assert_eq!(response.body, format!("you sent {word} and {word}"));
        assert_eq!(
            filled.conceal_text("a s3cr%26t b".to_owned()),
            format!("a {word} b")
        );
    }

    #[test]
    fn what_is_not_granted_or_not_there_is_a_failure() {
        let secrets = BTreeMap::from([(
            "key".to_owned(),
            Secret::Env("DORMOUSE_TEST_NO_SUCH_VARIABLE".to_owned()),
        )]);
        let failure = placeholder(&secrets, "shop", &SEED, "other").expect_err("not granted");
        assert_eq!(failure.code.as_deref(), Some("grant-missing"));
        let mut request = FetchRequest {
            method: "GET".to_owned(),
            url: format!("http://a/{}", word(&SEED, "key")),
            headers: Vec::new(),
            body: Default::default(),
        };
        let failure = fill(&secrets, &SEED, &mut request).err().expect("not there");
        assert_eq!(failure.code.as_deref(), Some("secret-unavailable"));
    }
}
