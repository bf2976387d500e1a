"""Becomes the embedded PostgreSQL: run as a script, replaces itself with the server.

    python -I -S _launch.py PARENT UID GID COMMAND...

A script and not a ``preexec_fn``, which would run Python in a fork of a process that may have
threads, where any lock can be held for ever. UID -1 keeps the account. Imports the standard
library only: it starts before anything else of Ekiden can be found.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, uid: int, gid: int, command: list[str]) -> None:
    """Give up root, bind our life to the parent's, and become ``command``."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of account, which would clear it. SIGINT is PostgreSQL's fast shutdown:
        # transactions roll back, the data folder is left clean.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above could see it
            sys.exit("The process that wanted this server is gone.")
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
