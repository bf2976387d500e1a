"""Each fault of the schedule, done to a house. What it hit is counted beside what was done."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from chaos.clients import TROUBLE, Clients
from chaos.house import House, Process, Provider
from chaos.nursery import Nursery, Nursling
from chaos.proxy import Proxy
from chaos.schedule import LEASE, Fault

_RETRY = 0.1  # seconds between looks for something to hit
_PATIENCE = 8.0  # seconds to find something to hit
_API_START = 60.0


class Slot:
    """A place where a worker runs; a new one takes it when the old one is gone.

    Args:
        nursery: forks them.
        proxy: between them and PostgreSQL; None is straight to it.
        dsn: through the proxy.
    """

    def __init__(self, nursery: Nursery, proxy: Proxy | None, dsn: str) -> None:
        self._nursery = nursery
        self.proxy = proxy
        self._dsn = dsn
        self.worker: Nursling | None = None
        self.deaths: list[str] = []  # those that nobody meant, with their last words

    async def keep(self) -> None:
        """Keep a worker here until cancelled."""
        while True:
            if self.worker is None or not self.worker.alive:
                if self.worker is not None and not self.worker.meant:
                    self.deaths.append(f"{self.worker.name}: {self.worker.last_words(1500)}")
                self.worker = await self._nursery.worker(dsn=self._dsn)
            await asyncio.sleep(0.05)

    @property
    def up(self) -> Nursling | None:
        """The worker, if it has begun to work and is not frozen."""
        worker = self.worker
        return worker if worker and worker.alive and worker.ready and not worker.frozen else None


class Faults:
    """Does them.

    Args:
        house: to what.
        slots: its workers.
        clients: those who use it.
        ports: of its API processes.
    """

    def __init__(self, house: House, slots: list[Slot], clients: Clients, ports: list[int]) -> None:
        self._house = house
        self._slots = slots
        self._clients = clients
        self._ports = ports
        self.apis: dict[int, Process] = {}
        self.done = Counter[str]()
        self.hit = Counter[str]()
        self.told: list[int] = []  # of each 64 clicks, how many were told that they passed
        self.api_deaths: list[str] = []  # those that nobody meant
        self._postgres = asyncio.Lock()
        self._storms = 0
        self._ways: dict[str, Callable[[Fault], Coroutine[Any, Any, bool]]] = {
            "worker-kill": self._worker_kill,
            "api-kill": self._api_kill,
            "postmaster-kill": self._postgres_crash,
            "postgres-immediate": self._postgres_crash,
            "backend-terminate": self._backend_terminate,
            "freeze": self._freeze,
            "half-open": self._half_open,
            "cut": self._cut,
            "provider-storm": self._storm,
            "clicks": self._clicks,
            "pause": self._pause,
            "cancel": self._cancel,
        }

    async def do(self, fault: Fault) -> None:
        """Do it, once there is something to do it to; count it."""
        give_up = asyncio.get_running_loop().time() + _PATIENCE
        while asyncio.get_running_loop().time() < give_up:
            with suppress(*TROUBLE):
                if await self._ways[fault.kind](fault):
                    self.done[fault.kind] += 1
                    return
            await asyncio.sleep(_RETRY)
        self.hit[f"{fault.kind} found nothing to hit"] += 1

    # -- processes --------------------------------------------------------------------------------

    def _pick(self, fault: Fault, among: list[Slot]) -> Slot | None:
        up = [slot for slot in among if slot.up]
        return up[int(fault.victim * len(up))] if up else None

    async def _worker_kill(self, fault: Fault) -> bool:
        slot = self._pick(fault, self._slots)
        worker = slot.up if slot else None
        if worker is None:
            return False
        running = await self._running_on(worker)
        if not worker.alive or worker.meant:
            return False
        worker.kill()
        self._house.kills += 1
        if running:
            self.hit["worker kills with a task running"] += 1
            self.hit["tasks running on killed workers"] += running
        return True

    async def _running_on(self, worker: Nursling) -> int:
        """Return how many tasks it runs; 0 when PostgreSQL is not there to say."""
        try:
            async with asyncio.timeout(1):
                return int(
                    await self._house.pool.fetchval(
                        "SELECT count(*) FROM ekiden.api_tasks WHERE status = 'RUNNING' AND"
                        " worker_id = (SELECT max(id) FROM ekiden.workers WHERE pid = $1)",
                        worker.pid,
                    )
                )
        except (TimeoutError, *TROUBLE):
            return 0

    async def keep_apis(self) -> None:
        """Keep the API processes running until cancelled."""
        while True:
            for port in self._ports:
                api = self.apis.get(port)
                if api is None or not api.alive:
                    if api is not None and api.code != -signal.SIGKILL:
                        self._note_death(api)
                    self.apis[port] = self._house.api(port)
            await asyncio.sleep(0.1)

    def _note_death(self, api: Process) -> None:
        if api.code == 1 and not api.ready:
            # It says that there is no database and leaves the next try to its supervisor: us.
            self.hit["API starts without a database"] += 1
        else:
            self.api_deaths.append(f"{api.name} {api.code}: {api.last_words(1500)}")

    async def _api_kill(self, fault: Fault) -> bool:
        ready = [api for api in self.apis.values() if api.alive and api.ready]
        if not ready:
            return False
        self._house.kill(ready[int(fault.victim * len(ready))])
        return True

    async def _freeze(self, fault: Fault) -> bool:
        slot = self._pick(fault, self._slots)
        worker = slot.up if slot else None
        if worker is None:
            return False
        running = await self._running_on(worker)
        if worker.meant or not running:
            return False  # an idle one proves nothing
        worker.freeze()
        self.hit["tasks running on frozen workers"] += running
        await asyncio.sleep(fault.lasts)
        worker.thaw()
        return True

    # -- PostgreSQL -------------------------------------------------------------------------------

    async def _postgres_crash(self, fault: Fault) -> bool:
        async with self._postgres:
            how = signal.SIGKILL if fault.kind == "postmaster-kill" else signal.SIGQUIT
            self._house.site.crash_postgres(how)
            await asyncio.sleep(fault.lasts)
            await self._house.site.start_postgres_again()
            await asyncio.sleep(1)  # not again at once: a server that never runs proves nothing
        return True

    async def _backend_terminate(self, fault: Fault) -> bool:
        pool = self._house.pool
        pids = await pool.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'ekiden'"
            " AND datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
        )
        if not pids:
            return False
        pid = pids[int(fault.victim * len(pids))]["pid"]
        return bool(await pool.fetchval("SELECT pg_terminate_backend($1)", pid))

    # -- the network ------------------------------------------------------------------------------

    async def _half_open(self, fault: Fault) -> bool:
        slot = self._pick(fault, [s for s in self._slots if s.proxy and s.proxy.mode == "pass"])
        if slot is None or slot.proxy is None:
            return False
        slot.proxy.set("black-hole")
        if fault.lasts > LEASE:
            self.hit["half-open beyond the lease"] += 1
        await asyncio.sleep(fault.lasts)
        slot.proxy.set("pass")
        return True

    async def _cut(self, fault: Fault) -> bool:
        slot = self._pick(fault, [s for s in self._slots if s.proxy and s.proxy.mode == "pass"])
        if slot is None or slot.proxy is None:
            return False
        slot.proxy.set("cut")
        await asyncio.sleep(fault.lasts)
        slot.proxy.set("pass")
        return True

    # -- the provider -----------------------------------------------------------------------------

    async def _storm(self, fault: Fault) -> bool:
        provider: Provider = self._house.site.provider
        knobs: dict[str, float] = {fault.flavour: 0.7}
        if fault.flavour == "stall":
            knobs |= {"stall": 0.2, "stall_s": 2.0}
        await asyncio.to_thread(provider.control, **knobs)
        self._storms += 1
        await asyncio.sleep(fault.lasts)
        await asyncio.to_thread(provider.control, **dict.fromkeys(knobs, 0.0))
        self.hit[f"storms of {fault.flavour}"] += 1
        return True

    # -- people -----------------------------------------------------------------------------------

    async def _a_session(self, fault: Fault, status: str) -> Any:
        rows = await self._house.pool.fetch(
            "SELECT s.id::text, s.phase, (SELECT r.id FROM ekiden.revisions r"
            " WHERE r.session_id = s.id AND r.phase = s.phase AND r.generation = s.generation"
            " ORDER BY r.number DESC LIMIT 1) AS revision"
            " FROM ekiden.sessions s WHERE s.status = $1 ORDER BY s.id",
            status,
        )
        free = [row for row in rows if row["id"] not in self._clients.reserved]
        return free[int(fault.victim * len(free))] if free else None

    async def _clicks(self, fault: Fault) -> bool:
        row = await self._a_session(fault, "AWAITING_REVIEW")
        if row is None:
            return False
        self._clients.reserved.add(row["id"])
        try:
            told = await self._clients.click(row["id"], row["phase"], row["revision"])
        finally:
            self._clients.reserved.discard(row["id"])
        self.told.append(told)
        self.hit[f"clicks: {told} of 64 were told that they passed"] += 1
        return True

    async def _pause(self, fault: Fault) -> bool:
        row = await self._a_session(fault, "RUNNING")
        if row is None:
            return False
        self._clients.paused.add(row["id"])
        try:
            if not await self._clients.pause(row["id"]):
                return False
            await asyncio.sleep(fault.lasts)
        finally:
            self._clients.paused.discard(row["id"])
        return True

    async def _cancel(self, fault: Fault) -> bool:
        row = await self._a_session(fault, "RUNNING")
        return row is not None and await self._clients.cancel(row["id"])
