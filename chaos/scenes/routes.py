"""Every route and every socket of an API with a key, asked without one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
from fastapi.routing import iter_route_contexts

from chaos.house import House, Site, free_port
from ekiden.api.app import create_app
from ekiden.api.settings import ApiSettings
from ekiden.store.doorbell import Doorbell

_LISTENS = "0A"  # state in /proc/net/tcp
_BESIDE = ("/", "/docs", "/openapi.json", "/redoc", "/metrics", "/healthz/", "//healthz", "/static")


async def run(site: Site, short: bool) -> dict[str, Any]:
    """Return what answers without credentials; both runs are the same."""
    del short
    async with House(site) as house:
        port = free_port()
        api = await house.api(port, EKIDEN_API_KEY="open sesame").is_ready()
        app = create_app(
            house.sessions, doorbell=Doorbell(lambda: house.dsn), settings=ApiSettings()
        )
        routes = [
            (method, re.sub(r"\{[^}]*\}", "1", str(route.path)))
            for route in iter_route_contexts(app.routes)
            for method in sorted(route.methods or {"GET"})
        ]
        routes += [("GET", path) for path in _BESIDE]
        opened = []
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            for method, path in routes:
                answer = await client.request(method, f"http://127.0.0.1:{port}{path}")
                if not _is_closed(answer):
                    opened.append(path)
            key = {"Authorization": "Bearer open sesame"}
            known = await client.get(f"http://127.0.0.1:{port}/api/flows", headers=key)
            if known.status_code != 200:
                raise AssertionError("not even the key opens: the walk proves nothing")
        listening = await asyncio.to_thread(_listening, api.pid)
        opened += [f"port {other}" for other in sorted(listening - {port})]
        return {"n": len(routes), "sockets": len(listening), "open": sorted(set(opened))}


def _is_closed(answer: httpx2.Response) -> bool:
    """Whether nothing was given away: refused, or a person sent to the login page empty-handed."""
    to_login = answer.status_code == 303 and answer.headers["location"].startswith("/login?")
    return answer.status_code in {401, 403} or (to_login and answer.content == b"")


def _listening(pid: int) -> set[int]:
    """Return the TCP ports that a process listens on."""
    mine = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            mine.add(target[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            word = line.split()
            if word[3] == _LISTENS and word[9] in mine:
                ports.add(int(word[1].rpartition(":")[2], 16))
    return ports
