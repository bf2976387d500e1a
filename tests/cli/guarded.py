"""Flows that want something of people: ``--flow tests.cli.guarded:four_eyes``."""

from __future__ import annotations

from ekiden import Flow, Gate
from tests.cli.toy import Collect, ToyInput


class FourEyes(Collect):
    """Collect numbers"""

    gate = Gate(four_eyes=True)


class ByAnn(Collect):
    """Collect numbers"""

    gate = Gate(approvers=("ann",))


class ByTwo(Collect):
    """Collect numbers"""

    gate = Gate(approvals=2)


class Choosy(Collect):
    """Collect numbers"""

    failed_items = "ask"


four_eyes = Flow("four-eyes", input=ToyInput, phases=[FourEyes, Collect])
by_ann = Flow("by-ann", input=ToyInput, phases=[ByAnn, Collect])
by_two = Flow("by-two", input=ToyInput, phases=[ByTwo, Collect])
choosy = Flow("choosy", input=ToyInput, phases=[Choosy, Collect])
