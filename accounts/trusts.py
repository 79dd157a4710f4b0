"""Trusts: a job elsewhere shows a token that its own system signed, and gets a short-lived one of a robot here.

A trust says whose tokens (`issuer`), for whom they must be (`audience`), of which jobs (`claims`), and which robot's token they
are exchanged for (RFC 8693). Nothing is asked of an issuer that no trust names, and who is refused is told the same whatever
the reason: the audit and the log say which claim it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts import audit, globs, scopes, sources, tokens
from accounts.models import Source, Token, User
from accounts.openid.issuer import Claims, Issuer, issuer_in
from basics.durations import duration
from problems import Malformed, Unauthenticated, Unavailable

log = logging.getLogger("entrepot.trusts")

LIFETIME = timedelta(minutes=15)
"""Of the tokens that a trust gives, where it says nothing."""
RUNS = ("run_id", "job_id", "jti")
"""Claims that tell one run of a job from another, the first that there is."""
TOLD = 200
"""Characters of a claim that are told."""

Pattern = str | int | float | bool | list[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Trust:
    """`claims`: see `misfit`. `scopes` None: the token may all that its robot may."""

    name: str
    issuer: Issuer
    audience: str
    claims: Mapping[str, Pattern]
    robot: str
    lifetime: timedelta
    scopes: tuple[str, ...] | None


@dataclass(frozen=True)
class Asked:
    """What a job asks for: the token that it shows, and, of several trusts or of what a trust gives, which."""

    token: str
    trust: str = ""
    robot: str = ""
    scopes: tuple[str, ...] = ()


def configured(epoch: int, allowed: tuple[str, ...]) -> list[Trust]:
    """All trusts. `allowed`: networks in which other hosts that an issuer names may be (see `basics.egress`)."""
    return [_trust(name, settings, allowed) for name, settings in sources.configured(Source.Kind.TRUST, epoch).items()]


def exchange(asked: Asked, trusts: Sequence[Trust]) -> tuple[Token, str]:
    """The token, and its secret, that somebody gets for the one that they show.

    It ends after the trust's lifetime, however soon the token that was shown expires: that says until when it may be shown
    (RFC 7519 section 4.1.4), and some are for the moment only.

    Raises Unauthenticated for what no trust lets in, Malformed where several do and for scopes that none gives, TooMany for a
    job that has as many as it may, and Unavailable where an issuer cannot be asked for its keys.
    """
    issuer = issuer_in(asked.token)
    near = [trust for trust in trusts if trust.issuer.url == issuer]
    if not near:
        raise _refused("its issuer is that of no trust")
    fitting = _fitting(asked, near)
    if len(fitting) > 1:
        names = ", ".join(f"{trust.name} (robot {trust.robot})" for trust, _ in fitting)
        raise Malformed(
            f"several trusts let this token in: {names}; choose one with trust=NAME or robot=NAME", rule="trust.several"
        )
    ((trust, claims),) = fitting
    wanted = _scopes(asked, trust)
    told = {"trust": trust.name, "issuer": issuer, **_who(claims)}
    with transaction.atomic():
        # Who removes or changes the trust, or its robot, waits for their rows, and then ends what was given.
        standing = Source.objects.select_for_update().filter(kind=Source.Kind.TRUST, name=trust.name).first()
        robot = User.objects.select_for_update(no_key=True).filter(username=trust.robot, robot=True, is_active=True).first()
        same = standing is not None and _trust(standing.name, standing.settings, trust.issuer.allowed) == trust
        if same and robot is not None:
            return tokens.give(robot, _job(claims), timezone.now() + trust.lifetime, wanted, trust.name, told)
    why = f"there is no active robot {trust.robot}" if same else "it has just been changed"
    raise _refused(f"{trust.name}: {why}", issuer=issuer, claims=claims)


def _trust(name: str, settings: sources.Settings, allowed: tuple[str, ...]) -> Trust:
    keys = settings.get("keys")
    issuer = Issuer(
        settings["issuer"], settings.get("ca", ""), allowed, json.dumps(keys, sort_keys=True) if keys else "",
    )  # fmt: skip
    lifetime = duration(settings["lifetime"]) if "lifetime" in settings else LIFETIME
    narrowed = tuple(settings["scopes"]) if "scopes" in settings else None
    return Trust(name, issuer, settings["audience"], settings["claims"], settings["robot"], lifetime, narrowed)


def _fitting(asked: Asked, near: Sequence[Trust]) -> list[tuple[Trust, Claims]]:
    """The trusts that let the token in, of those that were asked for."""
    found: list[tuple[Trust, Claims]] = []
    why: list[str] = []
    failure: Unavailable | None = None
    claims: Claims | None = None
    for trust in near:
        try:
            claims = trust.issuer.verify(asked.token, trust.audience)
        except Unauthenticated as problem:
            why.append(f"{trust.name}: {problem.detail}")
            continue
        except Unavailable as problem:
            failure = problem
            continue
        if (misfitting := misfit(trust.claims, claims)) is not None:
            why.append(f"{trust.name}: {misfitting}")
        elif asked.trust not in ("", trust.name) or asked.robot not in ("", trust.robot):
            why.append(f"{trust.name}: another trust or robot was asked for")
        else:
            found.append((trust, claims))
    if not found and failure is not None:
        log.warning("a token could not be exchanged: %s", failure.detail)
        raise Unavailable("the token cannot be checked now; try again", rule="trust.issuer", headers=failure.headers)
    if not found:
        raise _refused("; ".join(why), issuer=near[0].issuer.url, claims=claims)
    return found


def misfit(patterns: Mapping[str, Pattern], claims: Claims, where: str = "") -> str | None:
    """Why claims do not fit the patterns, in words; None: they do.

    A pattern is a glob, or several in a list, of which one must match; or keys with patterns, for a claim that has such keys
    itself. A claim that is a list fits where one of its values does; numbers, true and false are as JSON writes them.
    """
    for name, pattern in patterns.items():
        place, value = f"{where}{name}", claims.get(name)
        if isinstance(pattern, Mapping):
            if not isinstance(value, Mapping):
                return f"{place} is {_shown(value)}, and has no {', '.join(pattern)}"
            if (inner := misfit(pattern, value, f"{place} ")) is not None:
                return inner
        elif not _matches(pattern, value):
            return f"{place} is {_shown(value)}, and is to be {_shown(pattern)}"
    return None


def _matches(pattern: Pattern, value: Any) -> bool:
    if isinstance(pattern, list):
        return any(_matches(one, value) for one in pattern)
    glob, texts = _text(pattern), map(_text, value if isinstance(value, list) else [value])
    return glob is not None and any(text is not None and globs.matches(glob, text) for text in texts)


def _text(value: Any) -> str | None:
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return value if isinstance(value, str) else None


def _scopes(asked: Asked, trust: Trust) -> tuple[str, ...] | None:
    """Those of the new token: what was asked for, which must be within those of the trust."""
    try:
        wanted = scopes.checked(asked.scopes or None)
    except Malformed as problem:
        raise Malformed(problem.detail, rule="trust.scopes") from None
    for scope in wanted or ():
        if trust.scopes is not None and not any(scopes.within(scope, outer) for outer in trust.scopes):
            raise Malformed(f"{scope} is not within the scopes of the trust {trust.name}", rule="trust.scopes")
    return trust.scopes if wanted is None else tuple(wanted)


def _refused(why: str, *, issuer: str = "", claims: Claims | None = None) -> Unauthenticated:
    """Nothing of a token that nobody vouches for is kept: whoever floods this chooses what it says."""
    said = _who(claims) if claims else {}
    if claims:
        log.warning("a token of %s (%s) was not exchanged: %s", issuer, said["sub"], why)
    audit.notice("token.exchange", subject=issuer, refused=True, detail={"why": why[:1000], **said})
    return Unauthenticated(
        "the token is not one that is exchanged here; the audit and the log of this server say why", rule="trust"
    )


def _who(claims: Claims) -> dict[str, str]:
    """Which job it was."""
    texts = {name: _text(claims.get(name)) for name in ("sub", *RUNS)}
    return {"sub": "", **{name: _plain(text) for name, text in texts.items() if text is not None}}


def _job(claims: Claims) -> str:
    """The name of the token that a job gets."""
    who = _who(claims)
    run = next((who[name] for name in RUNS if name in who), "")[:40]
    room = tokens.LONGEST_NAME - len(run) - 1
    return f"{who['sub'][:room]} {run}".strip()


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    return _plain(json.dumps(value, ensure_ascii=False))


def _plain(text: str) -> str:
    """One line that both databases take."""
    cut = text if len(text) <= TOLD else f"{text[:TOLD]}…"
    return "".join(character if character.isprintable() else "?" for character in cut)
