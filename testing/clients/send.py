"""Sends with the `inngest` package, as an application would: everything but the mode comes from the environment.

Reads and writes what send.cjs does.
"""

import json
import logging
import os
import sys

import inngest


def event(payload):
    return inngest.Event(**payload)


def main():
    plan = json.load(sys.stdin)
    logger = logging.getLogger("quiet")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    client = inngest.Inngest(
        app_id="nodebase",
        is_production="INNGEST_DEV" not in os.environ,
        logger=logger,
    )
    results = []
    for payload in plan["send"]:
        events = [event(one) for one in payload] if isinstance(payload, list) else event(payload)
        try:
            results.append({"ids": client.send_sync(events)})
        except Exception as error:
            results.append({"error": str(error) or repr(error)})
    print(json.dumps({"results": results}))


main()
