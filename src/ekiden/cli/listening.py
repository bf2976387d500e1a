"""The socket that the API listens on."""

from __future__ import annotations

import socket

from ekiden.errors import EkidenError, SettingsError


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        SettingsError: there is no such address here.
        EkidenError: the port is in use, or may not be used.
    """
    name = host.strip("[]")
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"EKIDEN_HOST={host}: {error.strerror or error}") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise EkidenError(
            f"Port {port} on {host} cannot be used: {(error.strerror or str(error)).lower()}. "
            "Choose another: --port, or EKIDEN_PORT."
        ) from None
    listener.set_inheritable(False)
    return listener


def where(listener: socket.socket) -> str:
    """Return the address of a listening socket as a URL."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - shown, not bound
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
