"""Records of older schemas, brought to the present one a version at a time. Files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Raw: TypeAlias = dict[str, Any]


def numbered(raw: Raw) -> Raw:
    """0 -> 1. Schema 0 is schema 1 before it had a number: the key ``schema_version`` may be missing, and no other."""
    return {**raw, "schema_version": 1}


STEPS: Mapping[int, Callable[[Raw], Raw]] = {0: numbered}


class NewerSchemaError(ValueError):
    """A record of a schema that came after this program."""


def migrated(raw: Raw, steps: Mapping[int, Callable[[Raw], Raw]] = STEPS) -> Raw:
    """Return ``raw``, a record of any schema up to the present one, as a record of the present one.

    ``steps`` {version: how a record of it becomes one of the next} lead from 0 to the present; none changes what it is
    given. NewerSchemaError: a later version; ValueError: what is no version.
    """
    version, known = raw.get("schema_version", 0), len(steps)
    if type(version) is not int or version < 0:
        raise ValueError(f"schema_version: {version!r} is no version")
    if version > known:
        raise NewerSchemaError(f"follows schema {version}, and this dvbench knows up to {known}")
    for step in range(version, known):
        raw = steps[step](raw)
    return raw
