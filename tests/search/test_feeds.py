"""Feeds from a server on a real socket; the documents in a real PostgreSQL.

RSS 2.0 https://www.rssboard.org/rss-specification, Atom RFC 4287.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ekiden.errors import SearchError
from ekiden.search import fetching
from ekiden.search.documents import Document, DocumentSearch
from ekiden.search.feeds import add_feed, read_feed
from ekiden.search.fetching import Page, fetch, is_public, public_addresses
from ekiden.search.folders import Skipped
from ekiden.store.documents import Documents
from tests.search.server import Server

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel>
<title>Races</title>
<item><title>The &lt;b&gt;sash&lt;/b&gt;</title>
<link>https://example.org/sash</link>
<pubDate>Sun, 01 Mar 2026 10:00:00 GMT</pubDate><description>short</description>
<content:encoded><![CDATA[<p>The sash is handed over.</p><script>steal()</script>]]>
</content:encoded>
</item>
<item><title>駅伝</title><link>/ja</link><description>走者は次の走者にたすきを渡す。</description></item>
<item><title>nowhere</title><description>no link</description></item>
<item><title>script</title><link>javascript:alert(1)</link><description>x</description></item>
</channel></rss>"""
ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>Races</title>
<entry><title>Atom entry</title><link href="https://example.org/atom"/><id>urn:1</id>
<updated>2026-03-02T01:00:00Z</updated><summary type="html">&lt;p&gt;A relay.&lt;/p&gt;</summary>
</entry></feed>"""


async def here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


unguarded = partial(fetch, resolve=here)


def port_of(service: Server) -> str:
    return service.url.rpartition(":")[2]


@pytest.mark.parametrize("form", [RSS, ATOM], ids=["rss", "atom"])
async def test_a_feed_is_added_and_found(service: Server, store: Documents, form: str):
    service.body = form.encode()
    url = f"http://feeds.example:{port_of(service)}/feed.xml"
    report = await add_feed(store, url, fetch=unguarded)
    assert service.received["host"] == f"feeds.example:{port_of(service)}"
    assert report.source == url
    assert report.documents == report.written == (2 if form is RSS else 1)
    [found] = await DocumentSearch(store).search("sash" if form is RSS else "relay", limit=1)
    assert found.title == ("The sash" if form is RSS else "Atom entry")
    assert "steal" not in found.snippet
    assert found.published == ("2026-03-01" if form is RSS else "2026-03-02")


async def test_the_same_again_writes_nothing_and_what_left_the_feed_stays(
    service: Server, store: Documents
):
    url = f"http://feeds.example:{port_of(service)}/"
    service.body = RSS.encode()
    await add_feed(store, url, fetch=unguarded)
    assert (await add_feed(store, url, fetch=unguarded)).written == 0
    service.body = ATOM.encode()
    assert (await add_feed(store, url, fetch=unguarded)).documents == 3


def test_entries_nobody_could_open_are_named_and_relative_links_are_completed():
    page = Page(url="https://feeds.example/rss", body=RSS.encode(), content_type="text/xml")
    entries = read_feed(page, "https://feeds.example/rss")
    assert [e.path for e in entries if isinstance(e, Skipped)] == ["nowhere", "script"]
    assert [e.url for e in entries if isinstance(e, Document)] == [
        "https://example.org/sash",
        "https://feeds.example/ja",
    ]
    assert [e.language for e in entries if isinstance(e, Document)] == ["en", "ja"]


@pytest.mark.parametrize("body", [b"", b"<html><body>hello</body></html>", b"\x00\xff", b"{}"])
def test_what_is_no_feed_is_refused(body: bytes):
    with pytest.raises(SearchError, match="no RSS or Atom feed"):
        read_feed(Page(url="https://x/", body=body, content_type="text/html"), "https://x/")


def test_a_body_that_is_the_name_of_a_file_is_not_that_file(tmp_path: Path):
    secret = tmp_path / "secret.xml"
    secret.write_text(RSS)
    with pytest.raises(SearchError, match="no RSS or Atom feed"):
        read_feed(Page(url="https://x/", body=str(secret).encode(), content_type=""), "https://x/")


def test_entities_of_a_feed_do_not_read_files():
    evil = (
        RSS.replace("<rss", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><rss', 1)
        .replace("short", "&e;")
        .replace("<content:encoded>", "<x>")
        .replace("</content:enc", "</x")
    )
    page = Page(url="https://x/", body=evil.encode(), content_type="text/xml")
    try:
        entries = read_feed(page, "https://x/")
    except SearchError:
        return
    assert not any("root:" in e.body for e in entries if isinstance(e, Document))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        *((private, False) for private in (
            "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
            "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "fe80::1%eth0", "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "not an address",
        )),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool):
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/feed",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
    ],
)
async def test_private_addresses_are_refused_however_they_are_written(url: str):
    with pytest.raises(SearchError, match="not a public address") as caught:
        await fetch(url)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "url", ["ftp://a.org/", "file:///etc/passwd", "http://", "http://u:p@a.org/", "http://a:x/"]
)
async def test_only_plain_web_addresses_are_fetched(url: str):
    with pytest.raises(SearchError) as caught:
        await fetch(url, resolve=here)
    assert "p@" not in caught.value.message


async def test_a_redirect_into_this_network_is_refused(service: Server):
    service.status = 302
    service.headers = {"Location": "http://169.254.169.254/latest/meta-data/"}

    async def first_only(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "feeds.example" else await public_addresses(host, port)

    with pytest.raises(SearchError, match=r"169\.254\.169\.254.* not a public address"):
        await fetch(f"http://feeds.example:{port_of(service)}/", resolve=first_only)
    assert service.times == 1


async def test_redirects_without_end_sizes_and_times_are_bounded(
    service: Server, monkeypatch: pytest.MonkeyPatch
):
    url = f"http://feeds.example:{port_of(service)}/"
    service.status, service.headers = 301, {"Location": url}
    with pytest.raises(SearchError, match="redirected more than"):
        await unguarded(url)
    service.status, service.headers = 200, {}
    monkeypatch.setattr(fetching, "MOST_BYTES", 1000)
    service.body = b"x" * 1001
    with pytest.raises(SearchError, match="larger"):
        await unguarded(url)
    monkeypatch.setattr(fetching, "MOST_SECONDS", 0.1)
    service.answers = False
    with pytest.raises(SearchError, match=r"longer than|cannot be fetched"):
        await unguarded(url)


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (500, True), (429, True)])
async def test_a_server_that_says_no_is_quoted(service: Server, status: int, retryable: bool):
    service.status = status
    with pytest.raises(SearchError, match=str(status)) as caught:
        await unguarded(f"http://feeds.example:{port_of(service)}/")
    assert caught.value.retryable is retryable
