//! What the writer remembers of the small tables. Other nodes write them too, so each transaction that decides on them
//! reads the generation first, under a lock that those who move it take alone; the rest is read again when it moved.
//! Numbers of functions and versions never change, so they are remembered for good.

use std::collections::{HashMap, HashSet};

use dormouse_core::{Digest, FunctionName};

use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::batch::ingest::Small;
use crate::batch::runs::function_name;
use crate::batch::slots::Manifests;
use crate::error::{Error, Result};
use crate::schedule::Incarnation;

/// Held by whoever decides on modules, versions, functions and configurations: shared by those who read, alone by those
/// who write. It ends with the transaction.
const REGISTRY_LOCK: i64 = 0x646f_726d_6f75_7302;

/// Takes the lock together with others who only read.
pub(super) fn lock_shared() -> String {
    format!("SELECT pg_advisory_xact_lock_shared({REGISTRY_LOCK})")
}

/// Takes the lock alone.
pub(super) fn lock_alone() -> String {
    format!("SELECT pg_advisory_xact_lock({REGISTRY_LOCK})")
}

/// The paths of so many event names are remembered: some programs make up names.
const WAIT_NAMES_MAX: usize = 10_000;

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
    /// Rows added to `dedupe` since old ones were last swept out.
    pub(super) unswept: usize,
    /// Rows written to `limits` since.
    pub(super) unswept_limits: usize,
    /// Those of the nodes that were asked about that live.
    nodes: HashSet<Incarnation>,
    /// For event names that came in or were waited for, the paths of their waits. Rows are never deleted, so what is
    /// remembered stays true; there may be more.
    wait_paths: HashMap<String, Vec<String>>,
    /// What versions say of concurrency.
    pub(super) manifests: Manifests,
    function_ids: HashMap<FunctionName, i64>,
    functions: HashMap<i64, FunctionName>,
    versions: HashMap<i64, VersionEntry>,
}

impl Cache {
    /// What was read in a transaction that came to nothing may not be so.
    pub(super) fn forget(&mut self) {
        *self = Cache {
            unswept: self.unswept,
            unswept_limits: self.unswept_limits,
            ..Cache::default()
        };
    }

    /// Reads the generation, what it says is old, which of some nodes live, and the paths of waits for events of some
    /// names. The nodes are kept from being declared dead until the transaction ends.
    pub(super) async fn refresh(
        &mut self,
        conn: &mut Conn,
        nodes: &[Incarnation],
        names: &[&str],
    ) -> Attempt<()> {
        let rows = conn
            .fetch(
                "WITH alive AS (SELECT incarnation FROM nodes WHERE incarnation = ANY($1) ORDER BY incarnation FOR KEY SHARE) \
                 SELECT generation, NULL::uuid, NULL::text, NULL::text FROM registry \
                 UNION ALL SELECT NULL::int8, incarnation, NULL::text, NULL::text FROM alive \
                 UNION ALL SELECT NULL::int8, NULL::uuid, name, path FROM wait_paths WHERE name = ANY($2)",
                |args| {
                    args.keys(nodes.iter().copied()).texts(names.iter().copied());
                },
            )
            .await?;
        self.nodes.clear();
        if self.wait_paths.len() > WAIT_NAMES_MAX {
            self.wait_paths.clear();
        }
        let mut generation = 0;
        for row in &rows {
            let mut cells = Cells::of(row);
            if let Some(number) = cells.int_or_null()? {
                generation = number;
            }
            self.nodes.extend(cells.node_or_null()?);
            if let (Some(name), Some(path)) = (cells.text_or_null()?, cells.text_or_null()?) {
                self.remember_path(name, path);
            }
        }
        if generation != self.generation {
            self.reload_versions(conn).await?;
            self.generation = generation;
        }
        Ok(())
    }

    /// Waits for events of a name may have this path.
    pub(super) fn remember_path(&mut self, name: String, path: String) {
        let paths = self.wait_paths.entry(name).or_default();
        if !paths.contains(&path) {
            paths.push(path);
        }
    }

    /// Reads the versions again.
    pub(super) async fn reload_versions(&mut self, conn: &mut Conn) -> Attempt<()> {
        let rows = conn
            .fetch("SELECT id, module, digest, deleted FROM versions", |_| {})
            .await?;
        self.versions.clear();
        for row in &rows {
            let mut cells = Cells::of(row);
            let id = cells.int()?;
            let entry = VersionEntry {
                module: cells.text()?,
                digest: Digest::from_bytes(cells.bytes()?),
                deleted: cells.flag()?,
            };
            self.versions.insert(id, entry);
        }
        Ok(())
    }

    async fn load_functions(&mut self, conn: &mut Conn) -> Attempt<()> {
        for row in &conn
            .fetch("SELECT id, module, function FROM functions", |_| {})
            .await?
        {
            let mut cells = Cells::of(row);
            let id = cells.int()?;
            let name = function_name(&cells.text()?, &cells.text()?)?;
            self.function_ids.insert(name.clone(), id);
            self.functions.insert(id, name);
        }
        Ok(())
    }

    /// Which of these functions have no number that is remembered.
    pub(super) fn unnumbered<'n>(
        &self,
        names: impl Iterator<Item = &'n FunctionName>,
    ) -> Vec<&'n FunctionName> {
        let unknown: HashSet<_> = names
            .filter(|name| !self.function_ids.contains_key(*name))
            .collect();
        let mut unknown: Vec<_> = unknown.into_iter().collect();
        unknown.sort_by_key(|name| (name.module(), name.function()));
        unknown
    }

    /// Gives functions numbers, in a transaction that holds the lock alone.
    pub(super) async fn number_functions(&mut self, conn: &mut Conn, names: &[&FunctionName]) -> Attempt<()> {
        conn.execute(
            "INSERT INTO functions (id, module, function) \
             SELECT (SELECT coalesce(max(id), 0) FROM functions) + row_number() OVER (), v.module, v.function \
             FROM UNNEST($1::text[], $2::text[]) AS v(module, function) \
             WHERE NOT EXISTS (SELECT 1 FROM functions f WHERE f.module = v.module AND f.function = v.function)",
            |args| {
                args.texts(names.iter().map(|name| name.module()))
                    .texts(names.iter().map(|name| name.function()));
            },
        )
        .await?;
        self.load_functions(conn).await
    }

    /// Makes sure that functions and versions, by their numbers, are remembered.
    pub(super) async fn learn(
        &mut self,
        conn: &mut Conn,
        functions: &[i64],
        versions: &[i64],
    ) -> Attempt<()> {
        if functions.iter().any(|id| !self.functions.contains_key(id)) {
            self.load_functions(conn).await?;
        }
        if versions.iter().any(|id| !self.versions.contains_key(id)) {
            self.reload_versions(conn).await?;
        }
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
