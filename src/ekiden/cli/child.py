"""How a child of ``ekiden up`` is tied to it, and tells it that it is ready."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from ekiden.errors import EkidenError

SUPERVISOR = "EKIDEN_SUPERVISOR"  # its process number
READY = "EKIDEN_READY_FD"  # where a child says that it is ready
DATABASE_FROM = "EKIDEN_DATABASE_FROM"  # where the DATABASE_URL it gives comes from

_PR_SET_PDEATHSIG = 1


def tie_to_supervisor() -> None:
    """Get SIGTERM when the supervisor dies, however that happens. Does nothing without one.

    Called in the main thread first thing: the child binds itself, so no code runs between fork
    and exec; what dies before this line is noticed by the parent's number.

    Raises:
        EkidenError: the supervisor is gone already.
    """
    supervisor = os.environ.pop(SUPERVISOR, None)
    if supervisor is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(supervisor):
        raise EkidenError("The supervisor is gone; so is this.")


def tell_ready() -> None:
    """Tell the supervisor, if there is one."""
    descriptor = os.environ.pop(READY, None)
    if descriptor is not None:
        os.write(int(descriptor), b"1")
        os.close(int(descriptor))
