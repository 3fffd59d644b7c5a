//! `secrets`: words that stand for them. Showing a secret to the guest, or signing with it, is in the contract and not here.

use dormouse_core::Failure;
use wasmtime::Result;

use crate::bindings::{secrets::Host, types};
use crate::guest_json::failure_to_guest;
use crate::state::HostState;

fn not_yet() -> types::Failure {
    failure_to_guest(Failure::terminal(
        "not-supported",
        "this server puts secrets into the requests of step.fetch, and shows them to nobody: use `placeholder`",
    ))
}

impl Host for HostState {
    fn placeholder(&mut self, name: String) -> Result<Result<String, types::Failure>> {
        self.needs_run("secrets.placeholder")?;
        Ok(self.host.placeholder(&name).map_err(failure_to_guest))
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
