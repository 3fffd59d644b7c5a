//! The contract of `wit/` in Rust, generated. Only calls that the run's host may take its time over are async.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "dormouse:function/module",
    imports: {
        "dormouse:function/steps.begin-run": async | trappable,
        "dormouse:function/steps.finish-run": async | trappable,
        "dormouse:function/steps.start-sleep": async | trappable,
        "dormouse:function/steps.start-sleep-until": async | trappable,
        "dormouse:function/steps.start-wait-for-event": async | trappable,
        "dormouse:function/steps.start-wait-for-signal": async | trappable,
        "dormouse:function/steps.start-invoke": async | trappable,
        "dormouse:function/steps.start-send-events": async | trappable,
        "dormouse:function/steps.start-send-signal": async | trappable,
        "dormouse:function/steps.start-fetch": async | trappable,
        "dormouse:function/steps.start-sql": async | trappable,
        "dormouse:function/steps.await-any": async | trappable,
        "dormouse:function/steps.[method]operation.cancel": async | trappable,
        "dormouse:function/steps.[drop]operation": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "dormouse:function/steps.operation": crate::capability::steps::Operation,
        "dormouse:function/steps.attempt": crate::capability::steps::Attempt,
    },
    require_store_data_send: true,
});

pub use dormouse::function::{config, context, log, secrets, steps, types};
