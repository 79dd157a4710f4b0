#!/usr/bin/env python
"""Entrepot's commands: `./manage.py help` lists them, `./dev manage …` runs them in the project's own environment."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")
    execute_from_command_line(sys.argv)
