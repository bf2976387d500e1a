"""How the process of a cell meets its end: a worker, a rescuer, or who decides at a gate."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import time
from dataclasses import replace
from functools import partial

from chaos.failpoints import Cell
from chaos.house import RUNS_ON, House, NotReached, Process, free_port, wait_until
from ekiden import failpoint

PATIENCE = 40.0  # seconds until a failpoint counts as not reached
_DYING = 5.0  # seconds that a process has to end whose own commit ended all sessions
LEASE = "2"  # seconds; a frozen worker is given up after as long


async def die(house: House, cell: Cell) -> None:
    """Create the cell's sessions and let a process die at its failpoint.

    Raises:
        NotReached: it did not die, or not there.
    """
    if cell.failpoint.startswith("review."):
        await _die_deciding(house, cell)
    elif cell.failpoint.startswith("rescue."):
        await _die_rescuing(house, cell)
    elif cell.frozen:
        await _freeze_working(house, cell)
    else:
        await _die_working(house, cell)


def sessions_of(cell: Cell) -> int:
    """Return how many sessions the cell runs."""
    if cell.failpoint.startswith("review."):
        return 1
    return 4 if cell.failpoint.startswith("rescue.") else 2


async def _create(house: House, cell: Cell) -> list[str]:
    options = replace(RUNS_ON, auto_phases=not (cell.gates or cell.held), auto_steps=not cell.held)
    name = house.folder.name  # one provider serves all cells: a key is its cell's own
    return [await house.create(f"{name}-{n}", options) for n in range(sessions_of(cell))]


async def _die_working(house: House, cell: Cell) -> None:
    await _create(house, cell)
    await _dead_at(house, cell, house.worker(failpoint=cell.armed))


async def _freeze_working(house: House, cell: Cell) -> None:
    """A worker freezes beyond its lease and wakes when its tasks run elsewhere: a zombie.

    The second freezes in the same place, so that it holds the task when the first one goes on with
    it: what the first one writes then, only the attempt's number can refuse.
    """
    await _create(house, cell)
    short = {"EKIDEN_LEASE": LEASE, "EKIDEN_FAILPOINT_DOES": "freeze"}
    first = house.worker(failpoint=cell.armed, **short)
    await _frozen(house, cell, first)
    if cell.failpoint == "commit.after":  # nobody has this task again, only what follows it
        second = house.worker(**short)
        await house.drain(PATIENCE)
        # At once, when one commit ended all sessions: then it has not been away for long enough.
        await wait_until(partial(_given_up, house), PATIENCE, "nobody gave the frozen worker up")
    else:
        second = house.worker(failpoint=cell.armed, **short)
        await _frozen(house, cell, second)
        lost = await house.pool.fetchval(
            "SELECT count(*) FROM ekiden.attempts WHERE outcome = 'LOST'"
        )
        if not lost:
            raise NotReached(f"{cell.armed}: nothing was taken over from the frozen worker")
    held = await house.pool.fetch(
        "SELECT id, attempt FROM ekiden.api_tasks WHERE status = 'RUNNING' AND attempt > 1"
    )
    first.thaw()
    await wait_until(
        lambda: "worker_lost" in first.log.read_text(), PATIENCE, "the zombie never noticed"
    )
    if second.frozen:
        woken = await house.pool.fetchval("SELECT ekiden.now()")
        house.asleep.update({(row["id"], row["attempt"]): woken for row in held})
    second.thaw()


async def _given_up(house: House) -> bool:
    """Whether a worker was."""
    lost: int = await house.pool.fetchval(
        "SELECT count(*) FROM ekiden.workers WHERE state = 'LOST'"
    )
    return lost > 0


async def _frozen(house: House, cell: Cell, process: Process) -> None:
    """Wait until the process froze at the failpoint."""
    give_up = time.monotonic() + PATIENCE
    while not process.frozen:
        give_up = min(give_up, await _soon_if_drained(house))
        if not process.alive or time.monotonic() > give_up:
            raise NotReached(f"{cell.armed} was not reached: {process.last_words(500)}")
        await asyncio.sleep(0.01)


async def _die_rescuing(house: House, cell: Cell) -> None:
    """One worker dies with tasks in its hands; the one that takes them over dies doing it.

    The second has room for one task, so that the first has the others; it is there before the
    first dies, or comes after: it must notice either way.
    """
    await _create(house, cell)
    victim = house.worker(failpoint=f"call.before:{cell.step}:{cell.phase}")
    rescuer = house.worker(failpoint=cell.armed, WORKER_BATCH_SIZE="1")
    await _dead_at(house, cell, victim)
    await _dead_at(house, cell, rescuer)


async def _die_deciding(house: House, cell: Cell) -> None:
    """Who approves dies over the decision, and asks again: the gate is passed once."""
    [session] = await _create(house, cell)
    await house.worker().is_ready()
    for gate in range(1, cell.phase):
        await _at_gate(house, session, gate)
        await house.approve(session, gate)
    await _at_gate(house, session, cell.phase)
    if cell.by == "cli":
        await _approve_by_command(house, cell, session)
    else:
        await _approve_by_request(house, cell, session)
    house.approved[session, cell.phase] = 1


async def _approve_by_command(house: House, cell: Cell, session: str) -> None:
    # Only what was looked at: without it, asking again could approve the next gate unseen.
    seen = (await house.sessions.revisions(session))[-1].id
    words = ["sessions", "approve", session, "--revision", str(seen)]
    await _dead_at(house, cell, house.start("approve", words, failpoint=cell.armed))
    again = house.start("approve", words)
    code = await again.gone()
    # The second time there is no gate any more if the first did pass it.
    if code != (1 if cell.failpoint == "review.after" else 0):
        raise NotReached(f"approving again ended with {code}: {again.last_words()}")


async def _approve_by_request(house: House, cell: Cell, session: str) -> None:
    port = free_port()
    path = f"/api/chaos/cot-session/{session}/proceed-next-phase"
    first = await house.api(port, failpoint=cell.armed).is_ready()
    answer = await asyncio.to_thread(post, port, path, key=session)
    if answer is not None:
        raise NotReached(f"the API answered {answer} instead of dying")
    if (code := await first.gone()) != failpoint.EXIT_CODE:
        raise NotReached(f"the API died with {code}: {first.last_words()}")
    await house.api(port).is_ready()
    # The same key is the same decision, whether the first one was durable or not.
    answer = await asyncio.to_thread(post, port, path, key=session)
    if answer is None or answer[0] != 200:
        raise NotReached(f"the same decision again was answered with {answer}")


async def _at_gate(house: House, session: str, phase: int) -> None:
    async def there() -> bool:
        found = await house.sessions.get(session)
        return found.status == "AWAITING_REVIEW" and found.phase == phase

    await wait_until(there, PATIENCE, f"{session} does not come to gate {phase}")


async def _dead_at(house: House, cell: Cell, process: Process) -> None:
    """Wait until the process died at the failpoint; open gates meanwhile, unless that is it."""
    give_up = time.monotonic() + PATIENCE
    while process.alive:
        if (cell.gates or cell.held) and not cell.by:
            await house.open_gates()
        give_up = min(give_up, await _soon_if_drained(house))
        if process.alive and time.monotonic() > give_up:
            raise NotReached(f"{cell.armed} was not reached: {process.last_words(500)}")
        await asyncio.sleep(0.01)
    if process.code != failpoint.EXIT_CODE:
        raise NotReached(f"{process.name} died with {process.code}: {process.last_words()}")


async def _soon_if_drained(house: House) -> float:
    """Return until when an end is still to come: what it ends in may be seen before it is."""
    return time.monotonic() + _DYING if await house.drained() else math.inf


def post(port: int, path: str, *, key: str) -> tuple[int, str] | None:
    """POST an empty object; return status and body, None when no answer came. Blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection.request("POST", path, json.dumps({}), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
