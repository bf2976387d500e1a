"""Addresses of servers: what a base URL may be, and what points at this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ekiden.errors import SettingsError


def checked_url(url: str) -> str:
    """Return a base URL without its trailing slash.

    Raises:
        SettingsError: it is not a plain http(s) address.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise SettingsError("The base URL of a server is not a URL.") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not quoted: it may hold a password.
        raise SettingsError(
            "The base URL of a server may not hold a user, a password, a query or a "
            "fragment; give the key in its own variable."
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_fine:
        raise SettingsError(
            f"The base URL of a server must look like https://host/v1, not {url!r}."
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the URL points at this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
