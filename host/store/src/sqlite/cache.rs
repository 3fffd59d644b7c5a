//! What the writer remembers between batches. It is the only one that writes these tables, so what it remembers is
//! what is stored; after a rollback it reads them again.

use std::collections::{HashMap, HashSet};

use dormouse_core::{Digest, FunctionName};
use sqlx::SqliteConnection;

use super::sql::{Cells, fetch};
use crate::batch::ingest::Small;
use crate::batch::runs::function_name;
use crate::batch::slots::Manifests;
use crate::error::{Error, Result};
use crate::schedule::Incarnation;

/// A module's version, as far as runs need it.
#[derive(Clone, Debug)]
struct VersionEntry {
    module: String,
    digest: Digest,
    deleted: bool,
}

/// The small tables, in memory.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// The registry's generation.
    pub(super) generation: i64,
    /// Nodes that live.
    pub(super) nodes: HashSet<Incarnation>,
    /// For each event name that was ever waited for, the paths of its waits.
    pub(super) wait_paths: HashMap<String, Vec<String>>,
    /// Rows added to `dedupe` since old ones were last swept out.
    pub(super) unswept: usize,
    /// Rows written to `limits` since.
    pub(super) unswept_limits: usize,
    /// Slots may have been freed that no claim has looked at.
    pub(super) slots_freed: bool,
    /// What versions say of concurrency.
    pub(super) manifests: Manifests,
    function_ids: HashMap<FunctionName, i64>,
    functions: HashMap<i64, FunctionName>,
    versions: HashMap<i64, VersionEntry>,
}

impl Cache {
    /// Reads it all.
    pub(super) async fn load(conn: &mut SqliteConnection) -> Result<Cache> {
        let mut cache = Cache {
            slots_freed: true,
            ..Cache::default()
        };
        for row in &fetch(conn, "SELECT generation FROM registry", |_| {}).await? {
            cache.generation = Cells::of(row).int()?;
        }
        for row in &fetch(conn, "SELECT incarnation FROM nodes", |_| {}).await? {
            cache.nodes.insert(Incarnation(Cells::of(row).bytes()?));
        }
        for row in &fetch(conn, "SELECT id, module, function FROM functions", |_| {}).await? {
            let mut cells = Cells::of(row);
            let id = cells.int()?;
            cache.remember_function(id, function_name(cells.text()?, cells.text()?)?);
        }
        for row in &fetch(conn, "SELECT name, path FROM wait_paths", |_| {}).await? {
            let mut cells = Cells::of(row);
            let (name, path) = (cells.text()?.to_owned(), cells.text()?.to_owned());
            cache.wait_paths.entry(name).or_default().push(path);
        }
        cache.reload_versions(conn).await?;
        Ok(cache)
    }

    /// Reads the versions again: one was added or deleted.
    pub(super) async fn reload_versions(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        self.versions.clear();
        for row in &fetch(conn, "SELECT id, module, digest, deleted FROM versions", |_| {}).await? {
            let mut cells = Cells::of(row);
            let id = cells.int()?;
            let module = cells.text()?.to_owned();
            let digest = Digest::from_bytes(cells.bytes()?);
            self.versions.insert(
                id,
                VersionEntry {
                    module,
                    digest,
                    deleted: cells.flag()?,
                },
            );
        }
        Ok(())
    }

    fn remember_function(&mut self, id: i64, name: FunctionName) {
        self.function_ids.insert(name.clone(), id);
        self.functions.insert(id, name);
    }

    /// Gives a function a number if it has none.
    pub(super) async fn number_function(
        &mut self,
        conn: &mut SqliteConnection,
        name: &FunctionName,
    ) -> Result<()> {
        if self.function_ids.contains_key(name) {
            return Ok(());
        }
        let rows = fetch(
            conn,
            "INSERT INTO functions (module, function) VALUES (?, ?) RETURNING id",
            |args| {
                args.text(name.module()).text(name.function());
            },
        )
        .await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::Corrupt("an insert answered nothing".to_owned()))?;
        let id = Cells::of(row).int()?;
        self.remember_function(id, name.clone());
        Ok(())
    }

    /// A function's name.
    pub(super) fn function(&self, id: i64) -> Result<FunctionName> {
        self.functions
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::Corrupt(format!("function number {id} is not stored")))
    }

    /// A version's digest.
    pub(super) fn digest(&self, version_id: i64) -> Result<Digest> {
        self.versions
            .get(&version_id)
            .map(|version| version.digest)
            .ok_or_else(|| Error::Corrupt(format!("version number {version_id} is not stored")))
    }
}

impl Small for Cache {
    fn generation(&self) -> i64 {
        self.generation
    }

    fn lives(&self, node: Incarnation) -> bool {
        self.nodes.contains(&node)
    }

    fn version_id(&self, module: &str, digest: Digest) -> Option<i64> {
        // Versions are few, and runs of a batch are mostly of one.
        self.versions
            .iter()
            .find(|(_, version)| !version.deleted && version.digest == digest && version.module == module)
            .map(|(id, _)| *id)
    }

    fn wait_paths(&self, name: &str) -> &[String] {
        self.wait_paths.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn function_id(&self, name: &FunctionName) -> Result<i64> {
        self.function_ids
            .get(name)
            .copied()
            .ok_or_else(|| Error::Corrupt(format!("function {name} has no number")))
    }
}
