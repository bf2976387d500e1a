"""How flows are found."""

from __future__ import annotations

import pytest

from ekiden.errors import FlowError
from ekiden.flows import registry
from ekiden.flows.registry import load_flows


class Broken:
    name = "broken"
    value = "nowhere:flow"

    def load(self) -> object:
        raise ModuleNotFoundError("No module named 'nowhere'")


def test_an_installed_flow_that_cannot_be_loaded_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = registry.entry_points(group=registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [Broken(), *installed])
    told: list[str] = []
    monkeypatch.setattr(
        registry.telemetry, "emit", lambda event, **fields: told.append(fields["flow"])
    )
    assert [flow.name for flow in load_flows()] == ["viral"]
    assert told == ["broken"]


@pytest.mark.parametrize("reference", ["nowhere:flow", "no_colon", "ekiden:Flow"])
def test_a_flow_that_was_asked_for_must_load(reference: str) -> None:
    with pytest.raises(FlowError, match=reference.partition(":")[0]):
        load_flows([reference])
