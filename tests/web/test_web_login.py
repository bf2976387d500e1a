"""The login: who has the key, how often it may be tried, and when it ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.web.conftest import person_of
from tests.web.site import Site


async def test_who_has_a_key_must_log_in_and_may_log_out(site: Site):
    async with person_of(site, api_key="open sesame") as person:
        asked = await person.get("/?q=a b")
        assert asked.url.path == "/login"
        wrong = await person.send_form(asked, "/login", key="open")
        assert wrong.status_code == 401
        assert "This key is not valid." in wrong.text
        inside = await person.send_form(asked, "/login", key="open sesame")
        assert (inside.status_code, inside.url.path) == (200, "/")
        assert inside.url.params["q"] == "a b"
        cookie = next(c for c in person.cookies.jar if c.name == "ekiden_login")
        assert "sesame" not in cookie.value
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "strict"
        # The login is for pages; the API wants the key.
        assert (await person.get("/api/flows")).status_code == 401
        # An open page asks like this whether its login has ended; nothing is made for the answer.
        assert (await person.head("/events")).status_code == 405
        await person.send_form(inside, "/logout")
        assert (await person.get("/")).url.path == "/login"
        assert (await person.head("/events")).url.path == "/login"
        for forged in (
            "",
            "9999999999.x.y",
            cookie.value[:-1] + ("1" if cookie.value[-1] == "0" else "0"),
            f"9{cookie.value}",
        ):
            person.cookies.set("ekiden_login", forged, domain="localhost.local")
            assert (await person.get("/inbox")).url.path == "/login", forged


async def test_the_key_is_not_guessed_in_a_hurry(site: Site):
    async with (
        person_of(site, api_key="right") as guesser,
        person_of(site, api_key="right") as other_process,
    ):
        form = await guesser.get("/login")
        answers = await asyncio.gather(
            *(guesser.send_form(form, "/login", key=f"guess {n}") for n in range(14))
        )
        assert sorted(a.status_code for a in answers) == [401] * 10 + [429] * 4
        # The right key is not looked at either, or the answer would tell; nor elsewhere.
        form = await other_process.get("/login?lang=ja")
        late = await other_process.send_form(form, "/login", key="right")
        assert late.status_code == 429
        assert "15分後にもう一度お試しください" in late.text
        assert 840 < int(late.headers["Retry-After"]) <= 900
        # Others are not locked out; and after a while there is room again.
        await site.pool.execute("UPDATE ekiden.login_attempts SET address = '192.0.2.1'")
        inside = await other_process.send_form(form, "/login", key="right")
        assert inside.url.path == "/"
        assert await site.pool.fetchval("SELECT count(*) FROM ekiden.login_attempts") == 10
        await site.pool.execute(
            "INSERT INTO ekiden.login_attempts (address, at) SELECT '192.0.2.' || n,"
            " now() - interval '890 s' FROM generate_series(2, 91) n"
        )
        full = await guesser.send_form(await guesser.get("/login"), "/login", key="right")
        assert full.status_code == 429
        assert "try again in 1 min." in full.text
        await site.pool.execute(
            "UPDATE ekiden.login_attempts SET at = at - interval '15 min'"
            " WHERE address <> '192.0.2.1'"
        )
        inside = await guesser.send_form(await guesser.get("/login"), "/login", key="right")
        assert inside.url.path == "/"


async def test_a_login_ends_and_goes_nowhere_else(site: Site, monkeypatch: pytest.MonkeyPatch):
    async with person_of(site, api_key="k") as person:
        for elsewhere in (
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "javascript:x",
        ):
            asked = await person.get("/login", params={"next": elsewhere})
            inside = await person.send_form(asked, "/login", key="k")
            assert inside.url.host == "localhost"
            assert inside.url.path == "/"
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 + 1)
        assert (await person.get("/")).url.path == "/login"
