from __future__ import annotations

from django.core.management.base import BaseCommand, CommandError

from accounts.globs import compile_glob
from repos import catalogue, publish
from repos.management.told import told
from repos.models import Asset, Freshness, Repository

BATCH = 500


class Command(BaseCommand):
    help = (
        "Drop what a remote repository has cached, so that the next request fetches it anew: for bytes that were wrong at the "
        "upstream, or are damaged here. PATH is as in the URL after the repository, and may be a pattern (* stops at /, ** does "
        "not), such as 'github.com/some/module/**'. Also forgets what the upstream is known not to have."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("repository", metavar="REPOSITORY")
        parser.add_argument("paths", nargs="+", metavar="PATH")

    def handle(self, *, repository: str, paths: list[str], **options) -> None:
        row = Repository.objects.filter(key=repository).first()
        if row is None or row.kind != Repository.Kind.REMOTE:
            raise CommandError(f"{repository} is no remote repository; what is published in a local one is deleted over HTTP")
        repo = catalogue.load_one(row)
        patterns = [compile_glob(path) for path in paths]
        standing = Asset.objects.filter(repository=row, until=None).order_by("path").values_list("path", flat=True)
        wanted = [path for path in standing.iterator() if any(pattern.fullmatch(path) for pattern in patterns)]
        with told():
            for start in range(0, len(wanted), BATCH):
                publish.delete(repo, wanted[start : start + BATCH], "evict")
        known = Freshness.objects.filter(repository=row).values_list("path_key", flat=True)
        keys = [key for key in known.iterator() if any(pattern.fullmatch(key) for pattern in patterns)]
        for start in range(0, len(keys), BATCH):
            Freshness.objects.filter(repository=row, path_key__in=keys[start : start + BATCH]).delete()
        for path in wanted:
            self.stdout.write(path)
