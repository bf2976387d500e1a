"""What ``ekiden doctor`` finds out. It changes nothing in a database of yours."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import typer
from pydantic import SecretStr

from ekiden import __version__
from ekiden.cli import exits
from ekiden.cli.child import DATABASE_FROM
from ekiden.cli.compose import Database, build_models, provider_settings, run_async
from ekiden.cli.finding import Finding
from ekiden.cli.words import camel, clean, table, to_json
from ekiden.config import Settings, load_settings, origin_of, variables_of
from ekiden.errors import EkidenError
from ekiden.flows.registry import load_flows
from ekiden.store.connection import address_of, open_pool

_NEEDED = 500_000_000  # bytes on the disk of EKIDEN_HOME: model, corpus, a young database
_MARKS = {"ok": "✔", "note": "·", "broken": "✖"}


def report(*, machine: bool, providers: bool = False) -> int:
    """Print what was found; FAILED when something is broken."""
    settings = load_settings()
    set_ = configuration(settings)
    findings = [_python(), _home(settings), _flows()]
    findings += _places(settings)
    findings += _with_database(settings)
    findings.append(run_async(_asked("model", lambda: _model(settings))))
    if providers:
        from ekiden.cli.probing import ask_each

        findings += run_async(ask_each(settings))
    broken = any(f.state == "broken" for f in findings)
    if machine:
        told = {"version": __version__, "ok": not broken, "settings": set_}
        typer.echo(to_json(told | {"findings": camel(findings)}))
        return exits.FAILED if broken else exits.COMPLETED
    rows = [[s["name"], s["value"], s["from"]] for s in set_]
    typer.echo("\n".join(table(["SETTING", "VALUE", "FROM"], rows)) + "\n")
    for finding in findings:
        typer.echo(clean(f"{_MARKS[finding.state]} {finding.what}: {finding.message}"))
    typer.echo("\n" + ("Something is broken: see ✖ above." if broken else "All is well."))
    return exits.FAILED if broken else exits.COMPLETED


# -- settings -------------------------------------------------------------------------------------


def configuration(settings: Settings) -> list[dict[str, str]]:
    """Return every setting's ``name``, ``value`` and ``from``; of a secret only whether it is set.

    A value that is not what the surroundings say comes from an option of the command.
    """
    plain = load_settings()
    told = []
    for field in Settings.model_fields:
        value, names = getattr(settings, field), variables_of(field)
        changed = value != getattr(plain, field)
        if isinstance(value, dict) and value:  # a setting by place: each has a variable of its own
            prefix = names[0].removesuffix("*")
            rows = [(prefix + place, of, [prefix + place]) for place, of in value.items()]
        else:
            rows = [(names[0], value, names)]
        told += [
            {"name": name, "value": _shown(name, of), "from": "option" if changed else _from(known)}
            for name, of, known in rows
        ]
    return told


def _from(variables: list[str]) -> str:
    given = os.environ.get(DATABASE_FROM) if "DATABASE_URL" in variables else None
    return given or origin_of(*variables)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if name == "DATABASE_URL":
            return address_of(secret) if secret else "(embedded)"
        return "(set)" if secret else "(not set)"
    if isinstance(value, bool):
        return str(value).lower()
    return "(not set)" if value in ("", {}) else str(value)


# -- the machine ----------------------------------------------------------------------------------


def _python() -> Finding:
    cores = os.cpu_count() or 1
    text = f"Ekiden {__version__} on Python {platform.python_version()}, {platform.system()}, "
    state = "ok" if sys.platform == "linux" else "note"
    return Finding(what="machine", state=state, message=text + f"{cores} cores")


def _home(settings: Settings) -> Finding:
    home = settings.home
    there = next(p for p in (home, *home.parents) if p.exists())
    if not os.access(there, os.W_OK):
        why = f"{home} cannot be written. Set EKIDEN_HOME to a folder that can."
        return Finding(what="home", state="broken", message=why)
    free = shutil.disk_usage(there).free
    if free < _NEEDED:
        why = f"{home}: {free / 1e6:.0f} MB free, {_NEEDED / 1e6:.0f} MB are needed."
        return Finding(what="home", state="broken", message=why)
    return Finding(what="home", state="ok", message=f"{home}, {free / 1e9:.1f} GB free")


def _flows() -> Finding:
    try:
        flows = load_flows()
    except EkidenError as error:
        return Finding(what="flows", state="broken", message=error.message)
    names = ", ".join(f"{f.name} ({f.version})" for f in flows)
    return Finding(what="flows", state="ok", message=names or "none installed; use --flow")


def _places(settings: Settings) -> list[Finding]:
    """Name the settings of models by place that are for no place there is: a slip of the pen."""
    from ekiden.providers.models_by_place import places_of

    try:
        flows = load_flows()
    except EkidenError:
        return []  # said already
    known = {
        place
        for flow in flows
        for phase in range(1, len(flow.phases) + 1)
        for step in flow.kinds(phase)
        for place in places_of(flow.name, phase, step)
    }
    given = [f"EKIDEN_MODEL_{place}" for place in settings.models if place not in known]
    given += [
        f"EKIDEN_FALLBACK_MODEL_{place}" for place in settings.fallback_models if place not in known
    ]
    why = "no flow, phase or step that is installed here has this name"
    return [Finding(what=name, state="note", message=why) for name in given]


# -- what must be asked ---------------------------------------------------------------------------


async def _asked(what: str, ask: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await ask()
    except EkidenError as error:
        return Finding(what=what, state="broken", message=error.message)


async def _model(settings: Settings) -> Finding:
    from ekiden.providers.catalog import Catalog
    from ekiden.providers.choose import choose, describe
    from ekiden.providers.models import embedded_model

    chosen_by = provider_settings(settings)
    catalog = Catalog(chosen_by)
    try:
        provider = await choose(chosen_by, catalog)
        build_models(settings, provider, catalog)
        if provider.name == "embedded" and embedded_model(settings.home) is None:
            text = f"{describe(provider)}. It is fetched when first needed, or by: "
            return Finding(what="model", state="note", message=text + "ekiden models pull")
        state = "note" if provider.name == "embedded" else "ok"
        return Finding(what="model", state=state, message=describe(provider))
    finally:
        await catalog.close()


def _with_database(settings: Settings) -> list[Finding]:
    try:
        with Database(settings) as database:
            return run_async(_database(database))
    except EkidenError as error:
        return [Finding(what="database", state="broken", message=error.message)]


async def _database(database: Database) -> list[Finding]:
    from ekiden.store.documents import Documents
    from ekiden.store.migrate import look
    from ekiden.store.sessions import Sessions

    dsn = database.dsn()
    state = await look(dsn)
    where = f"PostgreSQL {state.server} at {address_of(dsn)}"
    if database.server is not None:
        where += " (embedded)"
    findings = [Finding(what="database", state="ok", message=where)]
    schema = f"migration {state.applied} of {state.known}"
    if int(state.server.split(".")[0]) < 15:
        why = f"{where} is too old: Ekiden needs 15 to 18."
        return [Finding(what="database", state="broken", message=why)]
    if state.applied > state.known:
        why = f"{schema}: the schema is newer than this Ekiden. Upgrade Ekiden here."
        return [*findings, Finding(what="schema", state="broken", message=why)]
    if state.applied < state.known:
        why = f"{schema}. The next command applies the rest, or: ekiden migrate"
        return [*findings, Finding(what="schema", state="note", message=why)]
    findings.append(Finding(what="schema", state="ok", message=schema))

    async with open_pool(dsn) as pool:
        counts = await Documents(pool, dsn).counts()
        sessions = Sessions(pool, dsn)
        registered, workers = await sessions.flows(), await sessions.workers()
    told = ", ".join(f"{source} ({count:,})" for source, count in sorted(counts.items()))
    none = "none yet; the demo corpus is fetched when first needed. Yours: ekiden sources add PATH"
    findings.append(Finding(what="documents", state="ok" if told else "note", message=told or none))
    alive = [w for w in workers if w.state in {"ALIVE", "DRAINING"}]
    told = "; ".join(f"{w.id} on {w.host} (pid {w.pid}, {w.model}, {w.state})" for w in alive)
    none = "none runs. Start one: ekiden up, or ekiden worker"
    findings.append(Finding(what="workers", state="ok" if told else "note", message=told or none))
    orphans = [f.name for f in registered if not f.has_worker]
    if alive and orphans:
        why = f"no living worker knows the newest version of: {', '.join(orphans)}"
        findings.append(Finding(what="registered flows", state="note", message=why))
    return findings
