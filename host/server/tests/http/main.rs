//! The server over HTTP: what it answers to good requests, to bad ones, and to clients that are slow or vanish.
//!
//! Most tests have a server of their own, in this process, on a port of its own. The client writes bytes, so that it can
//! write wrong ones.

mod access;
mod api;
mod audit;
mod bad;
mod clients;
mod error_pages;
mod keys;
mod openapi;
mod pages;
mod server;
mod stream;
