"""Functions in Python, written to the plain contract of wit/: no SDK between.

The same functions, with the same outputs, as in ../javascript/module.js.
"""

import json

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.exports.functions import Completion_Done
from wit_world.imports import context, steps
from wit_world.imports.steps import RunStart_Deferred, RunStart_Recorded
from wit_world.imports.types import Failure, Retry_Default, Retry_Never


def run_step(name, body, options=None):
    """Runs a body durably. A failed attempt that will be repeated comes back here on a replay, as `deferred`."""
    while True:
        start = steps.begin_run(name, options and json.dumps(options))
        if isinstance(start, RunStart_Recorded):
            if isinstance(start.value, Err):
                raise start.value
            return json.loads(start.value.value)
        if isinstance(start, RunStart_Deferred):
            steps.await_any([start.value])
            continue
        attempt = start.value
        try:
            value = body(attempt)
        except Exception as error:
            steps.finish_run(attempt, Err(failure(error)))
            raise
        steps.finish_run(attempt, Ok(json.dumps(value)))
        return value


def failure(error):
    if isinstance(error, Err):
        return error.value
    return Failure(str(error), "python", None, Retry_Default())


def result(operation):
    return json.loads(operation.result())


def sequence(_event):
    """Three bodies, each with what the one before came to."""
    total = 0
    for number in (1, 2, 3):
        total = run_step(f"add-{number}", lambda _: total + number)
    return total


def parallel(_event):
    """What is started first ends last; all three are waited for."""
    waits = [("slow", 3_000), ("middling", 2_000), ("fast", 1_000)]
    open_ones = [(name, steps.start_sleep(name, ms, None)) for name, ms in waits]
    order = []
    while open_ones:
        index = steps.await_any([operation for _, operation in open_ones])
        name, operation = open_ones.pop(index)
        assert result(operation) is None
        order.append(name)
    return order


def race(_event):
    """The quicker of an event and a sleep; the other is given up."""
    event = steps.start_wait_for_event("event", "foreign/go", json.dumps({"timeout_ms": 3_600_000}))
    nap = steps.start_sleep("nap", 60_000, None)
    if steps.await_any([event, nap]) == 0:
        nap.cancel()
        return {"first": "event", "data": result(event)["data"]}
    event.cancel()
    return {"first": "nap"}


def suspend(event):
    """A body, an hour, a body; time and chance are the host's."""
    before = run_step("before", lambda attempt: {"attempt": attempt.number()})
    begun = context.now()
    chance = context.random(4).hex()
    operation = steps.start_sleep("an-hour", 3_600_000, None)
    steps.await_any([operation])
    again = run_step("after", lambda _: chance)
    return {
        "before": before,
        "waited_ms": context.now() - begun,
        "same": again == chance,
        "data": event["data"],
    }


def flaky(_event):
    """Fails twice, then does not."""

    def body(attempt):
        if attempt.number() < 3:
            raise ValueError(f"attempt {attempt.number()}")
        return attempt.number()

    return run_step("flaky", body)


def compensate(_event):
    """A step that fails for good is caught; the function itself fails with words of its own."""

    def body(_attempt):
        raise Err(Failure("no money", "declined", None, Retry_Never()))

    try:
        run_step("charge", body)
    except Err as error:
        run_step("refund", lambda _: error.value.code)
        raise Err(Failure("gave up", "gave-up", json.dumps({"because": error.value.code}), Retry_Never()))


def endless(_event):
    """Never ends."""
    while True:
        pass


def hoard(_event):
    """Takes all the memory that there is."""
    kept = []
    while True:
        kept.append(bytearray(b"x" * (1 << 20)))


FUNCTIONS = {
    function.__name__: function
    for function in (sequence, parallel, race, suspend, flaky, compensate, endless, hoard)
}


class Functions(exports.Functions):
    def describe(self):
        functions = [
            {"id": name, "triggers": [{"event": f"foreign/{name}"}], "backoff": {"initial_ms": 1000, "factor": 2, "max_ms": 60000}}
            for name in FUNCTIONS
        ]
        return json.dumps({"schema": 1, "sdk": "none/python", "functions": functions})

    def run(self, function, input):
        event = json.loads(input)["event"]
        try:
            return Completion_Done(json.dumps(FUNCTIONS[function](event)))
        except Exception as error:
            raise Err(failure(error))
