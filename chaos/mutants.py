"""Breaks the product on purpose, one safeguard at a time, and wants the suite to notice.

    python -m chaos.mutants [NAME ...]

Each mutant is a copy of the tree with one safeguard taken out; the part of the short suite that
guards it runs on that copy and must be red. Exit code 1 if one stays green.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chaos import report
from chaos.house import ROOT

SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One safeguard, taken out."""

    what: str
    file: str  # below src/ekiden
    without: tuple[tuple[str, str], ...]  # what is replaced by what; each must be there once
    part: str  # of the suite


MUTANTS = {
    "fence": Mutant(
        what="the completion is not fenced by its attempt",
        file="store/queries/tasks.sql",
        without=(("    WHERE t.id = d.task_id AND t.attempt = ($3::int[])[d.ord]\n"
                  "      AND t.status = CASE WHEN d.ord > 0 THEN 'RUNNING' END\n",
                  "    WHERE t.id = d.task_id AND ($3::int[])[d.ord] > 0\n"),),
        part="matrix",
    ),
    "rescan": Mutant(
        what="the doorbell rings nobody when it has connected again",
        file="store/doorbell.py",
        without=(("                for subscription in subscriptions:\n"
                  "                    subscription.put(LOOK_AT_EVERYTHING)\n",
                  "                pass\n"),),
        part="deaf",
    ),
    "replay": Mutant(
        what="an attempt asks again for what the ledger has",
        file="worker/caller.py",
        without=(("        if self._task.attempt == 1:\n            return None\n"
                  "        # Asked anew",
                  "        if self._task.attempt:\n            return None\n"
                  "        # Asked anew"),),
        part="matrix",
    ),
}  # fmt: skip


def main(names: list[str]) -> int:
    """Try each; return the exit code."""
    survived = []
    for name in names or list(MUTANTS):
        mutant = MUTANTS[name]
        print(f"{name}: {mutant.what}", flush=True)
        caught = _caught(mutant)
        for line in caught:
            print(f"  caught by {line}", flush=True)
        if not caught:
            survived.append(name)
            print("  SURVIVED: the suite stayed green", flush=True)
    return 1 if survived else 0


def _caught(mutant: Mutant) -> list[str]:
    """Return what the suite says of this mutant; nothing if it is content."""
    with tempfile.TemporaryDirectory(prefix="ekiden-mutant-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__")
        for part in ("src", "chaos"):
            shutil.copytree(ROOT / part, tree / part, ignore=ignored)
        _take_out(mutant, tree / "src" / "ekiden" / mutant.file)
        figures = tree / "chaos.json"
        done = subprocess.run(
            [sys.executable, "-m", "chaos", "--short", "--seed", str(SEED),
             "--only", mutant.part, "--json", str(figures)],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return []
        if not figures.exists():
            return [f"the suite, which fell over: {done.stdout[-1500:]}"]
        data = json.loads(figures.read_text())
        cells = [c for c in data["parts"].get("matrix", {}).get("cells", []) if not c["passed"]]
        said = [f"cell {c['name']}: {'; '.join(c['complaints'])[:300]}" for c in cells]
        return said or report.missed(data)


def _take_out(mutant: Mutant, file: Path) -> None:
    text = file.read_text()
    for old, new in mutant.without:
        if text.count(old) != 1:
            raise SystemExit(f"{mutant.file} has changed: {old!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    file.write_text(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
