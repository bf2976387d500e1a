"""The list of sessions at 100,000: newest, far back, by state, by title, and what is archived.

    python bench/lists.py [--sessions 100000] [--asked 200] [--json]

Each figure is the time from request to last byte over HTTP on this machine, of the page as a person
gets it. Titles are English and Japanese in turn; the sessions are finished, one in 333 FAILED, one
in four archived, each with three calls. "nothing found" has to look at every title.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request

import asyncpg
import uvloop

from ekiden.store.migrate import migrate
from measuring import as_text, command, database, percentiles, say, served

_FLOW = """
INSERT INTO ekiden.flows (name, version, title, phases, input_schema)
VALUES ('viral', '1', 'Viral', $1::jsonb, '{"type": "object"}')
"""
_STEPS = ["THINK", "EXECUTE", "INTEGRATE"]
_PHASES = json.dumps([{"name": f"p{n}", "title": f"Phase {n}", "steps": _STEPS} for n in range(5)])
# A minute apart, the newest now; UUIDv7 has the time in its first 48 bits.
_SESSIONS = """
INSERT INTO ekiden.sessions (id, flow_id, status, phase, step, title, input, auto_steps,
                             auto_phases, max_retries, retry_delay, timeout, error, created_at,
                             completed_at, archived_at)
SELECT encode(overlay(uuid_send(ekiden.new_session_id())
                      PLACING substring(int8send((extract(epoch FROM m.at) * 1000)::bigint) FROM 3)
                      FROM 1 FOR 6), 'hex')::uuid,
       f.id, CASE WHEN n % 333 = 0 THEN 'FAILED' ELSE 'COMPLETED' END, 5, 'INTEGRATE',
       CASE n % 3 WHEN 0 THEN '在宅勤務の休み方 第' || n || '回'
                  WHEN 1 THEN 'Home coffee brewing for beginners, part ' || n
                  ELSE '古い団地のリノベーション ' || md5(n::text) END,
       json_build_object('theme', 'home coffee brewing ' || n, 'style', 'friendly and clear',
                         'platform', 'X', 'language', 'en'),
       true, false, 3, '1s', '5m', CASE WHEN n % 333 = 0 THEN '{"message": "x"}'::json END, m.at,
       CASE WHEN n % 333 <> 0 THEN m.at END,
       CASE WHEN n % 4 = 0 THEN m.at END
FROM generate_series(1, $1) n, ekiden.flows f,
     LATERAL (SELECT now() - ($1 - n) * interval '1 min' AS at) m
"""
_CALLS = """
INSERT INTO ekiden.calls (session_id, task_id, attempt, number, kind, provider, model, request_hash,
                          request, answer, outcome, cost_usd, started_at, finished_at)
SELECT s.id, row_number() OVER (), 1, n, 'ask', 'openai', 'gpt-5', '', '', '', 'ANSWERED', 0.001,
       now(), now()
FROM ekiden.sessions s, generate_series(1, 3) n
"""
_PATHS = {
    "the newest": {},
    "half way back": {"cursor": ""},
    "failed ones": {"status": "FAILED"},
    "cancelled ones (none)": {"status": "CANCELLED"},
    "archived ones": {"archived": "1"},
    "title: nothing found, English": {"q": "nothing of this name"},
    "title: nothing found, Japanese": {"q": "存在しない題名"},
    "title: one of all": {"q": "part 7777"},
    "title: the oldest, Japanese": {"q": "第3回"},
    "title: one in three": {"q": "COFFEE"},
    "title: one in three, Japanese": {"q": "在宅勤務"},
    "title and state": {"q": "coffee", "status": "FAILED"},
    "title, archived": {"q": "nothing of this name", "archived": "1"},
}


async def fill(dsn: str, sessions: int) -> str:
    """Write the past; return the id in its middle."""
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    await connection.execute(_FLOW, _PHASES)
    await connection.execute(_SESSIONS, sessions)
    await connection.execute(_CALLS)
    await connection.execute("VACUUM (ANALYZE)")  # as autovacuum would have in the meantime
    middle = await connection.fetchval(
        "SELECT id::text FROM ekiden.sessions ORDER BY id OFFSET $1 LIMIT 1", sessions // 2
    )
    await connection.close()
    return str(middle)


def ask(port: int, query: dict[str, str], times: int) -> list[float]:
    """Return how long the page took, in ms, each time."""
    url = f"http://127.0.0.1:{port}/?{urllib.parse.urlencode(query)}"
    took = []
    for _ in range(times + 10):
        begun = time.perf_counter()
        with urllib.request.urlopen(url, timeout=30) as answer:
            answer.read()
        took.append((time.perf_counter() - begun) * 1000)
    return took[10:]  # the first ones open connections


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=200)
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with database() as (dsn, home):
        say(f"writing {given.sessions:,} sessions")
        middle = uvloop.run(fill(dsn, given.sessions))
        with served(dsn, home) as (port, _):
            for name, query in _PATHS.items():
                asked = {k: v or middle for k, v in query.items()}
                p50, p99 = percentiles(ask(port, asked, given.asked))
                say(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms (N={given.asked})")
                found[name] = {"p50 ms": round(p50, 1), "p99 ms": round(p99, 1)}
    print(json.dumps(found) if given.json else as_text(found))


if __name__ == "__main__":
    main()
