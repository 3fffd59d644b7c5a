//! What a guest may call, one file each, and the linker that offers it.

mod clock;
mod config;
mod context;
pub(crate) mod http;
mod log;
mod poll;
mod random;
mod secrets;
mod stdio;
pub(crate) mod steps;

use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings as wasi;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi_http::p2::bindings::http as wasi_http;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _};
use wasmtime_wasi_io::bindings::wasi::io as wasi_io;

use crate::bindings;
use crate::state::HostState;

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

type Own = HasSelf<HostState>;

/// Everything a component may import, offered once per engine.
///
/// # Errors
/// When two capabilities offer the same name: a mistake in this file.
pub(crate) fn link(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    bindings::types::add_to_linker::<_, Own>(l, |s| s)?;
    bindings::steps::add_to_linker::<_, Own>(l, |s| s)?;
    bindings::context::add_to_linker::<_, Own>(l, |s| s)?;
    bindings::log::add_to_linker::<_, Own>(l, |s| s)?;
    bindings::config::add_to_linker::<_, Own>(l, |s| s)?;
    bindings::secrets::add_to_linker::<_, Own>(l, |s| s)?;

    wasi_io::error::add_to_linker::<_, Table>(l, |s| &mut s.table)?;
    wasi_io::streams::add_to_linker::<_, Table>(l, |s| &mut s.table)?;
    wasi_io::poll::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::clocks::wall_clock::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::clocks::monotonic_clock::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::random::random::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::random::insecure::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::random::insecure_seed::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::environment::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::exit::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::stdin::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::stdout::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::stderr::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::terminal_input::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::terminal_output::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::terminal_stdin::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::terminal_stdout::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::cli::terminal_stderr::add_to_linker::<_, Own>(l, |s| s)?;

    wasi::filesystem::preopens::add_to_linker::<_, Own>(l, |s| s)?;
    wasi::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, HostState::filesystem)?;
    let options = wasi::LinkOptions::default();
    wasi::sockets::network::add_to_linker::<_, WasiSockets>(l, &(&options).into(), HostState::sockets)?;
    wasi::sockets::instance_network::add_to_linker::<_, WasiSockets>(l, HostState::sockets)?;
    wasi::sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, HostState::sockets)?;
    wasi::sockets::tcp::add_to_linker::<_, WasiSockets>(l, HostState::sockets)?;
    wasi::sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, HostState::sockets)?;
    wasi::sockets::udp::add_to_linker::<_, WasiSockets>(l, HostState::sockets)?;
    wasi::sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, HostState::sockets)?;

    let options = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
    wasi_http::types::add_to_linker::<_, WasiHttp>(l, &(&options).into(), HostState::http)?;
    http::link(l)?;
    Ok(linker)
}
