// Functions in JavaScript, written to the plain contract of wit/: no SDK between.
//
// The same functions, with the same outputs, as in ../python/app.py.
import steps from "dormouse:function/steps@0.1.0";
import context from "dormouse:function/context@0.1.0";

const failure = (message, code, retry, details = null) => ({ message, code, details, retry: { tag: retry } });

// What a body or a function threw, as the contract's failure.
const asFailure = (error) =>
  error && typeof error === "object" && "retry" in error
    ? error
    : failure(String(error?.message ?? error), "javascript", "default");

// Runs a body durably. A failed attempt that will be repeated comes back here on a replay, as `deferred`.
function runStep(name, body, options = null) {
  for (;;) {
    const start = steps.beginRun(name, options && JSON.stringify(options));
    if (start.tag === "recorded") {
      if (start.val.tag === "err") throw start.val.val;
      return JSON.parse(start.val.val);
    }
    if (start.tag === "deferred") {
      steps.awaitAny([start.val]);
      continue;
    }
    const attempt = start.val;
    let outcome;
    try {
      outcome = { tag: "ok", val: JSON.stringify(body(attempt)) };
    } catch (error) {
      outcome = { tag: "err", val: asFailure(error) };
    }
    try {
      // Throws what was recorded, when that is a failure; it may be the host's own.
      steps.finishRun(attempt, outcome);
    } catch (error) {
      throw error.payload ?? error;
    }
    return JSON.parse(outcome.val);
  }
}

const result = (operation) => JSON.parse(operation.result());

// Handles stay here until the run is over: a collector must not be what gives an operation up.
const held = [];
const hold = (operation) => (held.push(operation), operation);

const functions = {
  // Three bodies, each with what the one before came to.
  sequence() {
    let total = 0;
    for (const number of [1, 2, 3]) total = runStep(`add-${number}`, () => total + number);
    return total;
  },

  // What is started first ends last; all three are waited for.
  parallel() {
    const waits = [["slow", 3_000], ["middling", 2_000], ["fast", 1_000]];
    const open = waits.map(([name, ms]) => [name, hold(steps.startSleep(name, ms, null))]);
    const order = [];
    while (open.length > 0) {
      const index = steps.awaitAny(open.map(([, operation]) => operation));
      const [[name, operation]] = open.splice(index, 1);
      if (result(operation) !== null) throw new Error("a sleep has no result");
      order.push(name);
    }
    return order;
  },

  // The quicker of an event and a sleep; the other is given up.
  race() {
    const event = hold(steps.startWaitForEvent("event", "foreign/go", JSON.stringify({ timeout_ms: 3_600_000 })));
    const nap = hold(steps.startSleep("nap", 60_000, null));
    if (steps.awaitAny([event, nap]) === 0) {
      nap.cancel();
      return { first: "event", data: result(event).data };
    }
    event.cancel();
    return { first: "nap" };
  },

  // A body, an hour, a body; time and chance are the host's.
  suspend(event) {
    const before = runStep("before", (attempt) => ({ attempt: attempt.number() }));
    const begun = context.now();
    const chance = Array.from(context.random(4)).join();
    const operation = hold(steps.startSleep("an-hour", 3_600_000, null));
    steps.awaitAny([operation]);
    const again = runStep("after", () => chance);
    return { before, waited_ms: context.now() - begun, same: again === chance, data: event.data };
  },

  // Fails twice, then does not.
  flaky() {
    return runStep("flaky", (attempt) => {
      if (attempt.number() < 3) throw new Error(`attempt ${attempt.number()}`);
      return attempt.number();
    });
  },

  // A step that fails for good is caught; the function itself fails with words of its own.
  compensate() {
    try {
      runStep("charge", () => {
        throw failure("no money", "declined", "never");
      });
    } catch (error) {
      runStep("refund", () => error.code);
      throw failure("gave up", "gave-up", "never", JSON.stringify({ because: error.code }));
    }
  },

  // Never ends.
  endless() {
    for (;;);
  },

  // Takes all the memory that there is.
  hoard() {
    const kept = [];
    for (;;) kept.push(new Uint8Array(1 << 20).fill(1));
  },
};

function describe() {
  const manifest = Object.keys(functions).map((id) => ({
    id,
    triggers: [{ event: `foreign/${id}` }],
    backoff: { initial_ms: 1000, factor: 2, max_ms: 60000 },
  }));
  return JSON.stringify({ schema: 1, sdk: "none/javascript", functions: manifest });
}

function run(name, input) {
  try {
    return { tag: "done", val: JSON.stringify(functions[name](JSON.parse(input).event) ?? null) };
  } catch (error) {
    throw asFailure(error);
  }
}

export { functionsExport as functions };
const functionsExport = { describe, run };
