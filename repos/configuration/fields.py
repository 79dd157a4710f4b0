"""The words that documents are written in, as REST framework fields, and the strict serializer that all items share."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

import problems
from accounts import globs
from basics.durations import duration

ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ONE_LINE = RegexValidator(r"\A[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f\x85\u2028\u2029]*[^\s\x00-\x1f\x7f])?\Z",
                          "a name is one line without spaces around it")  # fmt: skip


class Item(serializers.Serializer):
    """One item of a section. Refuses keys that it does not know, and names the nearest that it does."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and (strange := [key for key in data if key not in self.fields]):
            raise serializers.ValidationError({str(key): [unknown("key", str(key), list(self.fields))] for key in strange})
        return super().to_internal_value(data)


def unknown(what: str, word: str, known: list[str], *, others: str = "known are") -> str:
    """That `word` is no `what`, with the nearest that is one, else with all of them."""
    close = difflib.get_close_matches(word, known, 1)
    return f"unknown {what}; " + (f"did you mean {close[0]}?" if close else f"{others} {', '.join(known)}")


class TextField(serializers.CharField):
    """Text that is written as text: of a number such as 007 or 1.10 YAML does not tell how it was written."""

    default_error_messages = {"invalid": "text is expected; put quotes around a number"}

    def __init__(self, **options: Any):
        super().__init__(**{"trim_whitespace": False, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("true or false is expected")
        return data


class DurationField(TextField):
    """`90s`, `10m`, `12h` or `30d`, kept as it is written."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            duration(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None
        return text


class GlobField(TextField):
    """A name pattern: `*` stops at `/`, `**` does not."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return globs.checked(super().to_internal_value(data))
        except problems.Malformed as problem:
            raise serializers.ValidationError(problem.detail) from None


def names(**options: Any) -> serializers.ListField:
    """A list of names; the order does not matter, so it is kept sorted and each once."""
    return SetField(child=TextField(max_length=500), **options)


def patterns(**options: Any) -> SetField:
    return SetField(child=GlobField(), required=False, **options)


class SetField(serializers.ListField):
    def to_internal_value(self, data: Any) -> list[Any]:
        return sorted(set(super().to_internal_value(data)))


@dataclass(frozen=True)
class Secret:
    """A secret and the environment variable that names it in documents. Two are equal when the names are: values are not shown.

    An empty value is one that is not known here, or, of a stored secret, `sealed`.
    """

    env: str
    value: str = field(default="", compare=False, repr=False)
    sealed: str = field(default="", compare=False, repr=False)

    def shown(self) -> dict[str, str]:
        return {"env": self.env}


class SecretField(serializers.Field):
    """`{env: NAME}`, or the secret itself, which then is named after its place when it is exported.

    Only the variables in the serializer's context are read: none, unless it was given some.
    """

    def to_internal_value(self, data: Any) -> Secret:
        name = data["env"] if isinstance(data, dict) and list(data) == ["env"] else None
        if isinstance(data, str) and data:
            secret = Secret("", data)
        elif isinstance(name, str) and ENVIRONMENT_NAME.fullmatch(name):
            secret = Secret(name, self.context.get("variables", {}).get(name, ""))
        else:
            raise serializers.ValidationError("a secret is written as {env: NAME_OF_AN_ENVIRONMENT_VARIABLE}")
        if any("\ud800" <= character <= "\udfff" for character in secret.value):
            raise serializers.ValidationError(f"{secret.env or 'the secret'} is no UTF-8 text")
        return secret


def lines(errors: Any, where: str = "") -> list[str]:
    """A serializer's errors as lines that each begin with the place, such as `upstreams[0].url`."""
    if isinstance(errors, dict):
        inner = errors.items()
        return [line for key, value in inner for line in lines(value, _place(where, str(key)))]
    if isinstance(errors, list) and any(isinstance(item, dict) for item in errors):
        return [line for n, item in enumerate(errors) for line in lines(item, f"{where}[{n}]")]
    return [f"{where}: {str(message).rstrip('.')}" if where else str(message).rstrip(".") for message in errors]


def _place(where: str, key: str) -> str:
    if key == "non_field_errors":
        return where
    if key.isdigit():
        return f"{where}[{key}]"
    return f"{where}.{key}" if where else key
