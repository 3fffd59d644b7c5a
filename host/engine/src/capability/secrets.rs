//! `secrets`: in the contract from the start, so that it need not change; nothing can be granted yet.

use dormouse_core::Failure;
use wasmtime::Result;

use crate::bindings::{secrets::Host, types};
use crate::guest_json::failure_to_guest;
use crate::state::HostState;

fn not_yet() -> types::Failure {
    failure_to_guest(Failure::terminal(
        "not-supported",
        "this server has no secrets yet; use `config` for what need not be secret",
    ))
}

impl Host for HostState {
    fn placeholder(&mut self, _name: String) -> Result<Result<String, types::Failure>> {
        self.needs_run("secrets.placeholder")?;
        Ok(Err(not_yet()))
    }

    fn reveal(&mut self, _name: String) -> Result<Result<String, types::Failure>> {
        self.needs_run("secrets.reveal")?;
        Ok(Err(not_yet()))
    }

    fn hmac_sha256(&mut self, _name: String, _data: Vec<u8>) -> Result<Result<Vec<u8>, types::Failure>> {
        self.needs_run("secrets.hmac-sha256")?;
        Ok(Err(not_yet()))
    }
}
