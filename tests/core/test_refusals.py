from __future__ import annotations

from typing import Any

import pytest

from ekiden.core.model import SessionState
from ekiden.core.refusals import instead, no_edit


@pytest.mark.parametrize(
    ("of", "kind"),
    [
        ({}, None),
        ({"phase": 1}, None),
        ({"status": SessionState.COMPLETED, "current": 3}, None),
        ({"status": SessionState.RUNNING}, "RUNNING"),
        ({"status": SessionState.CANCELLED}, "CANCELLED"),
        ({"has_output": False}, "no-output"),
        ({"current": 1}, "later-phase"),
        ({"phase": 3, "status": SessionState.COMPLETED, "current": 3}, "last-phase"),
    ],
)
def test_an_edit_is_refused_before_it_is_made_where_it_could_not_be_stored(
    of: dict[str, Any], kind: str | None
):
    place = {
        "phase": 2, "session_id": "s", "status": SessionState.AWAITING_REVIEW, "current": 2,
        "phases": 3, "has_output": True,
    }  # fmt: skip
    refused = no_edit(**(place | of))
    assert (refused and refused.kind) == kind


def test_what_stopped_over_items_is_not_to_be_resumed():
    assert "Resume it." in instead(SessionState.PAUSED, "s").message
    assert "Resume it." in instead(SessionState.PAUSED, "s", "budget").message
    assert instead(SessionState.PAUSED, "s", "items").kind == "items-failed"
