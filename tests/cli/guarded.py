"""Flows whose first gate is not for everybody: ``--flow tests.cli.guarded:four_eyes``."""

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


four_eyes = Flow("four-eyes", input=ToyInput, phases=[FourEyes, Collect])
by_ann = Flow("by-ann", input=ToyInput, phases=[ByAnn, Collect])
by_two = Flow("by-two", input=ToyInput, phases=[ByTwo, Collect])
