//! From a component's bytes to a module, in the order in which an upload is checked.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use dormouse_core::limit::{self, ModuleLimits};
use dormouse_core::{Digest, Failure, Json};
use wasmtime::component::Component;

use crate::bindings::{ModuleIndices, ModulePre};
use crate::capability::http::Http;
use crate::drive::Drive;
use crate::engine::{Engine, Parts, store};
use crate::host::{self, RunHost};
use crate::import;
use crate::interrupt::Interrupt;
use crate::limiter;
use crate::mapped;
use crate::module::{Inner, Module};
use crate::policy::HttpPolicy;
use crate::shared::{Shared, lock};
use crate::state::{HostState, Phase};
use crate::trap::{self, Trap};

/// Why some bytes are not a module. Nothing of them is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// More than [`limit::COMPONENT_BYTES_MAX`].
    #[error(
        "the component has {bytes} bytes; {} are the most",
        limit::COMPONENT_BYTES_MAX
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Something else than a component.
    #[error("this is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// What it is instead.
        reason: String,
    },
    /// A component that is broken, or that asks for more than an instance may have.
    #[error("the component is not valid: {reason}")]
    Invalid {
        /// What the validator says.
        reason: String,
    },
    /// It imports what nobody offers.
    #[error("the component imports `{name}`, which this server does not offer")]
    UnknownImport {
        /// The import.
        name: String,
    },
    /// It imports something that is offered, in another shape.
    #[error("an import of the component does not fit what this server offers: {reason}")]
    ImportMismatch {
        /// What does not fit.
        reason: String,
    },
    /// It does not export our world.
    #[error(
        "the component is not a module of functions: {reason}; it must export `dormouse:function/functions@0.1.0`"
    )]
    NotAModule {
        /// What it lacks.
        reason: String,
    },
    /// `describe` did not come to an end of its own.
    #[error("`describe` was ended ({}): {}", .0.code, .0.message)]
    Describe(Trap),
    /// `describe` answered with something else than a manifest within its limit.
    #[error("the manifest {reason}")]
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes could not be had, or are others than the digest says.
    #[error("the component {digest} cannot be loaded: {reason}")]
    Missing {
        /// The version that was asked for.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// Our own fault.
    #[error("{reason}")]
    Engine {
        /// What went wrong.
        reason: String,
    },
}

impl LoadError {
    /// A stable word; each has a page in docs/errors/.
    pub fn code(&self) -> &'static str {
        match self {
            LoadError::TooLarge { .. } => "component-too-large",
            LoadError::NotAComponent { .. } => "not-a-component",
            LoadError::Invalid { .. } => "invalid-component",
            LoadError::UnknownImport { .. } => "unknown-import",
            LoadError::ImportMismatch { .. } => "import-mismatch",
            LoadError::NotAModule { .. } => "not-a-module",
            LoadError::Describe(_) => "describe-failed",
            LoadError::Manifest { .. } => "invalid-manifest",
            LoadError::Missing { .. } => "version-missing",
            LoadError::Engine { .. } => "engine-error",
        }
    }

    /// What to do about it, where that can be said.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            LoadError::TooLarge { .. } => {
                "build with `--release`, `opt-level = \"s\"` and `strip = \"debuginfo\"`"
            }
            LoadError::NotAComponent { .. } => "build with `--target wasm32-wasip2`, which makes components",
            LoadError::UnknownImport { .. } => {
                "find the dependency that needs it and leave it out; functions do their work through the SDK"
            }
            LoadError::ImportMismatch { .. } => "build against the SDK of this server's release",
            LoadError::NotAModule { .. } => "list the functions in `dormouse::module!(…)`",
            LoadError::Describe(_) => {
                "`describe` runs at upload: it may not call the host, nor compute for long"
            }
            LoadError::Invalid { .. } | LoadError::Manifest { .. } => return None,
            LoadError::Missing { .. } | LoadError::Engine { .. } => return None,
        })
    }
}

/// Where a component's code is.
struct Compiled {
    component: Component,
    place: Place,
}

enum Place {
    /// In the cache, in a file of this size.
    Cached(u64),
    /// In memory, compiled just now.
    Fresh(Vec<u8>),
}

impl Engine {
    /// Checks an upload and makes it ready: size, is a component, imports offered, exports our world, `describe` within
    /// limits. Answers with the manifest as the module gave it: JSON, otherwise unread.
    ///
    /// # Errors
    /// The first check that fails. Nothing is left behind.
    pub async fn load(&self, bytes: Bytes) -> Result<(Module, Json), LoadError> {
        self.load_if(bytes, |_| Ok(()), Ok).await
    }

    /// [`Engine::load`], with a say for who asks: `admit` hears whether the component imports `wasi:http`, before any of
    /// its code runs; `accept` reads the manifest, before anything of the component is kept.
    ///
    /// # Errors
    /// The first check that fails, those of the caller among them. Nothing is left behind.
    pub async fn load_if<T, E: From<LoadError>>(
        &self,
        bytes: Bytes,
        admit: impl FnOnce(bool) -> Result<(), E>,
        accept: impl FnOnce(Json) -> Result<T, E>,
    ) -> Result<(Module, T), E> {
        check_header(&bytes)?;
        let digest = Digest::of(&bytes);
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        let compiled = self.compile(digest, bytes).await?;
        let imports_http = import::check(&compiled.component)?;
        admit(imports_http)?;
        let pre = self.link(&compiled.component)?;
        let accepted = accept(self.describe(&pre).await?)?;
        let module = self.keep(digest, compiled, pre, imports_http).await?;
        Ok((module, accepted))
    }

    /// A version that was uploaded before. When it is in use or its compiled form is in the cache, `fetch` is not called.
    /// Where many ask for it at once, one loads it for all.
    ///
    /// # Errors
    /// `version-missing` when `fetch` fails or gives other bytes; what [`Engine::load`] says when they are refused.
    pub async fn load_cached<F, Fut>(&self, digest: Digest, fetch: F) -> Result<Module, LoadError>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<Bytes, String>> + Send,
    {
        if let Some(module) = self.in_use(digest) {
            return Ok(module);
        }
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        if let Some(module) = self.in_use(digest) {
            return Ok(module);
        }
        let compiled = match self.cached(digest).await? {
            Some(compiled) => compiled,
            None => {
                let missing = |reason| LoadError::Missing { digest, reason };
                let bytes = fetch().await.map_err(missing)?;
                let found = Digest::of(&bytes);
                if found != digest {
                    return Err(missing(format!("its bytes are those of {found}")));
                }
                check_header(&bytes)?;
                self.compile(digest, bytes).await?
            }
        };
        let imports_http = import::check(&compiled.component)?;
        let pre = self.link(&compiled.component)?;
        self.keep(digest, compiled, pre, imports_http).await
    }

    /// Removes a version's compiled form. Legs that run on it are not disturbed.
    pub fn forget(&self, digest: Digest) {
        lock(&self.parts().modules).remove(&digest);
        self.parts().cache.remove(digest);
    }

    /// What to hold while a version is loaded, so that it is compiled once.
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut loading = lock(&self.parts().loading);
        loading.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = loading.get(&digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        loading.insert(digest, Arc::downgrade(&turn));
        turn
    }

    fn in_use(&self, digest: Digest) -> Option<Module> {
        lock(&self.parts().modules).get(&digest)?.upgrade().map(Module)
    }

    /// From the cache, off the threads that run guests: reading and hashing takes its time.
    async fn cached(&self, digest: Digest) -> Result<Option<Compiled>, LoadError> {
        let engine = self.clone();
        let load = move || engine.parts().cache.load(digest);
        let mapped = tokio::task::spawn_blocking(load)
            .await
            .map_err(|error| LoadError::Engine {
                reason: format!("reading the cache failed: {error}"),
            })?;
        Ok(mapped.map(|mapped| Compiled {
            component: mapped.component,
            place: Place::Cached(mapped.size),
        }))
    }

    /// Compiles, unless the cache has it.
    async fn compile(&self, digest: Digest, bytes: Bytes) -> Result<Compiled, LoadError> {
        if let Some(compiled) = self.cached(digest).await? {
            return Ok(compiled);
        }
        let engine = self.clone();
        let compile = move || {
            let parts = engine.parts();
            let code = parts.pooled.wasmtime.precompile_component(&bytes)?;
            let component = mapped::compiled([&parts.pooled.wasmtime, &parts.on_demand.wasmtime], &code)?;
            wasmtime::Result::<_>::Ok((component, code))
        };
        let (component, code) = self
            .parts()
            .compiler
            .run(compile)
            .await
            .map_err(|failed| LoadError::Engine {
                reason: failed.to_string(),
            })?
            .map_err(|error| LoadError::Invalid {
                reason: format!("{error:#}"),
            })?;
        limiter::check(&component).map_err(|reason| LoadError::Invalid { reason })?;
        Ok(Compiled {
            component,
            place: Place::Fresh(code),
        })
    }

    fn link(&self, component: &Component) -> Result<ModulePre<HostState>, LoadError> {
        let Parts {
            pooled, on_demand, ..
        } = self.parts();
        let of = if wasmtime::Engine::same(component.engine(), &pooled.wasmtime) {
            pooled
        } else {
            on_demand
        };
        let pre = of
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::ImportMismatch {
                reason: format!("{error:#}"),
            })?;
        ModulePre::new(pre).map_err(|error| LoadError::NotAModule {
            reason: format!("{error:#}"),
        })
    }

    /// Puts what was compiled into the cache and maps it in from there.
    async fn keep(
        &self,
        digest: Digest,
        compiled: Compiled,
        pre: ModulePre<HostState>,
        imports_http: bool,
    ) -> Result<Module, LoadError> {
        let (pre, size) = match compiled.place {
            Place::Cached(size) => (pre, size),
            Place::Fresh(code) => {
                let engine = self.clone();
                let store = move || {
                    engine.parts().cache.store(digest, &code)?;
                    std::io::Result::Ok(engine.parts().cache.load(digest))
                };
                let stored = self
                    .parts()
                    .compiler
                    .run(store)
                    .await
                    .map_err(|failed| LoadError::Engine {
                        reason: failed.to_string(),
                    })?;
                match stored {
                    Ok(Some(mapped)) => (self.link(&mapped.component)?, mapped.size),
                    // Without a cache everything works; the next start compiles again.
                    Ok(None) => (pre, 0),
                    Err(error) => {
                        tracing::warn!("the compiled module {} is not cached: {error}", digest.short());
                        (pre, 0)
                    }
                }
            }
        };
        let module = Module(Arc::new(Inner {
            digest,
            imports_http,
            size,
            pre,
        }));
        let mut modules = lock(&self.parts().modules);
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(digest, Arc::downgrade(&module.0));
        Ok(module)
    }

    /// Asks the module what it is, with everything it imports denied and limits of its own.
    async fn describe(&self, pre: &ModulePre<HostState>) -> Result<Json, LoadError> {
        let limits = ModuleLimits {
            stretch_ms: 5_000,
            ..ModuleLimits::default()
        };
        let shared = Arc::new(Shared::default());
        let interrupt = Interrupt::new();
        let _permit = self.permit().await;
        let state = HostState::new(
            Box::new(Nobody),
            Phase::Describe,
            None,
            [0; 32],
            limits,
            self.limiter(limits.memory_bytes),
            Http::new(HttpPolicy::none(), shared.clone()),
            shared.clone(),
            interrupt.clone(),
        );
        let mut store = store(pre.engine(), state);
        let answer = {
            let call = std::pin::pin!(async {
                let instance = pre.instance_pre().instantiate_async(&mut store).await?;
                let indices = ModuleIndices::new(pre.instance_pre())?;
                let module = match indices.load(&mut store, &instance) {
                    Ok(module) => module,
                    Err(error) => return Ok(Err(format!("{error:#}"))),
                };
                module
                    .dormouse_function_functions()
                    .call_describe(&mut store)
                    .await
                    .map(Ok)
            });
            let drive = Drive {
                call,
                shared: shared.clone(),
                interrupt,
                ticker: &self.parts().ticker,
                alarm: None,
            };
            drive.await
        };
        let stdio = lock(&shared.stdio);
        let text = match answer {
            Err(trap) => return Err(LoadError::Describe(trap.into_trap(None))),
            Ok(Err(error)) => {
                let stopped = || LoadError::Engine {
                    reason: format!("{error:#}"),
                };
                return Err(trap::read(&error, &stdio, None).map_or_else(stopped, LoadError::Describe));
            }
            Ok(Ok(Err(reason))) => return Err(LoadError::NotAModule { reason }),
            Ok(Ok(Ok(text))) => text,
        };
        if text.len() > limit::MANIFEST_BYTES_MAX {
            return Err(LoadError::Manifest {
                reason: format!(
                    "has {} bytes; {} are the most",
                    text.len(),
                    limit::MANIFEST_BYTES_MAX
                ),
            });
        }
        Json::parse(&text).map_err(|error| LoadError::Manifest {
            reason: format!("is {error}"),
        })
    }
}

/// Tells a component from the other things people upload.
fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.len() > limit::COMPONENT_BYTES_MAX {
        return Err(LoadError::TooLarge { bytes: bytes.len() });
    }
    let reason = match bytes {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => "it is a core module".to_owned(),
        [0, b'a', b's', b'm', ..] => "it is WebAssembly of an unknown kind, or cut short".to_owned(),
        [] => "it is empty".to_owned(),
        [b'(', ..] => "it is WebAssembly as text".to_owned(),
        _ => "it does not begin as WebAssembly does".to_owned(),
    };
    Err(LoadError::NotAComponent { reason })
}

/// Stands where a run's host would, while there is no run. It is never asked: `describe` may call nothing.
struct Nobody;

#[async_trait::async_trait]
impl RunHost for Nobody {
    async fn begin_run(&mut self, _: String, _: Option<Json>) -> Result<host::RunStart, host::Stop> {
        Err(host::Stop)
    }

    async fn finish_run(
        &mut self,
        _: dormouse_core::Outcome,
        _: bool,
    ) -> Result<Result<(), dormouse_core::Failure>, host::Stop> {
        Err(host::Stop)
    }

    async fn start(&mut self, _: host::StartCall) -> Result<dormouse_core::Seq, host::Stop> {
        Err(host::Stop)
    }

    async fn await_any(&mut self, _: &[dormouse_core::Seq]) -> Result<u32, host::Stop> {
        Err(host::Stop)
    }

    fn outcome(&mut self, _: dormouse_core::Seq) -> Option<dormouse_core::Outcome> {
        None
    }

    async fn cancel(&mut self, _: dormouse_core::Seq) -> Result<(), host::Stop> {
        Err(host::Stop)
    }

    fn now(&self) -> dormouse_core::Timestamp {
        dormouse_core::Timestamp::EPOCH
    }

    fn log(&mut self, _: host::LogLevel, _: String, _: Option<Json>, _: bool) {}

    fn placeholder(&self, name: &str) -> Result<String, Failure> {
        Err(Failure::terminal(
            "grant-missing",
            format!("there is no secret \"{name}\""),
        ))
    }

    fn config(&self, _: &str) -> Option<Json> {
        None
    }
}
