"""What the API must know before it listens, and where it may listen."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ekiden.config import Settings
from ekiden.core.model import Options
from ekiden.errors import SettingsError

_MEGABYTE = 1024 * 1024
SHORTEST_KEY = 16  # characters: wrong keys of the API are not counted, so it must not be guessable


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How the API listens, and what it takes."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str = field(default="", repr=False)  # empty: no login, and only on loopback
    options: Options = field(default_factory=Options)  # defaults of a new session
    providers: tuple[str, ...] = ()  # names of model providers that people may choose
    max_body: int = _MEGABYTE  # bytes of a request
    max_result: int = 64 * _MEGABYTE  # bytes of a result that is delivered from outside
    max_streams: int = 4000  # event streams open at once
    heartbeat: float = 15.0  # seconds of silence before a stream says that it is alive
    sweep: float = 60.0  # seconds between looks at a session that nothing was heard of
    poll: float = 5.0  # the same while the doorbell hears nothing

    @classmethod
    def of(cls, settings: Settings, *, providers: tuple[str, ...] = ()) -> ApiSettings:
        """Take what the API needs from the settings; who may answer, the caller knows."""
        return cls(
            host=settings.host,
            port=settings.port,
            api_key=settings.api_key.get_secret_value(),
            options=settings.options(),
            providers=providers,
            poll=settings.worker_poll_interval / 1000,
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, api_key: str) -> None:
    """Refuse to listen where strangers can knock while they can guess what is asked of them.

    Raises:
        SettingsError: ``host`` is not loopback and there is no key, or a short one.
    """
    if len(api_key.strip()) >= SHORTEST_KEY or is_loopback(host):
        return
    raise SettingsError(
        f"EKIDEN_HOST={host}: other machines can reach this address. First set EKIDEN_API_KEY to a "
        f"random text of {SHORTEST_KEY} characters or more (openssl rand -hex 16 makes one), or "
        "listen on 127.0.0.1."
    )
