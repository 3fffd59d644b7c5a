//! One guest's state: what its store holds, and the budget of time it runs on.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dormouse_core::limit::ModuleLimits;
use rand_chacha::ChaCha20Rng;
use wasmtime::UpdateDeadline;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::capability::http::Http;
use crate::host::{AttemptTicket, RunHost};
use crate::interrupt::Interrupt;
use crate::leg::RunContext;
use crate::limiter::Limiter;
use crate::shared::{BodyClock, Shared, lock};
use crate::trap::GuestTrap;

/// The most handles a guest may hold besides its operations: streams, pollables, requests. What each may hold on the
/// host's side is bounded; this bounds it altogether.
const HANDLES_MAX: usize = 1_024;

/// A run's host that can be taken back out as what it was.
pub(crate) trait AnyHost: RunHost {
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<H: RunHost> AnyHost for H {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Where the guest is.
pub(crate) enum Phase {
    /// Says what it is; nobody answers its calls.
    Describe,
    /// Runs outside bodies: everything it sees must be the same on replay.
    Outside,
    /// Runs a body: what it sees is real.
    Body(Body),
}

/// An open body.
pub(crate) struct Body {
    pub(crate) ticket: AttemptTicket,
    /// The same that pollables and the leg's future see.
    pub(crate) clock: BodyClock,
    /// Whether the instance is no longer what a replay would give.
    pub(crate) state_changed: bool,
}

/// What a guest's store holds: one field per capability, and what bounds it.
pub(crate) struct HostState {
    pub(crate) host: Box<dyn AnyHost>,
    pub(crate) phase: Phase,
    pub(crate) context: Option<RunContext>,
    /// Names every operation the guest holds; WASI's streams and pollables too.
    pub(crate) table: ResourceTable,
    /// Operations that are neither delivered nor cancelled.
    pub(crate) open_operations: usize,
    pub(crate) seed: [u8; 32],
    /// Random outside bodies; made at the first use.
    pub(crate) random: Option<ChaCha20Rng>,
    pub(crate) http: Http,
    /// Files and sockets, all denied; made at the first use.
    pub(crate) denied: Option<Box<WasiCtx>>,
    pub(crate) limits: ModuleLimits,
    pub(crate) limiter: Limiter,
    pub(crate) shared: Arc<Shared>,
    pub(crate) interrupt: Interrupt,
    pub(crate) host_calls: u64,
    budget: Budget,
}

/// How long the guest has computed. Looked at when the epoch advances, so that a call costs nothing.
#[derive(Default)]
struct Budget {
    /// The next look starts the count anew.
    fresh: bool,
    /// Wall time when the stretch began.
    since: Option<Instant>,
    /// The leg's processor time when it began, in nanoseconds.
    cpu_since: u64,
}

impl HostState {
    #[allow(
        clippy::too_many_arguments,
        reason = "made in two places, each naming every part"
    )]
    pub(crate) fn new(
        host: Box<dyn AnyHost>,
        phase: Phase,
        context: Option<RunContext>,
        seed: [u8; 32],
        limits: ModuleLimits,
        limiter: Limiter,
        http: Http,
        shared: Arc<Shared>,
        interrupt: Interrupt,
    ) -> HostState {
        lock(&shared.stdio).allow(limits.stdio_bytes);
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        HostState {
            host,
            phase,
            context,
            table,
            open_operations: 0,
            seed,
            random: None,
            http,
            denied: None,
            limits,
            limiter,
            shared,
            interrupt,
            host_calls: 0,
            budget: Budget {
                fresh: true,
                ..Budget::default()
            },
        }
    }

    /// The step whose body is open.
    pub(crate) fn step(&self) -> Option<&str> {
        match &self.phase {
            Phase::Body(body) => Some(&body.ticket.step),
            _ => None,
        }
    }

    /// Unix nanoseconds as the guest may see them now.
    pub(crate) fn now_nanos(&self) -> u64 {
        match &self.phase {
            Phase::Describe => 0,
            Phase::Outside => {
                let now = self.host.now().as_millis_u64().saturating_mul(1_000_000);
                self.shared.virtual_now.store(now, Ordering::Relaxed);
                now
            }
            Phase::Body(body) => body.clock.now(),
        }
    }

    /// The run's host has answered: the guest's time starts anew.
    pub(crate) fn answered(&mut self) {
        self.host_calls += 1;
        self.budget.fresh = true;
    }

    /// Refuses a call from `describe`.
    pub(crate) fn needs_run(&self, call: &str) -> wasmtime::Result<()> {
        match self.phase {
            Phase::Describe => Err(GuestTrap::new(
                "bad-call",
                format!("`describe` has called `{call}`; it may call nothing, since it runs at upload and not in a run"),
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// Hands what the guest has printed to the log.
    pub(crate) fn flush_stdio(&mut self, all: bool) {
        if !self.shared.stdio_dirty.load(Ordering::Relaxed) {
            return;
        }
        if all {
            self.shared.stdio_dirty.store(false, Ordering::Relaxed);
        }
        let lines = lock(&self.shared.stdio).take(all);
        let in_body = self.step().is_some();
        for (level, line) in lines {
            self.host.log(level, line, None, in_body);
        }
    }

    /// Opens a body on the host's word.
    pub(crate) fn open_body(&mut self, ticket: AttemptTicket) {
        let timeout = ticket.deadline.since(ticket.started_at);
        let started = Instant::now();
        let clock = BodyClock {
            started,
            base: ticket.started_at.as_millis_u64().saturating_mul(1_000_000),
            deadline: started + timeout,
            timeout,
        };
        self.shared.open_body(clock);
        lock(&self.shared.stdio).allow(self.limits.stdio_bytes);
        self.phase = Phase::Body(Body {
            ticket,
            clock,
            state_changed: false,
        });
    }

    /// The epoch has advanced while the guest computed: looks at its budget.
    ///
    /// # Errors
    /// The trap that ends the guest.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.interrupt.fired() {
            return Err(cancelled().into());
        }
        let cpu = self.shared.cpu();
        let now = Instant::now();
        if self.budget.fresh {
            // The first look since a call that may have waited: what came before it is the host's time.
            self.budget = Budget {
                fresh: false,
                since: Some(now),
                cpu_since: cpu,
            };
            if !matches!(&self.phase, Phase::Body(body) if now >= body.clock.deadline) {
                return Ok(UpdateDeadline::Continue(1));
            }
        }
        let used = Duration::from_nanos(cpu.saturating_sub(self.budget.cpu_since));
        let wall = self.budget.since.map_or(Duration::ZERO, |since| now - since);
        match &self.phase {
            Phase::Body(body) => {
                if now >= body.clock.deadline {
                    return Err(step_timeout(body.clock.timeout).into());
                }
                over(
                    used,
                    self.limits.body_cpu_ms,
                    "cpu-limit",
                    "of processor time in one body",
                    "body_cpu_ms",
                )?;
            }
            Phase::Outside | Phase::Describe => {
                over(
                    used,
                    self.limits.cpu_ms,
                    "cpu-limit",
                    "of processor time outside a body without a step; do the work in a body",
                    "cpu_ms",
                )?;
                over(
                    wall,
                    self.limits.stretch_ms,
                    "wall-limit",
                    "outside a body without a step; do the work in a body",
                    "stretch_ms",
                )?;
            }
        }
        self.shared.yields.fetch_add(1, Ordering::Relaxed);
        // Not `UpdateDeadline::Yield`, which leaves the guest runnable: tokio would go to its sockets and timers, and
        // wake others that yielded, only at every 61st turn, which is a third of a second at these ticks.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }
}

fn over(used: Duration, max_ms: u64, code: &'static str, of: &str, setting: &str) -> Result<(), GuestTrap> {
    if used < Duration::from_millis(max_ms) {
        return Ok(());
    }
    let message = format!("the guest took more than {max_ms} ms {of}, or ask an operator to raise {setting}");
    Err(GuestTrap::of_host(code, message))
}

/// The caller's interrupt.
pub(crate) fn cancelled() -> GuestTrap {
    GuestTrap::new("cancelled", "the leg was ended from outside")
}

/// A body took too long.
pub(crate) fn step_timeout(timeout: Duration) -> GuestTrap {
    GuestTrap::of_host(
        "step-timeout",
        format!(
            "the step's body took longer than {} ms; `timeout_ms` of the step's options sets another time",
            timeout.as_millis()
        ),
    )
}

impl crate::bindings::types::Host for HostState {}

/// Files and sockets: there for languages that import them, and all denied.
impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let denied = self.denied.get_or_insert_with(|| {
            let mut builder = WasiCtx::builder();
            builder
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false);
            Box::new(builder.build())
        });
        WasiCtxView {
            ctx: denied,
            table: &mut self.table,
        }
    }
}
