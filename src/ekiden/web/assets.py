"""The files of the pages: our few, and htmx out of the wheel it comes in.

An address carries a hash of its file, so a browser keeps it for good and a new version is new.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {
    "ekiden.css": ("ekiden.web", "static/ekiden.css"),
    "ekiden.js": ("ekiden.web", "static/ekiden.js"),
    "timeline.js": ("ekiden.web", "static/timeline.js"),
    "mark.svg": ("ekiden.web", "static/mark.svg"),
    "htmx.js": ("js_lib_htmx", "static/htmx/htmx.min.js"),
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    name: str
    content: bytes
    zipped: bytes
    media_type: str
    version: str

    @property
    def url(self) -> str:
        """Where it is."""
        return f"/static/{self.version}/{self.name}"


@cache
def assets() -> dict[str, Asset]:
    """Return every file by its name."""
    found = {}
    for name, (package, path) in _FILES.items():
        content = resources.files(package).joinpath(path).read_bytes()
        found[name] = Asset(
            name=name,
            content=content,
            zipped=gzip.compress(content, 9, mtime=0),
            media_type=_TYPES["." + name.rpartition(".")[2]],
            version=sha256(content).hexdigest()[:12],
        )
    return found
