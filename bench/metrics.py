"""What it costs to know: counting what ended, and asking for it, beside a million finished tasks.

    python bench/metrics.py [--tasks 1000000] [--asked 300] [--json]

first     the roll-up of the whole past in one go, as after an upgrade
new       the roll-up of what a worker has just ended, with all that past beside it
asked     GET /api/metrics/* and /metrics over HTTP, with sums of 15 steps that are always busy
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import asyncpg
import uvloop

import past
from ekiden.store import metrics
from ekiden.store.metrics import Metrics
from ekiden.store.migrate import migrate
from handoff import create_held, let_go, until_done, worker
from measuring import as_text, command, database, percentiles, say, served

STEPS = 15
PATHS = (
    "/api/metrics/summary?window=1h",
    "/api/metrics/summary?window=6h",
    "/api/metrics/summary?window=7d",
    "/api/metrics/steps?window=24h",
    "/api/metrics/steps?window=7d",
    "/api/metrics/bottlenecks?window=7d",
    "/metrics",
)
# All that is kept of 15 steps that are busy every minute: 4 measures, 2 outcomes, 6 buckets each.
_SERIES = """
INSERT INTO ekiden.metric_series (measure, flow, phase, step, source, outcome, error)
SELECT m.measure, 'busy', p.phase, s.step,
       CASE m.measure WHEN 'call' THEN 'openai:gpt-5' ELSE '' END, o.outcome,
       CASE o.outcome WHEN 'RETRIED' THEN 'ModelBusy' ELSE '' END
FROM unnest(ARRAY['attempt', 'wait', 'step', 'call']) AS m(measure)
CROSS JOIN generate_series(1, 5) AS p(phase)
CROSS JOIN unnest(ARRAY['THINK', 'EXECUTE', 'INTEGRATE']) AS s(step)
CROSS JOIN unnest(ARRAY['COMPLETED', 'RETRIED']) AS o(outcome)
"""
_BUSY = """
INSERT INTO ekiden.metric_rollups
SELECT w.width, h, s.id, 40 + b.bucket, 10, 5, 1000, 100, 0.01, 0
FROM (VALUES ('day', interval '400 days', interval '1 day'),
             ('hour', interval '3 days', interval '1 h'),
             ('minute', interval '13 h', interval '1 min')) AS w(width, back, every)
CROSS JOIN LATERAL generate_series(date_trunc(w.width, now() - w.back, 'UTC'),
                                   date_trunc(w.width, now(), 'UTC'), w.every) AS h
CROSS JOIN ekiden.metric_series s
CROSS JOIN generate_series(1, 6) AS b(bucket)
WHERE s.flow = 'busy'
"""


async def rolled(dsn: str) -> float:
    """Count all that is left to count and return the seconds it took."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        counting = Metrics(pool, dsn)
        begun = time.perf_counter()
        while await counting.roll_up():
            pass
        return time.perf_counter() - begun


async def counted(dsn: str, given: argparse.Namespace) -> dict[str, float]:
    """Return what counting costs."""
    metrics.MARGIN = timedelta(0)
    await migrate(dsn)
    async with worker(dsn, 1):
        pass  # registers the flow
    say(f"  a past of {given.tasks:,} tasks")
    await past.finished(dsn, given.tasks // STEPS)
    found = {f"first: s for {given.tasks:,} tasks": round(await rolled(dsn), 2)}
    connection = await asyncpg.connect(dsn)
    for sessions in (10, 1000):
        took = []
        for _ in range(3):
            ids = await create_held(dsn, sessions)
            async with worker(dsn, 256):
                await let_go(connection, ids)
                await until_done(connection, ids)
            took.append((await rolled(dsn)) * 1000)
        found[f"new: ms for {sessions * STEPS:,} attempts"] = round(sorted(took)[1], 1)
    await connection.execute(_SERIES)
    await connection.execute(_BUSY)
    await connection.execute("VACUUM (ANALYZE) ekiden.metric_rollups")
    found["rows of metric_rollups"] = await connection.fetchval(
        "SELECT count(*) FROM ekiden.metric_rollups"
    )
    found["MB of metric_rollups"] = round(
        await connection.fetchval("SELECT pg_total_relation_size('ekiden.metric_rollups')") / 1e6, 1
    )
    for index in ("attempts_by_time", "calls_by_time"):
        size = await connection.fetchval("SELECT pg_relation_size($1::regclass)", f"ekiden.{index}")
        found[f"KB of {index}"] = size / 1024
    await connection.close()
    return found


def asked(dsn: str, home: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return how long each question takes, over HTTP, one after the other."""
    found: dict[str, float] = {}
    with served(dsn, home) as (port, _):
        for path in PATHS:
            took = []
            for _ in range(given.asked):
                begun = time.perf_counter()
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                    answer.read()
                took.append((time.perf_counter() - begun) * 1000)
            p50, p99 = percentiles(took)
            found[f"{path}, p50 ms"] = round(p50, 1)
            found[f"{path}, p99 ms"] = round(p99, 1)
    return found


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="finished ones")
    parser.add_argument("--asked", type=int, default=300, help="requests of each kind")
    given = parser.parse_args()
    with database() as (dsn, home):
        say("Measuring what it costs to know; about two minutes.")
        found = {
            "counting": uvloop.run(counted(dsn, given)),
            "asking": asked(dsn, home, given),
        }
    print(json.dumps(found) if given.json else as_text(found))


if __name__ == "__main__":
    main()
