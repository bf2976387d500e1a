"""Reading and deciding over plain HTTP: everything here works in a browser that runs no scripts."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ekiden import Context
from ekiden.core.model import Budget, Options
from ekiden.errors import ModelBusy, ModelRefused, ModelUnavailable, NotNow, StepError
from ekiden.providers.catalog import Catalog, ProviderSettings
from ekiden.providers.models_by_place import Models
from ekiden.providers.protocol import ModelRequest
from ekiden.worker import context
from tests.many import fill_up_drafts
from tests.scripted import Said, ScriptedProvider
from tests.web.conftest import person_of
from tests.web.content import sensible
from tests.web.site import INPUT_JA, Person, Site
from tests.worker.relay import one_step


async def test_a_person_without_scripts_takes_a_theme_from_the_form_to_the_drafts(
    site: Site, person: Person
):
    await site.work()
    form = await person.get("/new")
    assert form.url.path == "/new/viral"
    made = await person.send_form(
        form, "/new/viral", **{"f.theme": "slow tea", "f.platform": "X", "f.language": "en",
                               "f.style": "warm", "auto_steps": "on"},
    )  # fmt: skip
    url = made.url.path
    session = url.removeprefix("/sessions/")
    for phase in range(1, 5):
        await site.until(session, phase=phase)
        page = await person.get(url)
        assert "Your decision" in page.text
        after = await person.send_form(page, f"{url}/approve", name="Mika", comment=f"ok {phase}")
        assert after.status_code == 200
        assert after.url.path == url
    await site.until(session, "COMPLETED")
    reviews = await site.sessions.reviews.of(session)
    assert [(r.phase, r.verb, r.actor, r.comment) for r in reviews] == [
        (n, "approve", "Mika", f"ok {n}") for n in range(1, 5)
    ]
    assert "Finished: the drafts are ready." in (await person.get(url)).text
    drafts = await person.get("/drafts")
    assert "Your kettle is in a hurry." in drafts.text
    assert "of 280 as X counts" in drafts.text


async def test_the_list_finds_by_title_and_state_and_turns_its_pages(site: Site, person: Person):
    await site.work()
    for number in range(43):
        await site.begin(title=f"number {number} 駅伝")
    first = await person.get("/")
    assert first.text.count('class="line-link"') == 40
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older
    second = await person.get(older[1].replace("&amp;", "&"))
    assert second.text.count('class="line-link"') == 3
    assert (await person.get("/?q=NUMBER+7+駅")).text.count('class="line-link"') == 1
    assert (await person.get("/?q=%25")).text.count('class="line-link"') == 0
    assert (await person.get("/?status=CANCELLED")).text.count('class="line-link"') == 0
    assert "No session fits." in (await person.get("/?q=nothing")).text


async def test_the_inbox_has_what_waits_for_a_person_longest_first(site: Site, person: Person):
    assert "Nothing waits for you" in (await person.get("/inbox")).text
    await site.work()
    first, second = await site.begin(title="first"), await site.begin(title="second")
    third = await site.begin(title="third")
    for session in (first, second, third):
        await site.until(session)
    await site.sessions.cancel(third, actor="me")
    await site.pool.execute(  # the later one has waited longer
        "UPDATE ekiden.sessions SET waiting_since = waiting_since - interval '1 hour'"
        " WHERE id = $1",
        second,
    )
    text = (await person.get("/inbox")).text
    assert re.findall(r'line-title">(\w+)<', text) == ["second", "first"]
    assert '<span class="badge">2<' in text


async def test_many_sessions_are_ended_at_once_and_what_cannot_be_is_counted(
    site: Site, person: Person
):
    await site.work()
    made = [await site.begin(title=f"number {n}") for n in range(3)]
    for session in made:
        await site.until(session)
    page = await person.get("/?q=number")
    chosen = {f"s-{session}": "on" for session in (*made[:2], "x")}
    after = await person.send_form(page, "/bulk", verb="cancel", name="Mika", **chosen)
    assert "Done for 2 sessions; 1 did not allow it." in after.text
    assert after.url.params["q"] == "number"
    states = [(await site.sessions.get(session)).status for session in made]
    assert states == ["CANCELLED", "CANCELLED", "AWAITING_REVIEW"]


async def test_finished_sessions_are_put_away_and_brought_back_one_and_many(
    site: Site, person: Person
):
    await site.work()
    made = [await site.begin(title=f"number {n}") for n in range(3)]
    for session in made:
        await site.until(session)
    for session in made[:2]:
        await site.sessions.cancel(session, actor="me")
    assert "Nothing is archived" in (await person.get("/?archived=1")).text
    page = await person.get("/?q=number")
    chosen = {f"s-{session}": "on" for session in made}
    after = await person.send_form(page, "/bulk", verb="archive", **chosen)
    assert "Done for 2 sessions; 1 did not allow it." in after.text
    assert re.findall(r'line-title">number (\d)<', after.text) == ["2"]
    away = await person.get("/?archived=1")
    assert re.findall(r'line-title">number (\d)<', away.text) == ["1", "0"]
    url = f"/sessions/{made[1]}"
    back = await person.send_form(await person.get(url), f"{url}/unarchive")
    assert f'action="{url}/archive"' in back.text
    away = await person.send_form(
        away, "/bulk", verb="unarchive", **{f"s-{s}": "on" for s in made[:2]}
    )
    assert away.url.params["archived"] == "1"
    assert "Done for 2 sessions; 0 did not allow it." in away.text
    assert "Nothing is archived" in away.text
    types = [e.type for e in await site.sessions.events(made[1])]
    assert types[-2:] == ["session_archived", "session_unarchived"]


async def test_a_form_that_is_sent_twice_makes_one_session(site: Site, person: Person):
    await site.work()
    form = await person.get("/new/viral")
    fields = {"f.theme": "tea", "f.platform": "X", "f.language": "en"}
    urls = {(await person.send_form(form, "/new/viral", **fields)).url.path for _ in range(3)}
    assert len(urls) == 1
    assert len(await site.sessions.find()) == 1


async def test_who_starts_a_session_says_so_and_is_remembered(site: Site, person: Person):
    await site.work()
    form = await person.get("/new/viral?lang=ja")
    assert '<label for="name">お名前</label>' in form.text
    fields = {"f.theme": "tea", "f.platform": "X", "f.language": "en"}
    wrong = await person.send_form(form, "/new/viral", **{**fields, "f.theme": ""}, name="Mika")
    assert 'name="name" value="Mika"' in wrong.text
    made = await person.send_form(wrong, "/new/viral", **fields, name="Mika")
    session = made.url.path.removeprefix("/sessions/")
    assert (await site.sessions.get(session)).created_by == "Mika"
    assert 'name="name" value="Mika"' in (await person.get("/new/viral?lang=en")).text


async def test_problems_stand_beside_their_fields_and_nothing_typed_is_lost(
    site: Site, person: Person
):
    await site.work()
    form = await person.get("/new/viral")
    answer = await person.send_form(
        form, "/new/viral", **{"f.theme": "", "f.style": "x" * 90, "f.platform": "MySpace",
                               "max_retries": "lots", "title": "kept title"},
    )  # fmt: skip
    assert answer.status_code == 422
    assert re.search(r'id="f-theme-wrong">is required<', answer.text)
    assert re.search(r'id="f-style-wrong">must have at most 80 characters<', answer.text)
    assert re.search(r'id="f-platform-wrong">must be one of: X, ', answer.text)
    assert "x" * 90 in answer.text
    assert 'value="kept title"' in answer.text
    assert await site.sessions.find() == []
    japanese = await person.post(
        "/new/viral?lang=ja",
        data=dict(re.findall(r'name="(token|once)" value="([^"]*)"', answer.text)),
    )
    assert 'id="f-theme-wrong">必須です<' in japanese.text


async def test_the_form_takes_models_a_budget_and_how_it_goes_on(site: Site):
    await site.work()
    async with person_of(site, providers=("openai", "scripted")) as person:
        example = await person.get("/new/viral?example=1")
        assert 'value="home coffee brewing"' in example.text
        form = await person.get("/new/viral")
        assert 'value="home coffee brewing"' not in form.text
        assert '<option value="openai:">' in form.text
        theme = {"f.theme": "tea", "f.platform": "X", "f.language": "en"}
        typed = {"max_cost_usd": "2.50", "max_tokens": "90000", "model.": "scripted:writer-1",
                 "model.2": "openai:gpt-5", "model.1.EXECUTE": "scripted:writer-1",
                 "auto_phases": "on", "max_retries": "1"}  # fmt: skip
        wrong = {"max_cost_usd": "-1", "max_tokens": "1.5", "model.": "gpt-5", "title": "x" * 501,
                 "model.1.EXECUTE": "acme:1", "max_retries": "101"}  # fmt: skip
        answer = await person.send_form(form, "/new/viral", **theme, **{**typed, **wrong})
        assert answer.status_code == 422
        for name, said in {
            "max-cost-usd": "must be at least 0",
            "max-tokens": "must be a whole number",
            "model-": "must be written provider:model",
            "model-1-EXECUTE": "must be one of: openai:…, scripted:…",
            "max-retries": "must be at most 100",
        }.items():
            assert f'id="o-{name}-wrong">{said}<' in answer.text, name
        assert 'value="openai:gpt-5"' in answer.text
        assert await site.sessions.find() == []
        long = await person.send_form(form, "/new/viral", **theme, title="x" * 501)
        assert 'id="o-title-wrong">must have at most 500 characters<' in long.text
        made = await person.send_form(answer, "/new/viral", **theme, **typed)
        session = await site.sessions.get(made.url.path.removeprefix("/sessions/"))
    assert session.models == {
        "": "scripted:writer-1", "2": "openai:gpt-5", "1.EXECUTE": "scripted:writer-1",
    }  # fmt: skip
    assert (session.auto_steps, session.auto_phases, session.max_retries) == (False, True, 1)
    budget = await site.pool.fetchrow("SELECT phase, max_cost_usd, max_tokens FROM ekiden.budgets")
    assert tuple(budget) == (0, Decimal("2.5"), 90000)


async def test_the_form_says_what_sessions_took_and_when_it_does_not_know(
    site: Site, person: Person
):
    await site.work()
    assert "No session of this flow has been completed yet" in (await person.get("/new/viral")).text
    await site.until(await site.begin(auto_phases=True), "COMPLETED")
    one = (await person.get("/new/viral")).text
    assert "The only one so far took" in one
    assert "The one session of this flow whose prices are known cost $0.0" in one
    await site.pool.execute("UPDATE ekiden.calls SET cost_usd = NULL")
    one = (await person.get("/new/viral")).text
    assert "its models have no known price" in one
    assert '<option value="scripted:writer-1">' in one  # what answered lately
    for cost in ("0.25", "0.50"):
        session = await site.begin(auto_phases=True)
        await site.until(session, "COMPLETED")
        # One call has the price, and the others none.
        await site.pool.execute(
            "UPDATE ekiden.calls SET cost_usd = CASE WHEN id = (SELECT min(id) FROM ekiden.calls"
            " WHERE session_id = $1) THEN $2::numeric ELSE 0 END WHERE session_id = $1",
            session, Decimal(cost),
        )  # fmt: skip
    text = (await person.get("/new/viral?lang=ja")).text
    assert "価格の分かる直近2件の費用：中央値 $0.2500（$0.2500〜$0.5000）" in text
    assert "直近3件の処理時間" in text


async def test_the_language_is_the_browsers_until_somebody_chooses(site: Site, person: Person):
    async def language(**headers: str) -> str:
        text = (await person.get("/", headers=headers)).text
        found = re.search(r'<html lang="(\w+)">', text)
        assert found
        return found[1]

    assert await language() == "en"
    assert await language(**{"Accept-Language": "ja-JP,ja;q=0.9,en;q=0.5"}) == "ja"
    assert await language(**{"Accept-Language": "fr, en;q=0.2, ja;q=0.1"}) == "en"
    assert await language(**{"Accept-Language": "ja;q=nonsense,;;,en"}) == "en"
    assert "新しいセッション" in (await person.get("/?lang=ja")).text
    assert await language() == "ja"
    await person.get("/?lang=en")
    assert await language(**{"Accept-Language": "ja"}) == "en"


async def test_a_japanese_session_reads_in_japanese(site: Site, person: Person):
    await site.work()
    session = await site.begin(INPUT_JA)
    await site.pass_gates(session, to=4)
    text = (await person.get(f"/sessions/{session}?lang=ja")).text
    for said in (
        "3本の投稿を書く",
        "あなたの判断",
        "承認して次へ",
        "Xの数え方で",
        "お昼、まだ画面の前で",
    ):
        assert said in text, said


async def test_what_is_not_there_is_a_page_that_says_so(site: Site, person: Person):
    missing = "00000000-0000-7000-8000-000000000000"
    session = f"/sessions/{missing}"
    for path in (
        session, "/sessions/x", f"{session}/tasks/1", f"{session}/tasks/99999999999999999999",
        "/new/none", "/drafts.exe", f"{session}/revisions/1.json", f"{session}/edit?phase=1",
    ):  # fmt: skip
        answer = await person.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "There is nothing here" in answer.text, path


async def test_a_failed_session_says_what_happened_and_what_to_do(site: Site, person: Person):
    refuses = [True]
    answer = sensible()

    async def script(request: ModelRequest) -> Said:
        if refuses[0]:
            raise ModelRefused("Incorrect API key provided.")
        return await answer(request)

    await site.work(script)
    session = await site.begin()
    await site.until(session, "FAILED")
    page = await person.get(f"/sessions/{session}")
    assert "The model refused the request." in page.text
    assert "Check the key, the quota and the input" in page.text
    assert "Incorrect API key provided." in page.text
    (task,) = await site.sessions.tasks(session)
    debug = (await person.get(f"/sessions/{session}/tasks/{task.id}")).text
    for shown in ("Incorrect API key provided.", "scripted:writer-1", "QueriesAnswer", "attempt 1"):
        assert shown in debug, shown
    refuses[0] = False
    await person.send_form(page, f"/sessions/{session}/resume")
    await site.until(session)
    debug = (await person.get(f"/sessions/{session}/tasks/{task.id}")).text
    assert "attempt 2" in debug
    assert "What the last two attempts did differently" in debug
    assert "pour over coffee technique" in debug


def told_above(page: httpx2.Response) -> str:
    """Return what a session's page says of its trouble, down to the error's own words."""
    (told,) = re.findall(r'<div id="top".*?<div class="code">', page.text, re.DOTALL)
    return str(told)


@pytest.mark.parametrize("error", [ModelUnavailable, ModelBusy])
async def test_while_it_is_tried_again_by_itself_nobody_is_told_to_resume(
    site: Site, person: Person, error: type[StepError]
):
    async def run(_ctx: Context) -> str:
        raise error("planted", retry_after=600)

    await site.work(None, one_step(run))
    session, _ = await site.sessions.create(
        "one", title="t", input={}, options=Options(), start=True
    )
    async with asyncio.timeout(10):
        while (await site.sessions.progress(session))["error"] is None:
            await asyncio.sleep(0.01)
    for language, advice, resume in (
        ("en", "You need not do anything about it.", "esume"),
        ("ja", "この件の操作は不要です。", "再開"),
    ):
        told = told_above(await person.get(f"/sessions/{session}?lang={language}"))
        assert advice in told
        assert resume not in told
        assert 'class="advice"' not in told, "it is said once"


WAITS = {
    "en": ("A provider is busy, limited or down", "A step failed", "failed and will be repeated"),
    "ja": ("提供元が混雑中", "ステップが失敗", "試行が失敗"),
}


async def test_what_only_waits_is_told_as_a_wait(site: Site, person: Person):
    async def run(_ctx: Context) -> str:
        raise NotNow("full", retry_after=600)

    await site.work(None, one_step(run))
    session, wait = await waiting(site)
    for language, (what, *failures) in WAITS.items():
        page = await person.get(f"/sessions/{session}?lang={language}")
        told = told_above(page)
        assert what in told
        assert not [word for word in (*failures, "trouble", "data-aloud") if word in told]
        assert 'class="advice"' not in told, "it is said once"
        assert "bar-failed" not in page.text
        page = await person.get(f"/sessions/{session}/tasks/{wait['taskId']}?lang={language}")
        assert "full" in page.text
        assert not [word for word in (*failures, "trouble", "problem") if word in page.text]


async def test_a_wait_for_a_model_that_no_worker_has_says_what_to_do(
    site: Site, person: Person, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(context, "_HAND_ON", 60.0)  # not tried again while the page is read

    async def run(ctx: Context) -> str:
        return await ctx.ask("anything", str)

    catalog = Catalog(ProviderSettings(home=Path("/nowhere")))
    await site.work(None, one_step(run), models=Models(ScriptedProvider([]), build=catalog.get))
    session, wait = await waiting(site, models={"": "anthropic:claude-haiku-4-5"})
    assert wait["kind"] == "model"
    for language, advice, idle in (
        ("en", "Start a worker that has the key", "You need not do anything"),
        ("ja", "APIキーのあるワーカーを起動", "操作は不要です"),
    ):
        page = await person.get(f"/sessions/{session}?lang={language}")
        assert advice in told_above(page)
        assert "data-aloud" in told_above(page)
        assert idle not in page.text
        assert "ANTHROPIC_API_KEY" in page.text


async def waiting(site: Site, **options: Any) -> tuple[str, dict[str, Any]]:
    """Start a session of one step; return it once that waits, and what it waits for."""
    session, _ = await site.sessions.create(
        "one", title="t", input={}, options=Options(**options), start=True
    )
    async with asyncio.timeout(10):
        while (wait := (await site.sessions.progress(session))["wait"]) is None:
            await asyncio.sleep(0.01)
    return session, wait


async def test_a_model_that_stays_busy_is_for_a_person_to_decide(site: Site, person: Person):
    async def run(_ctx: Context) -> str:
        raise ModelBusy("planted", retry_after=7200)  # longer than anybody waits

    await site.work(None, one_step(run))
    session, _ = await site.sessions.create(
        "one", title="t", input={}, options=Options(), start=True
    )
    await site.until(session, "FAILED")
    told = told_above(await person.get(f"/sessions/{session}"))
    assert "Resume when it is less busy, or run the phase again with another model." in told
    assert "tried again" not in told


async def test_what_is_used_of_each_budget_is_among_the_figures(site: Site, person: Person):
    await site.work()
    budgets = {
        0: Budget(max_tokens=90_000_000),
        5: Budget(max_cost_usd=Decimal("2.50"), max_tokens=80_000_000),
    }
    session = await site.begin(budgets=budgets)
    await site.until(session)
    whole, last = await site.sessions.budgets.of(session)
    assert whole.tokens > last.tokens == 0
    text = (await person.get(f"/sessions/{session}")).text
    title = re.escape((await site.sessions.progress(session))["phases"][4]["title"])
    used = f"{whole.tokens:,} of 90,000,000 tokens"
    assert re.search(rf"<dt>Budget</dt><dd><[^>]+>{used}<", text)
    used = r"\$0\.0000 of \$2\.50, 0 of 80,000,000 tokens"
    assert re.search(rf"<dt>Budget: {title}</dt><dd><[^>]+>{used}<", text)
    text = (await person.get(f"/sessions/{session}?lang=ja")).text
    assert "<dt>予算</dt>" in text
    assert "0 / 80,000,000 トークン" in text
    none = await site.begin()
    assert "予算" not in (await person.get(f"/sessions/{none}")).text


async def test_pages_are_small_on_the_wire(site: Site, person: Person):
    await site.work()
    for number in range(41):
        await site.begin(title=f"A title of a usual length, number {number}")
    first = await person.get("/", headers={"Accept-Encoding": "gzip"})
    size = len(first.content)
    for url in re.findall(r'(?:href|src)="(/static/[^"]+)"', first.text):
        async with person.stream("GET", url) as answer:
            size += sum([len(part) async for part in answer.aiter_raw()])
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert size <= 100_000
    assert (await person.get("/static/0123456789ab/ekiden.js")).status_code == 404


async def test_of_many_tasks_a_page_says_what_it_shows_and_forgets_no_phase(
    site: Site, person: Person
):
    await site.work()
    session = await site.begin()
    await site.pass_gates(session, to=2)
    url = f"/sessions/{session}"

    async def add(count: int) -> tuple[int, str]:
        """Return how many tasks there are then, and the page."""
        await site.pool.execute(
            "INSERT INTO ekiden.api_tasks (session_id, flow_id, phase, step, item, generation,"
            " status, attempt, result, started_at, completed_at)"
            " SELECT $1, s.flow_id, 2, 'EXECUTE', 1 + max(t.item) + n, 1, 'COMPLETED', 1, '{}',"
            " ekiden.now(), ekiden.now() FROM ekiden.sessions s"
            " JOIN ekiden.api_tasks t ON t.session_id = s.id, generate_series(0, $2::int - 1) n"
            " WHERE s.id = $1 GROUP BY s.id, n",
            session, count,
        )  # fmt: skip
        count = await site.pool.fetchval(
            "SELECT count(*) FROM ekiden.api_tasks WHERE session_id = $1", session
        )
        return count, (await person.get(url)).text

    count, text = await add(0)
    assert f"All tasks ({count})" in text
    assert "are drawn" not in text
    count, text = await add(300)
    assert f"Tasks (the newest 200 of {count})" in text
    assert text.count(f'<tr><td><a href="{url}/tasks/') == 200
    newest = await site.pool.fetchval(
        "SELECT max(item) FROM ekiden.api_tasks WHERE session_id = $1", session
    )
    assert f"<td>Execute {newest + 1}</td>" in text
    assert f"80 of {count} tasks are drawn.<" in text
    count, text = await add(1000)
    assert f"Tasks (the newest 200 of {count:,})" in text
    assert f"80 of {count:,} tasks are drawn. The figures above are of the newest 1,000.<" in text
    assert f"<td>Execute {newest + 1001}</td>" in text
    rerun = await person.get(f"{url}/rerun")
    assert re.findall(r'name="phase" value="(\d)"', rerun.text) == ["1", "2"]


async def test_drafts_move_on_and_two_people_do_not_move_one_twice(site: Site, person: Person):
    await site.work()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    page = await person.get("/drafts")
    (draft, *_) = await site.sessions.board.find()
    await person.send_form(page, f"/drafts/{draft.id}", to="APPROVED", name="Mika")
    late = await person.send_form(page, f"/drafts/{draft.id}", to="ARCHIVED")
    assert late.status_code == 409
    assert "Somebody moved this draft before you." in late.text
    (found,) = [d for d in await site.sessions.board.find() if d.id == draft.id]
    assert (found.status, found.changed_by) == ("APPROVED", "Mika")
    assert "Your kettle" in (await person.get("/drafts?status=DRAFT")).text or draft.number


async def test_a_draft_is_edited_and_nobodys_edit_is_lost(site: Site, person: Person):
    await site.work()
    await site.until(await site.begin(auto_phases=True), "COMPLETED")
    (draft, *_) = await site.sessions.board.find()
    url = f"/drafts/{draft.id}/edit"
    mine, theirs = await person.get(url), await person.get(url)
    await person.send_form(theirs, url, title="Theirs", text="駅伝", name="Ken")
    late = await person.send_form(mine, url, title="Mine", text="A text of my own.", name="Mika")
    assert late.status_code == 409
    assert "A text of my own." in late.text
    assert "changed this draft while you were editing" in late.text
    empty = await person.send_form(late, url, title="Mine", text=" ")
    assert empty.status_code == 422
    await person.send_form(late, url, title="Mine", text="A text of my own.", name="Mika")
    found = await site.sessions.board.get(draft.id)
    assert (found.title, found.body["text"], found.changed_by) == (
        "Mine",
        "A text of my own.",
        "Mika",
    )
    assert found.body["characters"] == 17
    assert found.body["hashtags"] == draft.body["hashtags"]


async def test_what_is_done_to_an_older_draft_is_told_where_it_was_done(site: Site, person: Person):
    await site.work()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    await site.pool.execute(  # enough for a second page
        "INSERT INTO ekiden.drafts (session_id, generation, number, title, body, sources)"
        " SELECT $1, 1, 100 + n, 'a later one', '{\"text\": \"x\"}', '[]'"
        " FROM generate_series(1, 30) n",
        session,
    )
    *_, draft = await site.sessions.board.find()
    older = re.search(r'rel="next" href="([^"]+)"', (await person.get("/drafts?status=DRAFT")).text)
    assert older
    page = await person.get(older[1].replace("&amp;", "&"))
    assert f'id="draft-{draft.id}"' in page.text
    place = {"status": "DRAFT", "before": page.url.params["before"]}

    edit = re.search(rf'href="(/drafts/{draft.id}/edit[^"]*)"', page.text)
    assert edit
    form = await person.get(edit[1].replace("&amp;", "&"))
    assert f'href="/drafts?status=DRAFT&amp;before={place["before"]}">Back' in form.text
    url = f"/drafts/{draft.id}/edit"
    empty = await person.send_form(form, url, title="", text="")
    edited = await person.send_form(empty, url, title="Mine", text="my text", name="Mika")
    assert dict(edited.url.params) == place
    assert edited.url.fragment == f"draft-{draft.id}"
    assert "edited by Mika" in edited.text
    assert "moved by" not in edited.text

    moved = await person.send_form(edited, f"/drafts/{draft.id}", to="APPROVED")
    assert dict(moved.url.params) == place
    late = await person.send_form(edited, f"/drafts/{draft.id}", to="POSTED")
    assert late.status_code == 409
    assert 'rel="next"' not in late.text, "it is the last page still"
    assert "a later one" not in late.text
    assert "moved by Mika" in (await person.get("/drafts?status=APPROVED")).text


async def test_drafts_leave_as_markdown_csv_and_json(site: Site, person: Person):
    await site.work()
    session = await site.begin({**INPUT_JA, "theme": "=HYPERLINK(1)"}, auto_phases=True)
    await site.until(session, "COMPLETED")
    json_ = await person.get("/drafts.json")
    assert [d["sessionId"] for d in json_.json()] == [session] * 3
    csv = await person.get("/drafts.csv")
    assert csv.content.startswith(b"\xef\xbb\xbf")
    assert ",=HYPERLINK" not in csv.text
    assert "'=HYPERLINK(1)" in csv.text
    markdown = await person.get("/drafts.md?status=DRAFT")
    assert markdown.text.count("\n```text\n") == 3
    for answer in (json_, csv, markdown):
        assert answer.headers["content-disposition"].startswith("attachment;")
    assert (await person.get("/drafts.json?status=POSTED")).json() == []


async def test_all_drafts_are_on_the_page_and_in_the_files_however_many(site: Site, person: Person):
    await site.work()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    await fill_up_drafts(site.pool, 101)
    page = (await person.get(f"/sessions/{session}")).text
    made = page.partition('<section class="made"')[2].partition("</section>")[0]
    assert made.count('<li class="card">') == 101
    await fill_up_drafts(site.pool, 2002)
    drafts = (await person.get("/drafts.json")).json()
    assert len({draft["id"] for draft in drafts}) == len(drafts) == 2002
    assert len((await person.get("/drafts.csv")).text.split(session)) == 2003
    assert (await person.get("/drafts.md")).text.count(f"({session})\n") == 2002


async def test_a_form_of_somebody_else_changes_nothing(site: Site, person: Person):
    await site.work()
    session = await site.begin()
    await site.until(session)
    page = await person.get(f"/sessions/{session}")
    token = re.search(r'name="token" value="(\w+)"', page.text)
    assert token
    async with person_of(site) as stranger:
        for given in ({"x": "1"}, {"token": ""}, {"token": "x"}, {"token": token[1]}):
            answer = await stranger.post(f"/sessions/{session}/approve", data=given)
            assert answer.status_code == 403, given
            assert "This form is too old" in answer.text
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await person.post(
            f"/sessions/{session}/approve", data={"token": token[1]}, headers=headers
        )
        assert answer.status_code == 403
    for body, kind, status in (
        (b'{"token": "x"}', "application/json", 415), (b"", "", 415),
        (b"token=%ff", "application/x-www-form-urlencoded", 400),
        (b"x" * 2_000_000, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=1" for _ in range(600)), "application/x-www-form-urlencoded", 400),
    ):  # fmt: skip
        answer = await person.post(
            f"/sessions/{session}/approve", content=body, headers={"Content-Type": kind}
        )
        assert answer.status_code == status
    assert (await site.sessions.get(session)).status == "AWAITING_REVIEW"


async def test_no_get_of_a_page_decides_anything(site: Site, person: Person):
    await site.work()
    session = await site.begin()
    await site.until(session)
    for verb in (
        "approve",
        "reject",
        "accept",
        "retry",
        "budget",
        "start",
        "pause",
        "resume",
        "cancel",
        "archive",
        "unarchive",
    ):
        answer = await person.get(f"/sessions/{session}/{verb}")
        assert answer.status_code in {404, 405}, verb
    task = (await site.sessions.tasks(session))[0].id
    before = await site.pool.fetchval("SELECT max(id) FROM ekiden.events")
    for path in ("", "/edit?phase=1", "/rerun", f"/tasks/{task}"):
        assert (await person.get(f"/sessions/{session}{path}")).status_code == 200, path
    assert await site.pool.fetchval("SELECT max(id) FROM ekiden.events") == before


async def test_every_page_forbids_what_it_does_not_need(site: Site, person: Person):
    await site.work()
    session = await site.begin(auto_phases=True)
    await site.until(session, "COMPLETED")
    for path in ("/", "/inbox", "/new/viral", "/drafts", "/monitoring", "/settings", "/login",
                 f"/sessions/{session}", "/sessions/x"):  # fmt: skip
        answer: httpx2.Response = await person.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"), path
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert " style=" not in answer.text, path
        assert not re.search(r"\son\w+=", answer.text), path
