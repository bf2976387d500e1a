"""Fetching a page that a user named, without becoming a way into this network.

Only public addresses are connected to: the name is looked up once, every address it has must be
public, and the connection goes to the address that was looked at, so that a name cannot mean one
thing when it is checked and another when it is used. The same holds for each redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2

from ekiden.errors import SearchError
from ekiden.providers.failures import retry_after

MOST_BYTES = 10_000_000
MOST_SECONDS = 30.0
MOST_REDIRECTS = 5

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a server gave with a page, to be asked only for what is newer (RFC 9110 §13.1)."""

    etag: str | None = None
    last_modified: str | None = None

    def or_else(self, before: Known) -> Known:
        """Return this, completed by what was known before."""
        return Known(
            etag=self.etag or before.etag, last_modified=self.last_modified or before.last_modified
        )

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for what is newer."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value and value.isascii()}


NOTHING_KNOWN = Known()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was fetched."""

    url: str  # where it was in the end
    body: bytes
    content_type: str
    known: Known = Known()  # what to ask for changes with
    unchanged: bool = False  # there is nothing new since what was ``known``; no body


async def public_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a name, all of them public.

    Raises:
        SearchError: it has none, or one that is not public.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SearchError(f"{host} cannot be found: {error}") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        if not is_public(address):
            raise _refused(f"{host} is at {address}, which is not a public address")
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 (RFC 6052)
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


async def fetch(
    url: str, known: Known = NOTHING_KNOWN, *, resolve: Resolve = public_addresses
) -> Page:
    """Fetch a page.

    Args:
        url: an http or https address.
        known: what came with it last time: then it may be ``unchanged``.
        resolve: gives the addresses that may be connected to.

    Raises:
        SearchError: it is not to be fetched, cannot be, or is too large or too slow.
    """
    try:
        async with asyncio.timeout(MOST_SECONDS):
            # No proxy: it would look the name up again, and we could not see where that leads.
            async with httpx2.AsyncClient(
                trust_env=False, follow_redirects=False, timeout=MOST_SECONDS
            ) as client:
                for _ in range(MOST_REDIRECTS + 1):
                    page = await _once(client, url, known, resolve)
                    if isinstance(page, Page):
                        return page
                    url = page
    except TimeoutError as error:
        raise SearchError(f"{url} takes longer than {MOST_SECONDS:g} s.") from error
    raise _refused(f"{url} is redirected more than {MOST_REDIRECTS} times")


async def _once(client: httpx2.AsyncClient, url: str, known: Known, resolve: Resolve) -> Page | str:
    """Return the page, or where it is said to be."""
    parts = _checked(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    trouble: Exception | None = None
    for address in await resolve(host, port):
        numeric = f"[{address}]" if ":" in address else address
        try:
            return await _from(client, parts, host, numeric, known)
        except httpx2.ConnectError as error:
            trouble = error  # the name may have another
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise SearchError(f"{url} cannot be fetched: {reason}") from error
    raise SearchError(f"{url} cannot be reached: {trouble}") from trouble


async def _from(
    client: httpx2.AsyncClient, parts: SplitResult, host: str, address: str, known: Known
) -> Page | str:
    port = f":{parts.port}" if parts.port else ""
    url = parts._replace(fragment="").geturl()
    request = client.build_request(
        "GET",
        parts._replace(netloc=f"{address}{port}", fragment="").geturl(),
        headers={
            "Host": f"{host}{port}",
            "User-Agent": "Ekiden",
            "Accept": "*/*",
            **known.headers(),
        },
        # The certificate must be that of the name, not of the address.
        extensions={"sni_hostname": host},
    )
    response = await client.send(request, stream=True)
    try:
        if response.status_code in {301, 302, 303, 307, 308}:
            return urljoin(url, response.headers.get("location", ""))
        marks = Known(
            etag=response.headers.get("etag"), last_modified=response.headers.get("last-modified")
        )
        if response.status_code == httpx2.codes.NOT_MODIFIED and known.headers():
            return Page(url=url, body=b"", content_type="", known=marks, unchanged=True)
        if response.status_code != httpx2.codes.OK:
            raise _answered(url, response.status_code, retry_after(response.headers))
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise _refused(f"{url} is larger than {MOST_BYTES // 1_000_000} MB")
        kind = response.headers.get("content-type", "")
        return Page(url=url, body=bytes(body), content_type=kind, known=marks)
    finally:
        await response.aclose()


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname)
        fine = fine and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine:
        raise _refused(f"{url!r} is not an http or https address")
    if parts.username or parts.password:
        raise _refused("An address with a user or a password in it is not fetched")
    return parts


def _answered(url: str, status: int, wait: float | None) -> SearchError:
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status == httpx2.codes.TOO_MANY_REQUESTS:
        return SearchError(f"{url} answers with status {status}.", retry_after=wait)
    return _refused(f"{url} answers with status {status}")


def _refused(why: str) -> SearchError:
    error = SearchError(f"{why}.")
    error.retryable = False
    return error
