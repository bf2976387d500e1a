"""Takes secrets out of what is about to be written: log lines, errors, requests.

Two nets: what the settings say is secret goes wherever it stands, and what looks like a key, a
token or a password goes by its looks. The second can take too much; a log line that lost a word is
better than one that gives a key away.
"""

from __future__ import annotations

import re

MARK = "[redacted]"

_SHORTEST = 6  # a secret shorter than that would take ordinary words along
_hidden: set[str] = set()

_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Keys by the prefixes that providers give them.
    (
        re.compile(
            r"\b(?:sk|pk|rk|pplx|xai|gsk|ghp|gho|ghs|glpat|xox[abp]|AIza|AKIA)[-_]?"
            r"[A-Za-z0-9][A-Za-z0-9_-]{14,}"
        ),
        MARK,
    ),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{4,}"), MARK),  # a JSON Web Token
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MARK}"),
    (re.compile(r"(?i)(://[^\s:/@]+:)[^\s@/]+@"), rf"\1{MARK}@"),  # a password in an address
    (  # and what opens it
        re.compile(
            r"(?i)([?&][\w.-]*(?:token|key|sig|signature|auth)=)(?!\[redacted)[^\s&#\"'<>]+"
        ),
        rf"\1{MARK}",
    ),
    (
        re.compile(
            r"(?i)(\b[\w-]*(?:api[-_]?key|authorization|passw(?:or)?d|secret|access[-_]?token)"
            r"[\"']?\s*[:=]\s*[\"']?)(?!\[redacted|bearer |basic )[^\s\"',;&}]{4,}"
        ),
        rf"\1{MARK}",
    ),
)


def hide(*secrets: str) -> None:
    """Take these out of everything from now on."""
    _hidden.update(s for s in secrets if len(s) >= _SHORTEST)


def redact(text: str) -> str:
    """Return a text without secrets, those that are known and those that look like one."""
    text = redact_known(text)
    for pattern, instead in _LOOKS:
        text = pattern.sub(instead, text)
    return text


def redact_known(text: str) -> str:
    """Return a text without the secrets that are known."""
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, MARK)
    return text


def redact_bytes(data: bytes) -> bytes:
    """Return bytes without the secrets that are known."""
    for secret in _hidden:
        if (raw := secret.encode()) in data:
            data = data.replace(raw, MARK.encode())
    return data
