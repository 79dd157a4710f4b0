"""What a developer or a CI job pastes to fetch modules through a repository."""

from __future__ import annotations

from urllib.parse import urlsplit

TEXT = """\
# Fetch modules through this repository
go env -w GOPROXY={url}

# The checksum database is relayed through GOPROXY, so checks stay on. It does not know your private modules: name them, so
# that they are not looked up there. Do not set GOPRIVATE or GONOPROXY for them: it would send go past this server.
go env -w GONOSUMDB=corp.example/*
{login}
# Publish a module's version; the zip is laid out as `go mod download` has it (module@version/...)
curl -fT v1.0.0.zip --netrc {url}/corp.example/lib/@v/v1.0.0.zip

# CI: the same by environment variables
export GOPROXY={url} GONOSUMDB='corp.example/*'
"""

LOGIN = """
# Sign in: go reads ~/.netrc (go sends credentials over https only; mode 0600)
{machines}
# or, with go 1.24 and later, keep them elsewhere and name a command that prints the header: go env -w GOAUTH='command'
"""


def instructions(url: str, *, signed_in: bool) -> str:
    """The text for a repository at `url`. Who is not signed in reads what anybody may, and needs no login for that."""
    login = LOGIN.format(machines=_machines(url)) if signed_in or url.startswith("https:") else ""
    return TEXT.format(url=url, login=login)


def _machines(url: str) -> str:
    """go 1.24 and later look a machine up with its port, where there is one; go before that, and curl, without."""
    parts = urlsplit(url)
    names = dict.fromkeys((parts.hostname or "", parts.netloc))
    return "\n".join(f"machine {name} login YOUR-NAME password YOUR-TOKEN" for name in names)
