"""What the nemesis does and when: a pure function of its seed.

Whom a fault hits is drawn here too, as a number between 0 and 1, and looked up among those who are
there when it strikes.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

LEASE = 4  # seconds; EKIDEN_LEASE of the workers under attack


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    at: float  # seconds since the beginning
    kind: str  # one of KINDS
    victim: float  # in [0, 1): which of those who are there
    lasts: float  # seconds, where that means something
    flavour: str = ""  # which of several ways


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How often something goes wrong, and for how long."""

    what: str  # in words, for the table
    short: int  # times in the short run
    long: int  # times in the long run
    lasts: tuple[float, float] = (0.0, 0.0)  # seconds, from and to
    flavours: tuple[str, ...] = ()


KINDS = {
    "worker-kill": Kind(what="kill -9 of a worker", short=70, long=1050),
    "api-kill": Kind(what="kill -9 of an API process", short=2, long=25),
    "postmaster-kill": Kind(
        what="kill -9 of PostgreSQL's postmaster", short=1, long=15, lasts=(0.0, 1.0)
    ),
    "postgres-immediate": Kind(
        what="immediate shutdown of PostgreSQL", short=1, long=15, lasts=(0.0, 1.0)
    ),
    "backend-terminate": Kind(what="pg_terminate_backend of a connection", short=8, long=150),
    "freeze": Kind(
        what="SIGSTOP of a worker beyond its lease, then SIGCONT",
        short=3,
        long=40,
        lasts=(LEASE + 1.5, LEASE + 3.0),
    ),
    "half-open": Kind(
        what="half-open sockets between a worker and PostgreSQL",
        short=2,
        long=30,
        lasts=(1.0, LEASE + 3.0),
    ),
    "cut": Kind(what="all connections of a worker reset", short=3, long=60, lasts=(0.0, 0.5)),
    "provider-storm": Kind(
        what="storm at the provider",
        short=4,
        long=45,
        lasts=(1.0, 3.0),
        flavours=(
            "busy429", "busy429_retry_after", "error5xx", "garbage", "html200",
            "truncated_stream", "reset_at_99", "stall",
        ),
    ),
    "clicks": Kind(what="64 simultaneous clicks on one gate", short=3, long=40),
    "pause": Kind(what="pause of a session, resumed later", short=4, long=60, lasts=(0.2, 2.0)),
    "cancel": Kind(what="cancel of a session", short=3, long=40),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a run is, and what it must have seen to mean anything."""

    name: str
    seconds: float  # of the safety mode
    heal: float  # seconds in which everything must drain after healing
    workers: int
    width: int  # sessions in flight
    sessions: int  # that must have completed at least
    busy_kills: int  # kills that must have hit a worker with a task running

    def times(self, kind: Kind) -> int:
        """Return how often this happens in a run of this length."""
        return kind.short if self.name == "short" else kind.long


SHORT = Length(
    name="short", seconds=60, heal=60, workers=4, width=24, sessions=60, busy_kills=30
)  # fmt: skip
LONG = Length(
    name="long", seconds=900, heal=180, workers=4, width=24, sessions=900, busy_kills=500
)  # fmt: skip


def plan(seed: int, length: Length, kills: int | None = None) -> list[Fault]:
    """Return all faults of a run, in order of time.

    Args:
        seed: the same seed gives the same plan.
        length: how long it is.
        kills: kills of workers, if not as many as the length has.
    """
    faults = []
    for name, kind in KINDS.items():
        # A generator each: more of one fault does not move the others.
        dice = random.Random(f"{seed} {name}")
        times = kills if name == "worker-kill" and kills is not None else length.times(kind)
        flavours = list(kind.flavours)
        dice.shuffle(flavours)
        faults += [
            Fault(
                at=dice.uniform(1.0, length.seconds),
                kind=name,
                victim=dice.random(),
                lasts=dice.uniform(*kind.lasts),
                flavour=flavours[n % len(flavours)] if flavours else "",
            )
            for n in range(times)
        ]
    return sorted(faults, key=lambda fault: (fault.at, fault.kind))


def counted(faults: list[Fault]) -> Counter[str]:
    """Return how many of each kind there are."""
    return Counter(fault.kind for fault in faults)
