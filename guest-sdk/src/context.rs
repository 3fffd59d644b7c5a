//! What the run knows of itself: the same on every replay, and no reason for a step.

use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::host;
use crate::time::from_unix_millis;

/// The run, as its function and its bodies see it. An argument of a function; a body may borrow it.
#[derive(Clone, Copy, Debug)]
pub struct Context(());

impl Context {
    pub(crate) fn new() -> Context {
        Context(())
    }

    /// The run's id, a ULID. The same over all its attempts and replays.
    pub fn run_id(&self) -> String {
        host::run_id()
    }

    /// `module/function`.
    pub fn function(&self) -> String {
        host::function()
    }

    /// The digest of the component that runs here: `sha256:…`. After a migration it is another.
    pub fn version(&self) -> String {
        host::version()
    }

    /// The event that started the run, as JSON. [`Event`](crate::Event) as an argument is the typed way.
    pub fn event(&self) -> Value {
        serde_json::from_str(&host::event()).unwrap_or_default()
    }

    /// All events that started the run, as an array of JSON.
    pub fn events(&self) -> Value {
        serde_json::from_str(&host::events()).unwrap_or_default()
    }

    /// The time. Outside bodies: when the last recorded answer was given, so the same on every replay. Inside: the clock.
    pub fn now(&self) -> SystemTime {
        from_unix_millis(host::now())
    }

    /// Random bytes. Outside bodies: from the run's own seed, the same on every replay. Inside: from the system.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        // The contract hands out 64 KiB at the most.
        for chunk in bytes.chunks_mut(1 << 16) {
            let length = u32::try_from(chunk.len()).unwrap_or(0);
            chunk.copy_from_slice(&host::random(length));
        }
        bytes
    }

    /// A configuration value that an operator has given to the module; none when the key has none. A run keeps the values
    /// it was started with.
    ///
    /// # Errors
    /// `invalid-config`: the value is not a `T`.
    pub fn config<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(json) = host::config(key) else {
            return Ok(None);
        };
        serde_json::from_str(&json).map(Some).map_err(|error| {
            Error::non_retriable(format!(
                "the configuration value \"{key}\" is not what the function takes ({}): {error}",
                std::any::type_name::<T>()
            ))
            .code("invalid-config")
        })
    }

    /// A word that stands for a secret: the host puts the secret in its place in outgoing requests.
    ///
    /// # Errors
    /// As the host says, when there is no such secret or no grant for it.
    pub fn secret_placeholder(&self, name: &str) -> Result<String> {
        host::secret_placeholder(name).map_err(Error::from_failure)
    }

    /// A secret itself: only in bodies, and only with the grant for it.
    ///
    /// # Errors
    /// As the host says.
    pub fn reveal_secret(&self, name: &str) -> Result<String> {
        host::reveal_secret(name).map_err(Error::from_failure)
    }

    /// HMAC-SHA-256 of `data` under a secret that the function itself does not get to see.
    ///
    /// # Errors
    /// As the host says.
    pub fn hmac_sha256(&self, name: &str, data: &[u8]) -> Result<Vec<u8>> {
        host::hmac_sha256(name, data).map_err(Error::from_failure)
    }
}
