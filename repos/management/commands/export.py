from __future__ import annotations

import json

import yaml
from django.core.management.base import BaseCommand

from repos.configuration import engine
from repos.management.told import told


class Command(BaseCommand):
    help = (
        "Write the server's configuration as the document that `apply` takes. Secrets are written as {env: NAME}, the "
        "environment variable that `apply` is to find them in; passwords and tokens of users are not written."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("--format", choices=["yaml", "json"], default="yaml", help="default: %(default)s")

    def handle(self, *, format: str, **options) -> None:
        with told():
            document = engine.export()
        if format == "json":
            self.stdout.write(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            self.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), ending="")
