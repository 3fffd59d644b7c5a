//! Finds a Rust compiler that can make components: one with the standard library of `wasm32-wasip2`.
//!
//! Absent on purpose: installing one. That takes a network or a package manager, and belongs to the user.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::failure::{Exit, Failure, Outcome};

/// The target of a component.
pub(crate) const TARGET: &str = "wasm32-wasip2";
/// The toolchain that `scripts/wasm-target` of Dormouse's repository links where rustup cannot fetch the target.
const LINKED: &str = "dormouse-wasm";

/// A compiler with the target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// The one that cargo uses anyway.
    Default,
    /// Another one, by its path.
    Other(PathBuf),
}

impl Compiler {
    /// Looks for one, as a build in `directory` would.
    pub(crate) fn find(directory: &Path) -> Outcome<Compiler> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        if has_target(&rustc, directory)? {
            return Ok(Compiler::Default);
        }
        if let Some(rustc) = linked()
            && has_target(rustc.as_os_str(), directory)?
        {
            return Ok(Compiler::Other(rustc));
        }
        Err(Failure::new(
            Exit::Unavailable,
            format!("the Rust compiler has no {TARGET}, which components are built for"),
        )
        .help(format!(
            "run `rustup target add {TARGET}`; where its server cannot be reached, `scripts/wasm-target` in \
                 Dormouse's repository builds it from Debian's packages"
        )))
    }

    /// A call of cargo that builds with this compiler.
    pub(crate) fn cargo(&self, directory: &Path) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(directory);
        if let Compiler::Other(rustc) = self {
            cargo.env("RUSTC", rustc);
        }
        cargo
    }
}

/// What a tool answers to its arguments; a failure that names it when it is not there.
pub(crate) fn ask(tool: impl AsRef<OsStr>, arguments: &[&str], directory: &Path) -> Outcome<Output> {
    let tool = tool.as_ref();
    Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .output()
        .map_err(|error| {
            let tool = tool.to_string_lossy();
            let message = match error.kind() {
                ErrorKind::NotFound => format!("{tool} is not found"),
                _ => format!("{tool} cannot be run: {error}"),
            };
            Failure::new(Exit::Unavailable, message).help("install Rust 1.95 or newer from https://rustup.rs")
        })
}

/// The linked toolchain's compiler. Without rustup there is none.
fn linked() -> Option<PathBuf> {
    let output = ask(
        "rustup",
        &["which", "--toolchain", LINKED, "rustc"],
        Path::new("."),
    )
    .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && path.is_file()).then_some(path)
}

fn has_target(rustc: &OsStr, directory: &Path) -> Outcome<bool> {
    let output = ask(
        rustc,
        &["--print", "target-libdir", "--target", TARGET],
        directory,
    )?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let Ok(mut entries) = std::fs::read_dir(libraries) else {
        return Ok(false);
    };
    Ok(output.status.success()
        && entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))))
}
