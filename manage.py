#!/usr/bin/env python
"""Entrepot's commands: `./manage.py help` lists them, `./dev manage …` runs them in the project's own environment."""

import getpass
import os
import sys

from django.core.management import execute_from_command_line

from accounts.origin import Origin, enter


def whoever_runs_this() -> str:
    """The system's name for them; a container may know none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")
    enter(Origin(actor=f"command:{whoever_runs_this()}"[:150], request="".join(sys.argv[1:2])[:32]))
    execute_from_command_line(sys.argv)
