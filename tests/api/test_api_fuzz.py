"""No input makes a 500: what OpenAPI describes, and much that it does not, on a real database.

Derandomized: the same requests in every run, so a failure is never a matter of luck.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.conftest import Start
from tests.api.relay import Relay

EXAMPLES = 12  # an operation and mode: some seconds in all
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
bounded = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


async def test_no_request_makes_a_server_error(relay: Relay, serve: Start, base: str):
    client = await serve(heartbeat=0.2)
    schema = (await client.get("/openapi.json")).json()
    made: list[str] = []
    budgets = {"budget": {"maxCostUsd": 1.5}, "budgets": {"1": {"maxTokens": 100}}}
    given = {"input": {"theme": "tea"}, "start": True, "options": budgets}
    for _ in range(4):
        answer = await client.post(f"{base}/create", json=given)
        made.append(answer.json()["sessionId"])
    await client.post(f"{base}/{made[0]}/cancel")
    await relay.run_phase(made[1])
    await relay.fail(made[2])
    task = await relay.claim(made[3])
    address = str(client.base_url).rstrip("/")
    count = await asyncio.to_thread(_attack, address, schema, made, task.id)
    assert count > 300
    assert (await client.get("/readyz")).status_code == 200


def _attack(address: str, document: dict[str, Any], made: list[str], task_id: int) -> int:
    """Send requests of every kind to every operation; return how many."""
    schema = schemathesis.openapi.from_dict(document)
    with requests.Session() as session:
        return sum(
            _attack_one(
                result.ok(), mode, address=address, session=session, made=made, task_id=task_id
            )
            for result in schema.get_all_operations()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        )


def _attack_one(
    operation: Any,
    mode: GenerationMode,
    *,
    address: str,
    session: requests.Session,
    made: list[str],
    task_id: int,
) -> int:
    # Only a stream of a session that has ended ends.
    follows = operation.path.endswith("/events")
    ids = made[:1] if follows else made
    count = 0

    @bounded
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        nonlocal count
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if follows or data.draw(st.integers(0, 3)):  # else in a place that there is not
            known = {
                "flow": "demo",
                "sessionId": data.draw(st.sampled_from(ids)),
                "taskId": task_id,
            }
            for name in set(known) & set(case.path_parameters):
                case.path_parameters[name] = known[name]
        response = case.call(base_url=address, session=session, timeout=10)
        case.validate_response(response, checks=CHECKS)
        count += 1

    with suppress(Unsatisfiable):  # nothing about this operation can be got wrong
        attack()
    return count
