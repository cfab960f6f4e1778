"""What can go wrong, told apart by what the user can do about it. Each error is one sentence with the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DvbenchError(Exception):
    """An error whose message is written for the user; ``exit_code`` is the command's."""

    exit_code = 1


class UsageError(DvbenchError):
    """Wrong usage or bad input: nothing was started and nothing was written."""

    exit_code = 2


class WorkError(DvbenchError):
    """The work itself failed: a full disk, a training that diverged."""


def unknown(what: str, name: str, known: Iterable[str], mend: str = "") -> UsageError:
    """Name the nearest known spelling of a name that is not known.

    ``what`` is the kind of thing ("basis"), ``mend`` an optional last clause.
    """
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(choices)}" if choices else "there is none"
    )
    tail = f" {mend}" if mend else ""
    return UsageError(f"there is no {what} called {name!r}: {hint}{tail}")
