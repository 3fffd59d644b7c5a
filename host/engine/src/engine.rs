//! The wasmtime engine, how it is set, and the gate in front of its instances.

use std::any::Any;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dormouse_core::Digest;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use crate::cache::Cache;
use crate::capability;
use crate::capability::http::Http;
use crate::compile::Compiler;
use crate::drive::Drive;
use crate::host::RunHost;
use crate::leg::{self, Leg, LegEnd, LegStats};
use crate::limiter::{Limiter, NodeMemory, TABLE_ELEMENTS_MAX};
use crate::module;
use crate::shared::{Shared, lock};
use crate::state::{HostState, Phase};
use crate::ticker::Ticker;
use crate::trap::{self, FRAMES_MAX, GuestTrap};

/// Stack of a guest's compiled code.
const STACK_BYTES: usize = 512 << 10;
/// Stack that the host's functions share with it.
const FIBER_BYTES: usize = 1 << 20;
/// How much of a slot's memory is cleared by hand rather than given back to the system when its instance ends.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;

/// The most that one call may make the host copy out of a guest, in bytes; lists may name the same memory many times.
/// More than any payload may have, so that those are refused by name.
const CALL_BYTES_MAX: usize = 32 << 20;

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where compiled modules are kept. Made if it is missing; nobody else may write there.
    pub cache_dir: PathBuf,
    /// How many instances there may be at once, parked ones among them. More legs wait their turn.
    pub instances_max: u32,
    /// The most linear memory any module's limits can give one instance, in bytes. Costs address space, not memory.
    pub instance_memory_max: usize,
    /// The most linear memory of all instances together, in bytes.
    pub node_memory_max: usize,
    /// How often a computing guest yields and its budget is looked at.
    pub tick: Duration,
}

impl EngineOptions {
    /// The defaults: 1,000 instances, 256 MiB for one and 1 GiB for all, 5 ms.
    pub fn new(cache_dir: impl Into<PathBuf>) -> EngineOptions {
        EngineOptions {
            cache_dir: cache_dir.into(),
            instances_max: 1_000,
            instance_memory_max: 256 << 20,
            node_memory_max: 1 << 30,
            tick: Duration::from_millis(5),
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cache directory cannot be used.
    #[error("the directory of compiled modules, {}, cannot be used: {error}", .path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("a thread of the engine cannot be started: {0}")]
    Thread(std::io::Error),
    /// The engine itself refuses its settings, mostly for want of address space.
    #[error("the WebAssembly engine cannot be set up with {instances} instances of {memory} bytes: {reason}")]
    Setup {
        /// How many instances were asked for.
        instances: u32,
        /// How much address space for each.
        memory: usize,
        /// What the engine says.
        reason: String,
    },
}

/// How many instances there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instances {
    /// There now, parked ones among them.
    pub live: u32,
    /// Legs that wait for one: a sign to drop what is parked.
    pub waiting: u32,
    /// The most there may be.
    pub max: u32,
    /// Linear memory of all of them, in bytes.
    pub memory_bytes: usize,
}

/// Compiles, keeps and runs modules. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine(Arc<Parts>);

pub(crate) struct Parts {
    /// Instances from a pool: for what fits into its slots, as guests in Rust do.
    pub(crate) pooled: Instantiator,
    /// Instances made on demand: for large language runtimes, which are several core modules with several memories.
    pub(crate) on_demand: Instantiator,
    pub(crate) cache: Cache,
    pub(crate) compiler: Compiler,
    pub(crate) ticker: Ticker,
    pub(crate) modules: Mutex<HashMap<Digest, Weak<module::Inner>>>,
    /// What is being loaded: whoever else needs it waits for that.
    pub(crate) loading: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    options: EngineOptions,
    gate: Semaphore,
    waiting: AtomicUsize,
    memory: Arc<NodeMemory>,
}

/// An engine of wasmtime, and what its guests may import. Both engines have the same settings but for where instances come
/// from, so that compiled code fits either.
pub(crate) struct Instantiator {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<HostState>,
}

impl Instantiator {
    fn new(config: &Config) -> wasmtime::Result<Instantiator> {
        let wasmtime = wasmtime::Engine::new(config)?;
        let linker = capability::link(&wasmtime)?;
        Ok(Instantiator { wasmtime, linker })
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("instances", &self.instances())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets an engine up.
    ///
    /// # Errors
    /// When the cache directory cannot be used, or there is not enough address space for the instances.
    pub fn new(options: EngineOptions) -> Result<Engine, EngineError> {
        let refused = |error: wasmtime::Error| EngineError::Setup {
            instances: options.instances_max,
            memory: options.instance_memory_max,
            reason: format!("{error:#}"),
        };
        let mut config = config(&options);
        let on_demand = Instantiator::new(&config).map_err(refused)?;
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(&options)));
        let pooled = Instantiator::new(&config).map_err(refused)?;
        let engines = [&pooled.wasmtime, &on_demand.wasmtime];
        let ticker = Ticker::start(engines.map(wasmtime::Engine::weak), options.tick);
        let cache = Cache::open(&options.cache_dir, engines).map_err(|error| EngineError::Cache {
            path: options.cache_dir.clone(),
            error,
        })?;
        Ok(Engine(Arc::new(Parts {
            pooled,
            on_demand,
            cache,
            compiler: Compiler::start().map_err(EngineError::Thread)?,
            ticker: ticker.map_err(EngineError::Thread)?,
            modules: Mutex::default(),
            loading: Mutex::default(),
            gate: Semaphore::new(options.instances_max as usize),
            waiting: AtomicUsize::new(0),
            memory: Arc::new(NodeMemory::new(options.node_memory_max)),
            options,
        })))
    }

    /// How many instances there are.
    pub fn instances(&self) -> Instances {
        let max = self.0.options.instances_max;
        Instances {
            live: max.saturating_sub(u32::try_from(self.0.gate.available_permits()).unwrap_or(max)),
            waiting: u32::try_from(self.0.waiting.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            max,
            memory_bytes: self.0.memory.used(),
        }
    }

    /// Drives a leg to its end. Waits for a free instance first.
    ///
    /// The host comes back, whatever happens to the guest. Dropping the future drops the instance, and the host with it.
    pub async fn run_leg<H: RunHost>(&self, leg: Leg, host: H) -> (LegEnd, H, LegStats) {
        let _permit = self.permit().await;
        let shared = Arc::new(Shared::default());
        let state = HostState::new(
            Box::new(host),
            Phase::Outside,
            Some(leg.context),
            leg.seed,
            leg.limits,
            self.limiter(leg.limits.memory_bytes),
            Http::new(leg.http, shared.clone()),
            shared.clone(),
            leg.interrupt.clone(),
        );
        let mut store = store(leg.module.0.pre.engine(), state);
        let input = leg.input.as_str().to_owned();
        let answer = {
            let call = pin!(async {
                let module = leg.module.0.pre.instantiate_async(&mut store).await?;
                let functions = module.dormouse_function_functions();
                functions.call_run(&mut store, &leg.function, &input).await
            });
            let drive = Drive {
                call,
                shared: shared.clone(),
                interrupt: leg.interrupt,
                ticker: &self.0.ticker,
                alarm: None,
            };
            drive.await
        };
        let mut state = store.into_data();
        state.flush_stdio(true);
        let step = state.step().map(str::to_owned);
        let end = match answer {
            Err(trap) => LegEnd::Trapped(trap.into_trap(step)),
            Ok(Err(error)) => {
                let trap = trap::read(&error, &lock(&shared.stdio), step);
                if trap.is_none() {
                    state.host.stopped_at(&|| trap::own_frames(&error));
                }
                trap.map_or(LegEnd::Stopped, LegEnd::Trapped)
            }
            Ok(Ok(_)) if step.is_some() => LegEnd::Trapped(
                GuestTrap::new(
                    "bad-call",
                    "the function returned while the body of a step was open",
                )
                .into_trap(step),
            ),
            Ok(Ok(returned)) => leg::completion(returned),
        };
        let stats = LegStats {
            cpu: shared.cpu_total(),
            memory_bytes: state.limiter.used(),
            host_calls: state.host_calls,
            yields: shared.yields.load(Ordering::Relaxed),
        };
        let host: Box<dyn Any> = state.host.into_any();
        match host.downcast::<H>() {
            Ok(host) => (end, *host, stats),
            Err(_) => unreachable!("the host goes in as this type, and nothing replaces it"),
        }
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }

    /// Waits for the right to an instance.
    pub(crate) async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.0.gate.try_acquire() {
            return Some(permit);
        }
        let _waiting = Waiting::begin(&self.0.waiting);
        // Nobody closes the gate.
        self.0.gate.acquire().await.ok()
    }

    pub(crate) fn limiter(&self, memory_bytes: usize) -> Limiter {
        Limiter::new(
            memory_bytes.min(self.0.options.instance_memory_max),
            self.0.memory.clone(),
        )
    }
}

/// A store that yields and looks at its guest's budget at every tick.
pub(crate) fn store(engine: &wasmtime::Engine, state: HostState) -> Store<HostState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(CALL_BYTES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| context.data_mut().tick());
    store
}

/// Counts a leg that waits, also when it gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn begin(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn pool(options: &EngineOptions) -> PoolingAllocationConfig {
    let instances = options.instances_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        // A component of Rust's is a handful of core instances: its own, and small ones that tie it together.
        .total_core_instances(instances.saturating_mul(12))
        .max_core_instances_per_component(12)
        .total_memories(instances)
        .max_memories_per_component(1)
        .total_tables(instances.saturating_mul(4))
        .max_tables_per_component(4)
        .total_stacks(instances)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(options.instance_memory_max)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .async_stack_keep_resident(64 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// All that compiled code depends on.
fn config(options: &EngineOptions) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // The compiler has one thread, of low priority.
        .parallel_compilation(false)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(FIBER_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES_MAX))
        .memory_reservation(options.instance_memory_max as u64)
        .memory_guard_size(64 << 20);
    config
}
