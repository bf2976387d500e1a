"""Forms that come twice, too late or with a mistake: each decides once, and no word is lost."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import httpx2

from ekiden import CannotHeal, Context, Flow
from ekiden.core.model import Budget, Review, SessionState, Verb
from ekiden.errors import Conflict, NoGate, StaleRevision
from ekiden.flows.registry import CompiledFlow
from ekiden.web.texts import load_texts
from tests.web.conftest import person_of
from tests.web.site import Person, Site
from tests.worker.relay import QUICK, Count, Doubled, Squares


class Choosy(Squares):
    """Square the even numbers"""

    failed_items = "ask"

    async def execute(self, ctx: Context, number: int) -> int:
        if number % 2:
            raise CannotHeal("an odd number")
        return number * number


async def at_gate(site: Site, **options: Any) -> str:
    """Return a session that waits at its first gate."""
    await site.work()
    session = await site.begin(**options)
    await site.until(session)
    return session


async def theirs(site: Site, session: str, change: Any) -> int:
    """Edit the first output as somebody else; return the new revision."""
    (*_, newest) = await site.sessions.revisions(session)
    output = change(newest.output)
    edit = Review(verb=Verb.EDIT, actor="Ken", output=output, phase=newest.phase)
    made = (await site.sessions.reviews.take(session, edit)).revision
    assert made is not None
    return made


def held(page: httpx2.Response, name: str) -> str:
    """Return what a field of a page holds."""
    found = re.search(
        rf'name="{re.escape(name)}"[^>]*?value="([^"]*)"|name="{re.escape(name)}"[^>]*>\n([^<]*)<',
        page.text,
    )
    assert found, name
    return found[1] if found[1] is not None else found[2]


def area(page: httpx2.Response, id_: str) -> str:
    """Return what a field of several lines holds."""
    found = re.search(rf'<textarea id="{id_}"[^>]*>\n([^<]*)<', page.text)
    assert found, id_
    return html.unescape(found[1])


_WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@asynccontextmanager
async def locked(site: Site, session: str, *, waiting: int) -> AsyncIterator[None]:
    """Hold a session's lock until so many wait for it."""
    async with site.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM ekiden.sessions WHERE id = $1 FOR UPDATE", session)
        yield
        async with asyncio.timeout(10):
            while await site.pool.fetchval(_WAITING) < waiting:
                await asyncio.sleep(0.01)


# -- twice ---------------------------------------------------------------------------------------


async def test_what_was_changed_after_going_back_meets_the_newer_version_and_is_kept(
    site: Site, person: Person
):
    session = await at_gate(site)
    url = f"/sessions/{session}/edit?phase=1"
    form = await person.get(url)  # as going back gives it again
    for _ in range(2):
        saved = await person.send_form(form, url, **{"/trends/0/name": "first try"})
        assert saved.url.path == f"/sessions/{session}"
    assert len(await site.sessions.reviews.of(session)) == 1
    changed = await person.send_form(
        form, url, **{"/trends/0/name": "second try", "comment": "why not"}
    )
    assert changed.status_code == 412
    assert held(changed, "/trends/0/name") == "second try"
    assert held(changed, "comment") == "why not"
    await person.send_form(changed, url, **{"/trends/0/name": "second try"})
    (*_, newest) = await site.sessions.revisions(session)
    assert newest.output["trends"][0]["name"] == "second try"


async def test_a_note_that_was_changed_after_going_back_is_told_and_kept(
    site: Site, person: Person
):
    session = await at_gate(site)
    url = f"/sessions/{session}"
    page = await person.get(url)
    for _ in range(2):
        assert (await person.send_form(page, f"{url}/reject", comment="shorter")).status_code == 200
    await site.until(session)
    late = await person.send_form(page, f"{url}/reject", comment="or rather longer")
    assert late.status_code == 412
    assert area(late, "note") == "or rather longer"
    assert area(late, "comment") == "", "it is no reason to approve"
    await site.sessions.cancel(session, actor="Ken")
    over = await person.send_form(late, f"{url}/reject", comment="or rather longer")
    assert over.status_code == 409
    assert "or rather longer" in over.text, "there is no form any more, but the text is"
    assert [r.comment for r in await site.sessions.reviews.of(session)] == ["shorter"]


async def test_a_new_session_that_was_changed_after_going_back_is_another_one(
    site: Site, person: Person
):
    await site.work()
    form = await person.get("/new/viral")
    fields = {"f.platform": "X", "f.language": "en"}
    made = [
        (await person.send_form(form, "/new/viral", **{**fields, "f.theme": theme})).url.path
        for theme in ("tea", "tea", "coffee")
    ]
    assert made[0] == made[1] != made[2]
    assert {s.title for s in await site.sessions.find()} == {"tea", "coffee"}


async def test_of_a_double_click_both_are_told_that_it_is_done(site: Site, person: Person):
    session = await at_gate(site)
    url = f"/sessions/{session}"
    edit, rerun = await person.get(f"{url}/edit?phase=1"), await person.get(f"{url}/rerun")
    for form, action, typed in (
        (edit, f"{url}/edit?phase=1", {"/trends/0/name": "once"}),
        (rerun, f"{url}/rerun", {"phase": "1", "step": "THINK", "revision-1": ""}),
    ):
        async with locked(site, session, waiting=2):
            clicks = [
                asyncio.create_task(person.send_form(form, action, **typed)) for _ in range(2)
            ]
        assert [c.status_code for c in await asyncio.gather(*clicks)] == [200, 200], action
    verbs = [r.verb for r in await site.sessions.reviews.of(session)]
    assert verbs == [Verb.EDIT, Verb.RERUN]


# -- too late ------------------------------------------------------------------------------------


async def test_a_mistake_does_not_take_over_what_somebody_saved_meanwhile(
    site: Site, person: Person
):
    session = await at_gate(site)
    await site.pass_gates(session, to=2)
    score = "/opportunities/0/score"
    for query, name, wrong, right in (
        ("", score, "many", "3"),
        ("&raw=true", "json", "{", None),
    ):
        url = f"/sessions/{session}/edit?phase=2"
        form = await person.get(url + query)
        mine = right or html.unescape(held(form, name))
        newest = await theirs(site, session, lambda output: output)
        answer = await person.send_form(form, url, **{name: wrong})
        assert answer.status_code == 422
        assert held(answer, name) == wrong
        assert held(answer, "revision") == held(form, "revision") != str(newest)
        late = await person.send_form(answer, url, **{name: mine})
        assert late.status_code == 412
        assert "changed this output while you were editing" in late.text
        assert held(late, "revision") == str(newest)
        saved = await person.send_form(late, url, **{name: mine})
        assert saved.status_code == 200


async def test_typed_text_keeps_its_field_when_the_newer_version_has_none(
    site: Site, person: Person
):
    session = await at_gate(site)
    url = f"/sessions/{session}/edit?phase=1"
    form = await person.get(url)
    last = max(re.findall(r'name="(/trends/\d/name)"', form.text))
    assert last != "/trends/0/name"
    await theirs(site, session, lambda output: {**output, "trends": output["trends"][:1]})
    late = await person.send_form(form, url, **{last: "a long thought"})
    assert late.status_code == 412
    assert held(late, last) == "a long thought"
    await person.send_form(late, url, **{last: "a long thought"})
    (*_, newest) = await site.sessions.revisions(session)
    assert newest.output["trends"][int(last.split("/")[2])]["name"] == "a long thought"
    stranger = await person.send_form(form, url, base="1")
    assert stranger.status_code in {412, 422}
    assert (await person.send_form(form, url, base="")).status_code == 422


async def test_what_comes_after_an_open_gate_is_neither_offered_nor_taken(
    site: Site, person: Person
):
    await site.work()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    url = f"/sessions/{session}"
    early = await person.get(f"{url}/rerun?lang=ja")
    assert re.findall(r'name="phase" value="(\d)"', early.text) == ["1", "2", "3", "4", "5"]
    first, *_ = await site.sessions.revisions(session)
    edit = Review(verb=Verb.EDIT, actor="Ken", output=first.output, phase=1)
    await site.sessions.reviews.take(session, edit)
    shown = await person.get(f"{url}/rerun")
    assert re.findall(r'name="phase" value="(\d)"', shown.text) == ["1"]
    page = await person.get(url)
    assert f"{url}/edit?phase=1" in page.text
    assert f"{url}/rerun?phase=2" not in page.text
    late = await person.send_form(early, f"{url}/rerun", phase="3", step="THINK")
    assert late.status_code == 409
    assert "先にフェーズ1を承認するか" in late.text


async def test_a_late_start_of_a_step_starts_no_other(site: Site, person: Person):
    await site.work()
    session = await site.begin(auto_steps=False)
    url = f"/sessions/{session}"

    async def held(step: str) -> None:
        async with asyncio.timeout(30):
            while True:
                progress = await site.sessions.progress(session)
                waiting = progress["waitingFor"] or {}
                if (progress["currentStep"], waiting.get("kind")) == (step, "process-async"):
                    return
                await asyncio.sleep(0.01)

    await held("EXECUTE")
    page = await person.get(url)
    await person.send_form(page, f"{url}/start")
    await held("INTEGRATE")
    late = await person.send_form(page, f"{url}/start")
    assert late.status_code == 409
    assert "The session moved on while you were looking." in late.text
    await held("INTEGRATE")
    assert (await person.send_form(late, f"{url}/start")).status_code == 200
    await site.until(session)


async def test_what_failed_since_is_neither_accepted_nor_retried_by_a_form_of_before(
    site: Site, person: Person
):
    await site.work(None, CompiledFlow(Flow("choosy", input=Count, phases=[Choosy, Doubled])))
    session, _ = await site.sessions.create(
        "choosy", title="x", input={}, options=QUICK, start=True
    )
    url = f"/sessions/{session}"
    await site.until(session, "PAUSED")
    page = await person.get(url)
    assert (await person.send_form(page, f"{url}/retry")).status_code == 200
    await site.until(session, "PAUSED")
    assert (await person.send_form(page, f"{url}/retry")).status_code == 200, (
        "sent twice, done once"
    )
    late = await person.send_form(page, f"{url}/accept")
    assert late.status_code == 409
    assert "The session moved on while you were looking." in late.text
    assert (await site.sessions.get(session)).status == SessionState.PAUSED
    assert (await person.send_form(late, f"{url}/accept")).status_code == 200
    await site.until(session)
    assert [r.verb for r in await site.sessions.reviews.of(session)] == [Verb.RETRY, Verb.ACCEPT]


async def test_what_could_not_be_stored_is_not_offered_to_be_edited(site: Site, person: Person):
    await site.work()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    url = f"/sessions/{session}"

    async def offered(what: str) -> list[str]:
        return re.findall(rf"{url}/{what}\?phase=(\d)", (await person.get(url)).text)

    async def refused(phase: int, why: str) -> None:
        page = await person.get(f"{url}/edit?phase={phase}")
        assert page.status_code == 409
        assert why in page.text
        assert 'name="base"' not in page.text, "there is nothing to type into"

    assert await offered("rerun") == ["5", "4", "3", "2", "1"]
    assert await offered("edit") == ["4", "3", "2", "1"]
    await refused(5, "This phase is the last one")
    # Begun anew, and not done: of its newest run there is nothing yet.
    await site.pool.execute("UPDATE ekiden.sessions SET auto_steps = false")
    rerun = Review(verb=Verb.RERUN, actor="Ken", phase=2)
    await site.sessions.reviews.take(session, rerun)
    assert await offered("edit") == []
    await refused(1, "The session is running: pause it first.")
    await site.sessions.pause(session, actor="Ken")
    assert await offered("rerun") == ["2", "1"]
    assert await offered("edit") == ["1"]
    await refused(2, "This phase has no output yet")


async def test_a_drafts_mistake_does_not_take_over_what_somebody_saved_meanwhile(
    site: Site, person: Person
):
    await site.work()
    await site.until(await site.begin(auto_phases=True), "COMPLETED")
    (draft, *_) = await site.sessions.board.find()
    url = f"/drafts/{draft.id}/edit"
    mine, other = await person.get(url), await person.get(url)
    for _ in range(2):  # a double click
        kept = await person.send_form(other, url, title="Theirs", text="their text", name="Ken")
        assert kept.url.path == "/drafts"
    empty = await person.send_form(mine, url, title="Mine", text=" ")
    assert empty.status_code == 422
    assert "their text" not in empty.text
    late = await person.send_form(empty, url, title="Mine", text="my text")
    assert late.status_code == 409
    assert "my text" in late.text
    assert "their text" in late.text
    assert (await site.sessions.board.get(draft.id)).title == "Theirs"


async def test_a_link_from_elsewhere_and_a_restart_of_the_browser_leave_forms_as_they_are(
    site: Site, person: Person
):
    session = await at_gate(site)
    url = f"/sessions/{session}"
    form = await person.send_form(await person.get(f"{url}?lang=en"), f"{url}/reject", name="Mika")
    kept = {c.name: c for c in person.cookies.jar}
    assert kept.keys() == {"ekiden_visitor", "ekiden_name", "ekiden_lang"}
    for name, cookie in kept.items():
        assert cookie.get_nonstandard_attr("SameSite") == "lax", name
        assert cookie.has_nonstandard_attr("HttpOnly"), name
        assert cookie.expires is not None, name
        assert cookie.expires > time.time() + 30 * 24 * 3600, name
    person.cookies.jar.clear_session_cookies()  # as the end of a browser does
    assert (await person.send_form(form, f"{url}/approve")).status_code == 200
    assert [r.actor for r in await site.sessions.reviews.of(session)] == ["Mika"]


# -- with a mistake ------------------------------------------------------------------------------


async def test_a_model_is_checked_before_a_phase_runs_with_it(site: Site):
    session = await at_gate(site)
    url = f"/sessions/{session}"
    async with person_of(site, providers=("openai", "scripted")) as person:
        for wrong, said in (
            ("gpt-5", "must be written provider:model"),
            ("x:" + "y" * 300, "must be written provider:model"),
            ("acme:1", "must be one of: openai:…, scripted:…"),
        ):
            gate = await person.send_form(
                await person.get(url), f"{url}/reject", comment="shorter", model=wrong, name="Mika"
            )
            rerun = await person.send_form(
                await person.get(f"{url}/rerun"), f"{url}/rerun", phase="1", step="INTEGRATE",
                comment="shorter", model=wrong, name="Mika",
            )  # fmt: skip
            for page in (gate, rerun):
                assert page.status_code == 422
                assert f'id="model-wrong">{said}<' in page.text
                assert 'aria-describedby="model-help model-wrong" aria-invalid="true"' in page.text
                assert held(page, "model") == wrong
                assert "shorter" in page.text
                assert held(page, "name") == "Mika"
            assert (area(gate, "note"), area(gate, "comment")) == ("shorter", "")
            assert re.search(r'value="INTEGRATE" checked', rerun.text)
        assert await site.sessions.reviews.of(session) == []
        right = await person.send_form(
            gate, f"{url}/reject", comment="shorter", model="scripted:writer-1"
        )
        assert right.status_code == 200
        assert len(await site.sessions.reviews.of(session)) == 1


async def test_a_note_that_is_missing_is_asked_for_beside_its_field(site: Site, person: Person):
    session = await at_gate(site)
    url = f"/sessions/{session}"
    bare = await person.send_form(await person.get(f"{url}?lang=ja"), f"{url}/reject", name="flow")
    assert bare.status_code == 422
    assert 'id="note-name-wrong">この名前は使えません<' in bare.text
    bare = await person.send_form(bare, f"{url}/reject", name="Mika")
    assert 'id="note-wrong">差し戻すには入力が必要です<' in bare.text


async def test_a_wrong_figure_of_a_budget_is_told_beside_its_own_field(site: Site, person: Person):
    await site.work()
    session = await site.begin(budgets={0: Budget(max_tokens=1)})
    await site.until(session, "PAUSED")
    url = f"/sessions/{session}"
    for cost, tokens, wrong in (
        ("", "20 000", {"max-tokens": "must be a whole number"}),
        ("", "20,00", {"max-tokens": "must be a whole number"}),
        ("", "-1", {"max-tokens": "must be at least 0"}),
        ("1,250", "20000", {"max-cost": "must be an amount, written like 1250.50"}),
        ("NaN", "x", {"max-cost": "must be an amount, written like 1250.50",
                      "max-tokens": "must be a whole number"}),
    ):  # fmt: skip
        page = await person.send_form(
            await person.get(url), f"{url}/budget", max_cost_usd=cost, max_tokens=tokens
        )
        assert page.status_code == 422
        assert dict(re.findall(r'id="([\w-]+)-wrong">([^<]*)<', page.text)) == wrong
        assert (held(page, "max_cost_usd"), held(page, "max_tokens")) == (cost, tokens)
    japanese = await person.send_form(
        await person.get(f"{url}?lang=ja"), f"{url}/budget", max_cost_usd="1,250"
    )
    assert "1250.50 のように、桁区切りのない金額で入力してください" in japanese.text
    await person.send_form(japanese, f"{url}/budget", max_cost_usd="", max_tokens="20,000,000")
    (budget,) = await site.sessions.budgets.of(session)
    assert (budget.max_cost_usd, budget.max_tokens) == (None, 20_000_000)
    await site.until(session)


async def test_where_it_matters_who_approves_a_name_is_required_and_what_is_missing_is_said(
    site: Site,
):
    session = await at_gate(site, gates={1: {"approvals": 2}})
    url = f"/sessions/{session}"
    async with person_of(site) as first, person_of(site) as second:
        page = await first.get(url)
        assert "The next phase begins when 2 people have approved it." in page.text
        assert "Approve and go on" not in page.text
        nameless = await first.send_form(page, f"{url}/approve", comment="good", name=" ")
        assert nameless.status_code == 422
        assert 'id="name-wrong">is required here: it matters who approves<' in nameless.text
        assert area(nameless, "comment") == "good"
        assert await site.sessions.reviews.of(session) == []
        counts = await first.send_form(nameless, f"{url}/approve", comment="good", name="Mika")
        assert "Approved by Mika; 1 more must approve before the next" in counts.text
        page = await second.get(f"{url}?lang=ja")
        assert "承認済み：Mika。あと1人が承認すると次のフェーズが始まります。" in page.text
        nameless = await second.send_form(page, f"{url}/approve")
        assert "このゲートでは、誰が承認したかを記録するため必須です" in nameless.text
        assert (await site.sessions.get(session)).status == SessionState.AWAITING_REVIEW
        passes = await second.send_form(nameless, f"{url}/approve", name="Ken")
        assert passes.status_code == 200
    assert [r.actor for r in await site.sessions.reviews.of(session)] == ["Mika", "Ken"]


async def test_where_it_does_not_matter_who_approves_no_name_is_asked_for(
    site: Site, person: Person
):
    session = await at_gate(site)
    url = f"/sessions/{session}"
    page = await person.get(url)
    assert "Approve and go on" in page.text
    assert (await person.send_form(page, f"{url}/approve")).status_code == 200
    assert [r.actor for r in await site.sessions.reviews.of(session)] == ["web"]


async def test_a_reserved_name_is_told_beside_the_name_and_no_field_of_the_output(
    site: Site, person: Person
):
    session = await at_gate(site)
    url = f"/sessions/{session}/edit?phase=1"
    page = await person.send_form(await person.get(f"{url}&lang=ja"), url, name="flow")
    assert page.status_code == 422
    assert '<a href="#name">お名前</a> この名前は使えません<' in page.text
    assert 'id="name-wrong">この名前は使えません<' in page.text
    assert re.search(r'name="name" value="flow"[^>]* aria-describedby="name-wrong"', page.text)
    assert "#edit-actor" not in page.text
    assert 'aria-describedby="edit-' not in page.text
    page = await person.send_form(page, url, name="Mika", **{"/trends/0/name": "mine"})
    assert [r.actor for r in await site.sessions.reviews.of(session)] == ["Mika"]


# -- from one form to the other -------------------------------------------------------------------


async def test_what_was_typed_goes_along_from_fields_to_json_and_back(site: Site, person: Person):
    session = await at_gate(site)
    url = f"/sessions/{session}/edit?phase=1"
    fields = await person.get(url)
    typed = {"/trends/0/name": "typed “here” <b>", "comment": "because", "name": "Mika"}
    raw = await person.send_form(fields, url, by="Edit as JSON", **typed)
    assert raw.status_code == 200
    output = json.loads(area(raw, "json"))
    assert output["trends"][0]["name"] == typed["/trends/0/name"]
    assert (held(raw, "comment"), held(raw, "name")) == ("because", "Mika")
    # What no field stands for goes along as well.
    output["trends"] = output["trends"][:1]
    output["trends"][0]["sources"] = []
    again = await person.send_form(
        raw, url, by="Edit field by field", json=json.dumps(output), comment="because"
    )
    assert html.unescape(held(again, "/trends/0/name")) == typed["/trends/0/name"]
    assert "/trends/1/name" not in again.text
    # A mistake in the fields keeps it too, and nothing is stored before somebody saves.
    assert len(await site.sessions.revisions(session)) == 1
    saved = await person.send_form(again, url, **{"/trends/0/summary": "and by field"})
    assert saved.status_code == 200
    (*_, newest) = await site.sessions.revisions(session)
    output["trends"][0]["summary"] = "and by field"
    assert newest.output == output


async def test_what_cannot_be_read_stays_where_it_was_typed(site: Site, person: Person):
    session = await at_gate(site)
    await site.pass_gates(session, to=2)
    url = f"/sessions/{session}/edit?phase=2"
    fields = await person.get(url)
    score = {"/opportunities/0/score": "many", "/opportunities/0/title": "kept"}
    wrong = await person.send_form(fields, url, by="Edit as JSON", **score)
    assert wrong.status_code == 422
    assert "must be a number" in wrong.text
    assert {name: held(wrong, name) for name in score} == score
    for language, said in (
        ("en", "This cannot be read as JSON; it is kept as you typed it."),
        ("ja", "JSONとして読めません。入力はそのまま残っています。"),
    ):
        raw = await person.get(f"{url}&raw=true&lang={language}")
        by = load_texts()["edit.fields"][language]
        for sent in (by, ""):  # to the other form, or to be saved
            broken = await person.send_form(raw, url, by=sent, json='{"trends": [', comment="so")
            assert broken.status_code == 422
            assert said in broken.text
            assert area(broken, "json") == '{"trends": ['
            assert held(broken, "comment") == "so"
    plain = await person.send_form(raw, url, by=by, json='"no fields"')
    assert "この結果は項目ごとには編集できません。" in plain.text
    assert area(plain, "json") == '"no fields"'
    forged = await person.send_form(fields, url, draft="{")
    assert forged.status_code == 400
    assert len(await site.sessions.reviews.of(session)) == 1, "only the approval"


# -- in both languages ---------------------------------------------------------------------------


def test_every_kind_of_conflict_that_pages_can_meet_has_a_text():
    kinds = {Conflict.kind, NoGate.kind, StaleRevision.kind, *SessionState} - {"conflict"}
    for package in ("ekiden.store", "ekiden.core"):
        for file in resources.files(package).iterdir():
            if file.name.endswith(".py"):
                kinds |= {
                    kind
                    for call in re.findall(r"Conflict\((?:[^()]|\([^()]*\))*\)", file.read_text())
                    for kind in re.findall(r'kind="([a-z-]+)"', call)
                }
    assert len(kinds) > 15
    assert {f"conflict.{kind}" for kind in kinds} - set(load_texts()) == set()


async def test_a_refusal_speaks_the_readers_language_and_so_does_the_way_to_the_other(
    site: Site, person: Person
):
    session = await at_gate(site, gates={1: {"fourEyes": True, "approvals": 2}})
    url = f"/sessions/{session}"
    page = await person.get(f"{url}?lang=ja")
    mine = await person.send_form(page, f"{url}/approve", name="api")
    assert mine.status_code == 409
    assert "このセッションはapiが開始したので、別の人の承認が必要です" in mine.text
    assert "four eyes" not in mine.text
    once = await person.send_form(page, f"{url}/approve", name="Mika")
    assert once.status_code == 200
    twice = await person.send_form(once, f"{url}/approve", name="Mika")
    assert "Mikaはすでに承認しています。他の人の承認があと1件必要です。" in twice.text
    token = {"token": held(page, "token")}
    waits = await person.post(f"{url}/pause", data=token)
    assert "セッションは判断を待っています。" in waits.text
    open_ = await person.post(f"{url}/archive", data=token)
    assert "アーカイブできるのは終わったセッションだけです。" in open_.text
    for refused in (mine, twice, waits, open_):
        english = await other_language(person, refused)
        assert (english.status_code, english.url.path) == (200, url)


def in_japanese(page: httpx2.Response) -> str:
    """Return what a page says, without what it says to be English."""
    (main,) = re.findall(r"<main.*?</main>", page.text, re.DOTALL)
    return re.sub(r"<[^>]*>", " ", re.sub(r'<p lang="en">.*?</p>', "", main, flags=re.DOTALL))


async def test_a_page_of_an_error_is_in_the_readers_language(site: Site, person: Person):
    session = await at_gate(site)
    page = await person.get(f"/sessions/{session}?lang=ja")
    token = held(page, "token")
    for answer in (
        await person.get("/sessions/x"),
        await person.get(f"/sessions/{session}/tasks/99999999"),
        await person.post(f"/sessions/{session}/approve", data={"token": "x"}),
        await person.post(f"/sessions/{session}/rerun", data={"token": token}),
        await person.post(f"/sessions/{session}/approve", data={"token": token, "x": "\0"}),
        await person.post(
            f"/sessions/{session}/approve", content=b"token=%ff",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ),
        await person.post("/drafts/1/edit", data={"token": token, "x": "y"}),
    ):  # fmt: skip
        assert answer.status_code >= 400
        said = in_japanese(answer)
        assert set(re.findall(r"[A-Za-z]+", said)) <= {"phase", "x"}, said
        assert '<p lang="en">' in answer.text


async def test_a_budget_that_stops_a_session_is_told_in_the_readers_language(
    site: Site, person: Person
):
    await site.work()
    session = await site.begin(budgets={0: Budget(max_tokens=1)})
    await site.until(session, "PAUSED")
    url = f"/sessions/{session}?lang=ja"
    used = "予算：0 / 1 トークン を使用済みで、次の呼び出しで超える可能性があります。"
    assert used in in_japanese(await person.get(url))
    assert "The next call may" not in in_japanese(await person.get(url))
    for limit, said in (
        ("cost", "予算：$0.0000 / $1.00 を使用済みで"),
        ("price", "予算：モデルの価格が不明なため、金額では管理できません。"),
    ):
        await site.pool.execute(
            "UPDATE ekiden.sessions SET stop = (stop::jsonb || $2::jsonb)::json WHERE id = $1",
            session, json.dumps({"limit": limit, "maxCostUsd": 1}),
        )  # fmt: skip
        assert said in in_japanese(await person.get(url))
    await site.pool.execute(
        "UPDATE ekiden.sessions SET stop = (stop::jsonb || '{\"ofPhase\": 2}')::json WHERE id = $1",
        session,
    )
    title = (await site.sessions.get(session)).flow_phases[1]["titles"]["ja"]
    assert f"予算：{title}：" in in_japanese(await person.get(url))


async def other_language(person: Person, page: httpx2.Response) -> httpx2.Response:
    """Follow a page's link to itself in the other language."""
    (link,) = re.findall(r'<a href="([^"]*lang=(?:en|ja))"', page.text)
    return await person.get(str(page.url.join(link.replace("&amp;", "&"))))


async def test_every_page_that_answers_a_form_has_a_way_to_itself_in_the_other_language(
    site: Site, person: Person
):
    await site.work()
    done = await site.begin(auto_phases=True)
    await site.until(done, "COMPLETED")
    (draft, *_) = await site.sessions.board.find()
    board = await person.get("/drafts?status=DRAFT")
    await site.sessions.board.move(draft.id, "ARCHIVED", seen="DRAFT", actor="Ken")  # type: ignore[arg-type]
    moved = await person.send_form(board, f"/drafts/{draft.id}", to="APPROVED", status="DRAFT")
    assert moved.status_code == 409
    assert "It is now: Archived (Ken)." in moved.text
    japanese = await other_language(person, moved)
    assert (japanese.status_code, japanese.url.params["status"]) == (200, "DRAFT")
    await person.get("/?lang=en")
    edit = f"/sessions/{done}/edit?phase=4"
    raw = await person.send_form(await person.get(f"{edit}&raw=true"), edit, json="{")
    japanese = await other_language(person, raw)
    assert (japanese.status_code, dict(japanese.url.params)) == (
        200,
        {"phase": "4", "raw": "true", "lang": "ja"},
    )
    # An error page of a form leads home; one of an address, to the same address.
    strange = await person.post(f"/sessions/{done}/approve", data={"token": "x"})
    assert strange.status_code == 403
    assert (await other_language(person, strange)).url.path == "/"
    missing = await person.get("/sessions/x/edit?phase=1")
    assert (await other_language(person, missing)).url.params["phase"] == "1"
    async with person_of(site, api_key="k") as stranger:
        asked = await stranger.get("/inbox?x=1")
        wrong = await stranger.send_form(asked, "/login", key="no")
        japanese = await other_language(stranger, wrong)
        assert (japanese.status_code, japanese.url.path) == (200, "/login")
        assert held(japanese, "next") == "/inbox?x=1"
