//! `dormouse new`: a project that builds anywhere, with the SDK that this binary carries.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Outcome};
use crate::{output, project, terminal};

/// The SDK: every file's path and text.
static SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
/// What pins the versions of everything a project uses.
static LOCK: &str = include_str!(concat!(env!("OUT_DIR"), "/template.lock"));
/// The project's own files.
static TEMPLATE: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("../template/Cargo.toml")),
    ("Cargo.lock", LOCK),
    ("dormouse.toml", include_str!("../template/dormouse.toml")),
    (".gitignore", include_str!("../template/gitignore")),
    ("README.md", include_str!("../template/README.md")),
    ("src/lib.rs", include_str!("../template/lib.rs")),
];
/// Where the SDK lies in a project.
const VENDOR: &str = "vendor/dormouse";

/// Make a project with a first function; prints its directory
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormouse new hello && cd hello && dormouse build && dormouse deploy")]
pub(crate) struct New {
    /// The directory, which must be empty or new; its name becomes the module's
    dir: PathBuf,
}

impl New {
    pub(crate) fn run(self) -> Outcome {
        let name = name_of(&self.dir)?;
        refuse_what_is_there(&self.dir)?;
        for (path, text) in TEMPLATE {
            write(&self.dir.join(path), &text.replace("{{name}}", &name))?;
        }
        for (path, text) in SDK {
            write(&self.dir.join(VENDOR).join(path), text)?;
        }
        let dir = self.dir.display();
        terminal::say(format!(
            "made the project {name}; next: cd {dir} && dormouse build && dormouse deploy"
        ));
        output::write(&dir.to_string())
    }
}

/// The module's name: the directory's.
fn name_of(dir: &Path) -> Outcome<String> {
    let whole = std::path::absolute(dir).map_err(|error| Failure::file("use", dir, &error))?;
    let name = whole
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let help = "choose another directory name, such as `hello`";
    project::check_name(&name).map_err(|failure| failure.help(help))?;
    // Cargo could not tell the two apart.
    if LOCK.contains(&format!("name = \"{name}\"\n"))
        || matches!(name.as_str(), "test" | "core" | "std" | "alloc")
    {
        return Err(
            Failure::usage(format!("\"{name}\" is the name of a package that a project uses")).help(help),
        );
    }
    Ok(name)
}

fn refuse_what_is_there(dir: &Path) -> Outcome {
    match fs::read_dir(dir).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failure::usage(format!(
            "{} is not empty, and nothing in it was touched",
            dir.display()
        ))
        .help("choose a directory that is new or empty")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("use", dir, &error)),
    }
}

fn write(path: &Path, text: &str) -> Outcome {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::file("create", parent, &error))?;
    }
    fs::write(path, text).map_err(|error| Failure::file("write", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_gives_the_name() {
        assert_eq!(
            name_of(Path::new("some/where/my-hello")).expect("valid"),
            "my-hello"
        );
        for dir in ["Hello", "serde", "dormouse", "a b", "/"] {
            assert!(name_of(Path::new(dir)).is_err(), "{dir}");
        }
    }

    #[test]
    fn the_sdk_is_whole() {
        for path in [
            "Cargo.toml",
            "src/lib.rs",
            "macros/Cargo.toml",
            "macros/src/lib.rs",
            "wit/dormouse.wit",
        ] {
            assert!(
                SDK.iter().any(|(name, text)| *name == path && !text.is_empty()),
                "{path}"
            );
        }
        assert!(LOCK.contains("name = \"{{name}}\""));
        assert!(!LOCK.contains("create-workflow"));
    }
}
