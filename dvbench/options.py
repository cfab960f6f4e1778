"""A plugin's configuration is its constructor: options are its parameters, checked against their types."""

from __future__ import annotations

import inspect
import json
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Option:
    """A constructor's parameter that a user may set."""

    name: str
    annotation: Any
    default: Any

    def __str__(self) -> str:
        return f"{self.name}: {inspect.formatannotation(self.annotation)} = {self.default!r}"


def read(cls: type[Any], context: Sequence[str]) -> dict[str, Option]:
    """Read the options of ``cls``: its constructor's parameters without those of ``context``, which the bench gives."""
    parameters = dict(inspect.signature(cls).parameters)
    for name in context:
        if parameters.pop(name, None) is None:
            raise UsageError(
                f"the constructor of {cls.__name__} does not take {name!r}, which dvbench gives it: add it"
            )
    return {name: _option(cls, parameter) for name, parameter in parameters.items()}


def _option(cls: type[Any], parameter: inspect.Parameter) -> Option:
    what = f"the constructor of {cls.__name__} has the parameter {str(parameter)!r}"
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise UsageError(f"{what}, which names no option: name each, with a type and a default")
    if parameter.name == "name":
        raise UsageError(f"{what}, and `name` is what chooses the plugin itself: call it otherwise")
    if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
        raise UsageError(f"{what}, which is no option without a type and a default: give it both")

    def probe() -> None:
        """Hold this one annotation: `ladder: Sequence[int]`, imported for type checkers only, is to harm no other."""

    probe.__annotations__ = {parameter.name: parameter.annotation}
    scope = getattr(inspect.unwrap(cls.__init__), "__globals__", {})
    try:
        hints = typing.get_type_hints(probe, scope, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise UsageError(f"{what}, whose type is not known when the program runs ({error}): import it") from error
    return Option(parameter.name, hints[parameter.name], parameter.default)


def check(what: str, known: Mapping[str, Option], given: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each option's name, its value in its type, and the same as JSON holds it; what is not given is default.

    ``what`` says in errors whose options they are ("basis dct").
    """
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    for stray in given.keys() - known.keys():
        raise unknown(f"option of {what}", stray, known)
    for option in known.values():
        value = given.get(option.name, option.default)
        wanted = inspect.formatannotation(option.annotation)
        sentence = f"option {option.name} of {what}"
        try:
            adapter = TypeAdapter(option.annotation)
        except PydanticUserError as error:
            raise UsageError(
                f"{sentence} has the type {wanted}, whose values cannot be checked: use a plain one"
            ) from error
        try:
            typed = adapter.validate_python(value)
            plain = adapter.dump_python(typed, mode="json")
            json.dumps(plain, allow_nan=False)
        except ValidationError as error:
            told = error.errors()[0]["msg"]
            told = told[0].lower() + told[1:]
            raise UsageError(f"{sentence} is {wanted}, and {value!r} will not do: {told}") from error
        except (TypeError, ValueError) as error:  # NaN, infinity, and anything else that no record could hold
            raise UsageError(
                f"{sentence} is {wanted}, and {value!r} cannot be recorded: give a finite value"
            ) from error
        yield option.name, typed, plain
