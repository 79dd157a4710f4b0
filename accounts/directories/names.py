"""Distinguished names, which are the same however they are spelled (RFC 4514, RFC 4518), and what groups are called here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from accounts.epoch import Cache
from accounts.models import ExternalName


@lru_cache(maxsize=65536)
def folded(dn: str) -> str:
    """One spelling for all of a name: lower case, no spaces around commas. Empty for what is no distinguished name."""
    import ldap
    import ldap.dn

    try:
        parts = ldap.dn.str2dn(dn)
    except ldap.DECODING_ERROR:
        return ""
    plain = [
        sorted((kind.lower(), " ".join((value or "").split()).lower(), flags) for kind, value, flags in part) for part in parts
    ]
    return ldap.dn.dn2str(plain)


def external(directory: str, groups: Iterable[str], epoch: int) -> frozenset[str]:
    """Groups of a directory, given as their distinguished names, as `groups: external:` of the configuration spells them."""
    spelled = _spelled(directory, epoch)
    return frozenset(name for dn in groups for name in spelled.get(folded(dn)) or [f"{directory}:{folded(dn)}"])


def _spelled(directory: str, epoch: int) -> Mapping[str, list[str]]:
    """The spellings of the configuration by the one of `folded`."""
    known = _known.get(epoch, directory)
    if known is None:
        known = {}
        for name in (
            ExternalName.objects.filter(name__startswith=f"{directory}:")
            .order_by("name")
            .values_list("name", flat=True)
            .distinct()
        ):
            known.setdefault(folded(name.removeprefix(f"{directory}:")), []).append(name)
        known.pop("", None)
        _known.put(epoch, directory, known)
    return known


_known: Cache[dict[str, list[str]]] = Cache(100)
