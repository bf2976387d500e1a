"""The judge: each kind of loss and each kind of double payment is seen, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from chaos import failpoints, flows
from chaos.answers import question_hash
from chaos.billing import Ask, Attempt, Stored, answer_id, asks_of, draw_up, question_of_request
from chaos.observer import Observer
from ekiden import failpoint

PLACE = ("k", 1, "EXECUTE", 2)
ASK = Ask(
    id="a1", at=10.0, question="q", place=PLACE, attempt=1, behaviour="ok", billed=True, sent=True
)
AGAIN = replace(ASK, id="a2", at=20.0, attempt=2)
ROW = Stored(answer_id="a1", question="q", outcome="ANSWERED", at=11.0)
LOST = {(PLACE, 1): Attempt(outcome="LOST", started=9.0)}
DONE = {(PLACE, 2): Attempt(outcome="COMPLETED", started=19.0)}


def test_an_answer_in_the_ledger_once_is_no_complaint() -> None:
    bill = draw_up([ASK], [ROW], {(PLACE, 1): Attempt(outcome="COMPLETED", started=9.0)})
    assert (bill.asked, bill.billed, bill.stored) == (1, 1, 1)
    assert not bill.stored_twice + bill.received_and_lost + bill.paid_though_stored
    assert bill.paid_twice == bill.paid_twice_per_crash == 0


def test_an_answer_stored_twice_is_seen() -> None:
    assert draw_up([ASK], [ROW, ROW], {}).stored_twice == ["a1"]


def test_an_answer_received_without_a_crash_and_not_stored_is_lost() -> None:
    ended = {(PLACE, 1): Attempt(outcome="COMPLETED", started=9.0)}
    assert draw_up([ASK], [], ended).received_and_lost
    assert not draw_up([ASK], [], LOST).received_and_lost, "it was on its way at a crash"
    cut = replace(ASK, behaviour="reset_at_99", sent=False)
    assert not draw_up([cut], [], ended).received_and_lost, "it never came whole"


def test_paying_once_more_is_for_a_crash_only() -> None:
    bill = draw_up([ASK, AGAIN], [replace(ROW, answer_id="a2", at=21.0)], LOST | DONE)
    assert (bill.paid_twice, bill.paid_twice_per_crash) == (1, 1)
    assert not bill.paid_twice_without_crash
    retried = {(PLACE, 1): Attempt(outcome="RETRIED", started=9.0)} | DONE
    assert draw_up([ASK, AGAIN], [ROW], retried).paid_twice_without_crash
    faulty = replace(ASK, behaviour="truncated_stream", sent=False)
    bill = draw_up([faulty, AGAIN], [], retried)
    assert bill.paid_twice == 0, "the provider's own fault"
    assert bill.cut_by_provider == 1


def test_two_answers_lost_in_one_crash_of_a_task_are_counted_together() -> None:
    other = [replace(a, id=f"{a.id}-other", question="q2") for a in (ASK, AGAIN)]
    assert draw_up([ASK, AGAIN, *other], [], LOST | DONE).paid_twice_per_crash == 2


def test_paying_for_what_the_ledger_had_is_seen() -> None:
    bill = draw_up([ASK, AGAIN], [ROW], LOST | DONE)
    assert len(bill.paid_though_stored) == 1
    assert "a2" in bill.paid_though_stored[0]
    # A zombie's answer, stored after the next attempt began: paid is paid, and nobody's fault.
    late = replace(ROW, at=19.5)
    assert not draw_up([ASK, AGAIN], [late], LOST | DONE).paid_though_stored
    # An answer of no use is asked for again.
    useless = replace(ROW, outcome="INVALID")
    assert not draw_up([ASK, AGAIN], [useless], LOST | DONE).paid_though_stored


def test_paying_for_what_could_be_fetched_is_seen() -> None:
    kept = replace(ROW, outcome="STARTED")
    bill = draw_up([ASK, AGAIN], [kept], LOST | DONE)
    assert bill.paid_though_kept
    assert not bill.paid_though_stored
    assert bill.stored == 0, "an id is not an answer"


def test_provider_and_ledger_name_a_question_alike() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    request = {"messages": [["user", "駅伝?"]], "schema": schema, "maxTokens": 9}
    assert question_of_request(request) == question_hash([["user", "駅伝?"]], dict(schema))
    assert question_of_request(request) != question_hash([["user", "駅伝!"]], dict(schema))


def test_the_log_is_read_by_session() -> None:
    def line(key: str, **more: object) -> dict[str, object]:
        asked = {"event": "asked", "id": key, "at": 1.0, "key": key, "question": "q"}
        place = {"prompt": f"[key {key}] [place 3/I/0/1] x", "seed": 2001}
        return asked | place | {"behaviour": "ok", "status": 200, "billed": True} | more

    log = [line("a"), line("b"), {"event": "sent", "id": "a", "at": 2.0}]
    [ask] = asks_of(log, {"a"})
    assert (ask.place, ask.attempt, ask.sent) == (("a", 3, "INTEGRATE", 0), 2, True)


@pytest.mark.parametrize("raw", [b'data: {"id":"chatcmpl-0a","x":1}', b'{"id": "chatcmpl-0a"}'])
def test_an_answer_is_known_by_the_id_the_provider_gave_it(raw: bytes) -> None:
    assert answer_id(raw) == "chatcmpl-0a"


async def test_the_expected_outputs_depend_on_key_and_seed() -> None:
    one = await flows.expected("k", 1)
    assert one == await flows.expected("k", 1)
    assert one != await flows.expected("k", 2) != await flows.expected("j", 1)
    assert sorted(one) == [1, 2, 3]


def test_the_matrix_has_every_failpoint_in_every_kind_of_place() -> None:
    cells = failpoints.all_cells()
    assert {cell.failpoint for cell in cells} == set(failpoint.NAMES)
    assert len({(cell.name) for cell in cells}) == len(cells)
    for name in failpoint.NAMES:
        if name.startswith(("call.", "commit.", "claim.after")):
            places = {(c.phase, c.step) for c in cells if c.failpoint == name}
            assert places == set(flows.PLACES)
    assert (2, "EXECUTE") not in flows.PLACES, "one phase has no EXECUTE"


@pytest.mark.parametrize("seed", range(5))
def test_the_short_matrix_has_every_failpoint(seed: int) -> None:
    chosen = failpoints.some_cells(seed)
    assert {cell.failpoint for cell in chosen} == set(failpoint.NAMES)
    assert any(cell.frozen and cell.failpoint == "commit.sent" for cell in chosen)
    assert len(set(chosen)) == len(chosen)
    assert chosen == failpoints.some_cells(seed)
    assert chosen != failpoints.some_cells(seed + 1)


async def test_the_witness_misses_what_is_gone_and_what_changed(database: str) -> None:
    insert = """
        INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, item, generation, status,
                                      attempt, worker_id, started_at, queued)
        VALUES (gen_random_uuid(), 1, 1, 'THINK', 0, 1, 'RUNNING', 1, 1, now(), false)
        RETURNING id"""
    done = "UPDATE ekiden.api_tasks SET status = 'COMPLETED', result = $2 WHERE id = $1"
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        early = await pool.fetchval(insert)
        await pool.execute(done, early, '{"n": 1}')
        async with Observer(database) as observer:
            seen = [early]
            for n in range(3):
                seen.append(await pool.fetchval(insert))
                large = "x" * 9000 if n == 2 else "small"
                await pool.execute(done, seen[-1], f'{{"n": "{large}"}}')
            while len(observer.completed) < 4:
                await observer.looked()
            assert await observer.missing(pool) == ([], [])
            await pool.execute("DELETE FROM ekiden.api_tasks WHERE id = $1", seen[0])
            await pool.execute("UPDATE ekiden.api_tasks SET result = '{}' WHERE id = $1", seen[1])
            assert await observer.missing(pool) == (seen[:2], [])
