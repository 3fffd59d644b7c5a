//! `config`: values an operator has given.

use wasmtime::Result;

use crate::bindings::config::Host;
use crate::state::HostState;

impl Host for HostState {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        self.needs_run("config.get")?;
        Ok(self.host.config(&key).map(|json| json.as_str().to_owned()))
    }
}
