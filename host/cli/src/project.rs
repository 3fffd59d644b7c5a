//! A project: a directory with `dormouse.toml` and `Cargo.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::{Exit, Failure, Outcome};

/// The project file's name.
pub(crate) const FILE: &str = "dormouse.toml";

/// A project on disk.
#[derive(Debug)]
pub(crate) struct Project {
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// The module's name.
    pub(crate) module: String,
    /// Where to deploy to by default.
    pub(crate) url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    module: FileModule,
    #[serde(default)]
    deploy: FileDeploy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileModule {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDeploy {
    url: Option<String>,
}

impl Project {
    /// The project that `path` is in: its own directory, or the nearest one above.
    pub(crate) fn find(path: &Path) -> Outcome<Project> {
        let start = path
            .canonicalize()
            .map_err(|error| Failure::file("open", path, &error).help("give a project's directory"))?;
        let directory = start
            .ancestors()
            .find(|directory| directory.join(FILE).is_file())
            .ok_or_else(|| {
                Failure::new(
                    Exit::NotFound,
                    format!("there is no {FILE} in {} or above it", start.display()),
                )
                .help("make a project with `dormouse new DIR`, or give the path of one")
            })?;
        let file = directory.join(FILE);
        let text = std::fs::read_to_string(&file).map_err(|error| Failure::file("read", &file, &error))?;
        let project = Project::parse(&text, directory).map_err(|failure| failure.at(file.display()))?;
        if !directory.join("Cargo.toml").is_file() {
            return Err(Failure::new(Exit::NotFound, format!("there is no Cargo.toml beside {}", file.display()))
                .help("only Rust projects can be built; upload a component that is built already with `dormouse deploy FILE.wasm`"));
        }
        Ok(project)
    }

    fn parse(text: &str, directory: &Path) -> Outcome<Project> {
        let file: File =
            toml::from_str(text).map_err(|error| Failure::usage(error.to_string().trim_end().to_owned()))?;
        check_name(&file.module.name)?;
        Ok(Project {
            directory: directory.to_owned(),
            module: file.module.name,
            url: file.deploy.url,
        })
    }
}

/// Refuses what cannot be a module's name.
pub(crate) fn check_name(name: &str) -> Outcome {
    dormouse_core::name::check(name).map_err(|error| Failure::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_file_and_refuses_what_it_does_not_know() {
        let project = Project::parse(
            "[module]\nname = \"a-b\"\n[deploy]\nurl = \"http://x\"",
            Path::new("/p"),
        )
        .expect("valid");
        assert_eq!(
            (project.module.as_str(), project.url.as_deref()),
            ("a-b", Some("http://x"))
        );
        for (text, word) in [
            ("", "module"),
            ("[module]\nname = \"A\"", "\"A\""),
            ("[module]\nname = \"a\"\nnmae = 1", "nmae"),
            ("[module", "expected"),
        ] {
            let failure = Project::parse(text, Path::new("/p")).expect_err(text);
            assert!(failure.message.contains(word), "{text}: {}", failure.message);
        }
    }
}
