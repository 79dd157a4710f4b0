"""A plain tree of files: the base behaviour of every format, and nothing more."""

from __future__ import annotations

from repos.catalogue import Repo
from repos.format import Format


class Raw(Format):
    key = "raw"
    aliases = ("generic",)
    digests = ("sha1", "md5")

    def setup(self, repo: Repo, base_url: str, *, signed_in: bool) -> str:
        url = f"{base_url}/{self.mount}{repo.key}"
        login = "" if signed_in is False else " --netrc"
        return (
            f"# get a file\ncurl -fO{login} {url}/PATH\n\n"
            f"# put a file; the digest is checked on arrival\n"
            f'curl -fT FILE{login} -H "X-Checksum-Sha256: $(sha256sum FILE | cut -d" " -f1)" {url}/PATH\n\n'
            f"# delete it\ncurl -fX DELETE{login} {url}/PATH\n"
        )


FORMAT = Raw()
