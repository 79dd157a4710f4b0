"""Durations as words of a command."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta

from basics.durations import duration


def age(text: str) -> timedelta:
    """A duration as the configuration has it, such as `90s` or `2h`; a plain number is one of seconds."""
    try:
        return duration(f"{text}s" if text.isdecimal() else text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
