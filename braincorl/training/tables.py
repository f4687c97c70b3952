"""From tables of TOML to configurations: unknown or missing keys and values of a wrong type are refused by name."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from braincorl.errors import InputError

Config = TypeVar("Config")
_WORDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


def build(kind: type[Config], values: Any, where: str) -> Config:
    """Make a configuration from a table; lists become tuples, tables the configurations that the fields ask for.

    Parameters
    ----------
    kind
        A dataclass whose fields have types from this list: int, float, str, bool, tuples of those, and dataclasses.
    values
        The table.
    where
        Opens every message.

    Returns
    -------
    instance of `kind`

    Raises
    ------
    InputError
        If a key is unknown or missing, or a value is of the wrong type or impossible.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where} must be a table, but is {values!r}: write its keys below a line in brackets.")
    known = get_type_hints(kind)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is unknown; known are {', '.join(known)}.")
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise InputError(f"{where}: {item.name!r} is missing: add it.")
    converted = {name: _convert(known[name], value, name, where) for name, value in values.items()}
    try:
        return kind(**converted)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, name: str, where: str) -> Any:
    """Give a value of the type that a field asks for."""
    if isinstance(hint, UnionType):  # a table that may be missing
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if is_dataclass(hint):
        return build(hint, value, f"{where}, {name}")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return _convert_list(get_args(hint), value, name, where)
    fits = isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where}: {name} must be {_WORDS[hint]}, but is {value!r}.")
    return value


def _convert_list(kinds: tuple[Any, ...], value: Any, name: str, where: str) -> tuple[Any, ...]:
    length = None if kinds[-1] is Ellipsis else len(kinds)
    if not isinstance(value, list) or length not in (None, len(value)):
        wanted = "a list" if length is None else f"a list of {length} values"
        raise InputError(f"{where}: {name} must be {wanted}, but is {value!r}: write it in brackets.")
    return tuple(_convert(kinds[0], item, f"{name} {number}", where) for number, item in enumerate(value, 1))
