"""Which of the SDKs that one may leave out are here. Looked for, not imported: that is slow."""

from __future__ import annotations

from importlib.util import find_spec


def has_anthropic() -> bool:
    """Whether the extra ``anthropic`` is installed."""
    return find_spec("anthropic") is not None
