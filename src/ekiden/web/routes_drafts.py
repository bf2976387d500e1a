"""The board of all drafts: what each says, where it is on its way out, and files to take along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from ekiden.api.limits import INT64_MAX
from ekiden.api.problems import invalid
from ekiden.errors import Conflict, NotFound
from ekiden.store.drafts import DraftRow, DraftState
from ekiden.web.exports import MEDIA_TYPES, export
from ekiden.web.language import itself
from ekiden.web.rendering import HEADERS
from ekiden.web.routes_sessions import told_of
from ekiden.web.shape import Part, shape
from ekiden.web.texts import Speech
from ekiden.web.visit import PageRoute, Visit, Visiting
from ekiden.web.weights import weighted_length

router = APIRouter(route_class=PageRoute, include_in_schema=False)

DraftId = Annotated[int, Path(ge=1, le=INT64_MAX)]
_PAGE = 30
_NEXT = {  # what is offered first for a draft in each state
    DraftState.DRAFT: DraftState.APPROVED,
    DraftState.APPROVED: DraftState.SCHEDULED,
    DraftState.SCHEDULED: DraftState.POSTED,
    DraftState.POSTED: DraftState.ARCHIVED,
    DraftState.ARCHIVED: DraftState.DRAFT,
}


@dataclass(frozen=True, slots=True)
class Place:
    """A page of the board; what is done to a draft leads back to where it was done."""

    status: DraftState | None  # of which drafts; None: of all that are open
    before: int | None  # the draft that they are older than; None: the newest

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Place:
        """Return the page that a query or a form names."""
        status, before = given.get("status", ""), given.get("before", "")
        number = int(before) if before.isdecimal() and len(before) < 20 else 0
        return cls(
            DraftState(status) if status in set(DraftState) else None,
            number if 0 < number <= INT64_MAX else None,
        )

    @property
    def named(self) -> dict[str, str]:
        """Return what names it, in a query or a form."""
        named = {"status": self.status or "", "before": str(self.before or "")}
        return {name: value for name, value in named.items() if value}

    @property
    def url(self) -> str:
        """Return its address."""
        return f"/drafts?{urlencode(self.named)}" if self.named else "/drafts"


@router.get("/drafts")
async def drafts(visit: Visiting) -> Response:
    """Show the drafts, newest first."""
    return await _show(visit, Place.of(visit.request.query_params))


async def _show(visit: Visit, place: Place, code: int = 200, *, told: str = "") -> Response:
    found = await visit.here.sessions.board.find(
        status=place.status, before=place.before, limit=_PAGE + 1
    )
    page = found[:_PAGE]
    return await visit.show(
        "drafts.html",
        code=code,
        drafts=[(d, parts_of(d, visit.t), _NEXT[DraftState(d.status)]) for d in page],
        states=list(DraftState),
        counts=await visit.here.sessions.board.counts(),
        status=place.status or "",
        place=place.named,
        itself=itself("/drafts", place.named.items()),
        next_before=page[-1].id if len(found) > _PAGE else None,
        told=told,
        now=await visit.pages.now(),
    )


def parts_of(draft: DraftRow, t: Speech) -> Part:
    """Return a draft's body as parts, under its own title."""
    return shape({**draft.body, "title": draft.title}, t)


@router.get("/drafts.{form}")
async def exported(visit: Visiting, form: str, status: str = "") -> Response:
    """Return all drafts as a file."""
    if form not in MEDIA_TYPES:
        raise NotFound("Drafts are exported as md, csv or json.")
    known = DraftState(status) if status in set(DraftState) else None
    pages = visit.here.sessions.board.pages(known)
    # Before the answer begins: what refuses now is still a page.
    first: list[DraftRow] = await anext(pages, [])
    name = f"drafts-{known.lower()}" if known else "drafts"
    return StreamingResponse(
        export(first, pages, form),
        media_type=MEDIA_TYPES[form],
        headers={**HEADERS, "Content-Disposition": f'attachment; filename="{name}.{form}"'},
    )


@router.get("/drafts/{draft}/edit")
async def edit_form(visit: Visiting, draft: DraftId) -> Response:
    """Show a draft's text as a form."""
    place = Place.of(visit.request.query_params)
    return await _show_edit(visit, await visit.here.sessions.board.get(draft), place)


async def _show_edit(
    visit: Visit,
    draft: DraftRow,
    place: Place,
    code: int = 200,
    *,
    form: dict[str, str] | None = None,
    told: str = "",
) -> Response:
    if not isinstance(draft.body.get("text"), str):
        raise NotFound("This draft has no text of its own: edit the output it was made from.")
    beaten = code == 409
    return await visit.show(
        "draft.html",
        code=code,
        draft=draft,
        place=place.named,
        board=place.url,
        itself=itself(f"/drafts/{draft.id}/edit", place.named.items()),
        title=(form or {}).get("title", draft.title),
        text=(form or {}).get("text", draft.body["text"]),
        # Only who is told of somebody else's text replaces it with the next try.
        version=_version(draft) if form is None or beaten else form.get("version", ""),
        told=told,
        beaten=beaten,
        now=await visit.pages.now(),
    )


def _version(draft: DraftRow) -> str:
    return draft.changed_at.isoformat() if draft.changed_at else ""


@router.post("/drafts/{draft}/edit")
async def edit(visit: Visiting, draft: DraftId) -> Response:
    """Store a draft's text, if nobody changed the draft since the form was made."""
    form = await visit.form()
    place = Place.of(form)
    found = await visit.here.sessions.board.get(draft)
    title, text = " ".join(form.get("title", "").split()), form.get("text", "").strip()
    if not title or not text:
        return await _show_edit(visit, found, place, 422, form=form, told=visit.t("drafts.no-text"))
    body = {**found.body, "text": text}
    if "characters" in body:
        weighted = str(body.get("platform", "")).lower() == "x"
        body["characters"] = weighted_length(text) if weighted else len(text)
    try:
        seen = datetime.fromisoformat(form["version"]) if form.get("version") else None
    except ValueError:
        raise invalid([("version", "is no time")]) from None
    try:
        await visit.here.sessions.board.edit(
            draft, title=title, body=body, seen=seen, actor=visit.actor
        )
    except Conflict as error:
        found = await visit.here.sessions.board.get(draft)
        return await _show_edit(visit, found, place, 409, form=form, told=told_of(visit, error))
    return visit.see_other(f"{place.url}#draft-{draft}")


@router.post("/drafts/{draft}")
async def move(visit: Visiting, draft: DraftId) -> Response:
    """Give a draft another status, if it still has the one that was seen."""
    form = await visit.form()
    to, seen = form.get("to", ""), form.get("seen", "")
    if to not in set(DraftState) or seen not in set(DraftState):
        raise NotFound("There is no such draft, or no such status.")
    place = Place.of(form)
    try:
        await visit.here.sessions.board.move(
            draft, DraftState(to), seen=DraftState(seen), actor=visit.actor
        )
    except Conflict as error:
        status = visit.t(f"draft.{error.named['status']}")
        told = visit.t("conflict.draft", status=status, who=error.named["who"])
        return await _show(visit, place, 409, told=told)
    return visit.see_other(f"{place.url}#draft-{draft}")
