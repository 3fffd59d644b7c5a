//! The server over HTTP: what it answers to good requests, to bad ones, and to clients that are slow or vanish.
//!
//! Each test has a server of its own, in this process, on a port of its own. The client writes bytes, so that it can
//! write wrong ones.

mod api;
mod bad;
mod clients;
mod error_pages;
mod openapi;
mod pages;
mod server;
mod stream;
