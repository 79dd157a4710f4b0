"""Signing in at a provider: OpenID Connect's authorization code flow with PKCE, from the button to a verified person.

    begin    the address at the provider to which a browser is sent, and what has to be known when it comes back
    finish   from what it brings back to the person whom the provider vouches for

Whoever brings a code is believed only if they bring the state that this browser was given (RFC 9700 section 4.7), and the code
only counts with the verifier that was made for it (RFC 7636) and a token with the nonce that was (OpenID Connect Core section
3.1.2.1). Each provider has a redirect URI of its own, so that none is asked for what another gave (RFC 9700 section 4.4).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from django.core import signing
from django.db import transaction
from django.utils import timezone
from oauthlib.oauth2 import OAuth2Error, WebApplicationClient

from accounts import people
from accounts.models import ExternalIdentity, Spent, User
from accounts.openid.issuer import Claims
from accounts.openid.provider import Provider
from accounts.people import Person
from basics import connector
from problems import Forbidden, Malformed, Unavailable, UpstreamFailed

MINUTES = timedelta(minutes=10)
"""How long somebody may take at the provider."""
LONGEST_STATE = 512
_SALT = "accounts.openid"


@dataclass(frozen=True)
class Begun:
    """What has to be known when the browser comes back: kept in that browser, signed, and good for MINUTES and for one use."""

    provider: str
    state: str
    nonce: str
    verifier: str
    next: str

    def text(self) -> str:
        return signing.dumps(asdict(self), salt=_SALT, compress=True)


def begun(text: str) -> Begun | None:
    """What `Begun.text` gave; None where that is not ours or too old."""
    try:
        return Begun(**signing.loads(text, salt=_SALT, max_age=MINUTES))
    except signing.BadSignature:
        return None


def begin(provider: Provider, redirect_uri: str, next: str) -> tuple[str, Begun]:
    """The provider's address for a browser that wants to sign in there and then go to `next`. Raises Unavailable."""
    client = WebApplicationClient(provider.client_id)
    verifier = client.create_code_verifier(64)
    begun = Begun(provider.name, secrets.token_urlsafe(32), secrets.token_urlsafe(32), verifier, next)
    url = _with_query(
        client, _endpoint(provider, "authorization_endpoint"),
        redirect_uri=redirect_uri, scope=provider.scopes, state=begun.state, nonce=begun.nonce,
        code_challenge=client.create_code_challenge(verifier, "S256"), code_challenge_method="S256",
    )  # fmt: skip
    return url, begun


def finish(provider: Provider, begun: Begun | None, redirect_uri: str, answer: Mapping[str, str]) -> User:
    """The user who signed in there, by the query `answer` with which the browser came back.

    Raises Malformed where it is no answer to what `begun` asked; Forbidden where the provider, or who runs this server, does not
    let them in; Unauthenticated where what the provider gives is not to be believed; Unavailable where it fails.
    """
    if begun is None or begun.provider != provider.name:
        raise Malformed("this sign-in was not begun in this browser, or too long ago; begin it again", rule="sign-in.state")
    if not hmac.compare_digest(begun.state.encode(), answer.get("state", "")[:LONGEST_STATE].encode()):
        raise Malformed("the provider's answer is not to the sign-in that this browser began; begin again", rule="sign-in.state")
    _check_issuer(provider, answer)
    client = WebApplicationClient(provider.client_id)
    tokens = _redeem(provider, client, begun, redirect_uri, _code(client, begun, answer))
    person, groups = _person(provider, *_claims(provider, tokens, begun.nonce))
    _check_groups(provider, person, groups)
    return _admit(begun, person)


def _check_groups(provider: Provider, person: Person, groups: frozenset[str]) -> None:
    """Who may not sign in any more may do nothing by their tokens either."""
    if not provider.required_groups or groups & provider.required_groups:
        return
    identity = ExternalIdentity.objects.filter(issuer=person.issuer, subject=person.subject).first()
    if identity is not None:
        people.suspend(identity)
    raise Forbidden(
        f"{provider.title} says that you are in none of the groups whose members may sign in here",
        rule="provider.required_groups",
    )


def _admit(begun: Begun, person: Person) -> User:
    """The state is spent in the transaction that lets them in: who shows it again comes too late."""
    with transaction.atomic():
        key = hashlib.sha256(begun.state.encode()).hexdigest()
        _, new = Spent.objects.get_or_create(key=key, defaults={"until": timezone.now() + MINUTES})
        if not new:
            raise Malformed("this sign-in was completed already; begin another", rule="sign-in.state")
        return people.admit(person)


def forget() -> int:
    """Remove states that are too old to be shown again. Returns how many."""
    count, _ = Spent.objects.filter(until__lt=timezone.now()).delete()
    return count


def _check_issuer(provider: Provider, answer: Mapping[str, str]) -> None:
    """RFC 9207 section 2.4: an answer that another provider gave is not this one's."""
    said = answer.get("iss")
    expected = said is not None or provider.issuer.metadata().get("authorization_response_iss_parameter_supported") is True
    if expected and said != provider.issuer.url:
        raise Malformed("the answer is another provider's; begin the sign-in again", rule="sign-in.issuer")


def _code(client: WebApplicationClient, begun: Begun, answer: Mapping[str, str]) -> str:
    query = urlencode({key: value for key, value in answer.items() if key in ("code", "state", "error", "error_description")})
    try:
        # oauthlib reads the query of an address, and wants that to be one of https
        return client.parse_request_uri_response(f"https://here/?{query}", state=begun.state)["code"]
    except OAuth2Error as error:
        raise Forbidden(f"{begun.provider} did not sign you in: {_told(error)}", rule="sign-in.provider") from None


def _redeem(provider: Provider, client: WebApplicationClient, begun: Begun, redirect_uri: str, code: str) -> Mapping[str, Any]:
    """The tokens that a code stands for (RFC 6749 section 4.1.3)."""
    endpoint = _endpoint(provider, "token_endpoint")
    supported = provider.issuer.metadata().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    secret = provider.client_secret()
    form = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": begun.verifier
    }  # fmt: skip
    headers = {}
    if secret and "client_secret_basic" not in supported and "client_secret_post" in supported:
        form |= {"client_id": provider.client_id, "client_secret": secret}
    elif secret:
        headers = {"Authorization": _basic(provider.client_id, secret)}
    else:
        form["client_id"] = provider.client_id
    status, said = provider.issuer.post(endpoint, form, headers)
    if status >= 500 or not isinstance(said, dict):
        raise _out(provider, f"its token endpoint answers {status} and no tokens")
    try:
        return client.parse_request_body_response(json.dumps(said))
    except OAuth2Error as error:
        refused = Unavailable if error.error in ("invalid_client", "unauthorized_client") else Forbidden
        raise refused(f"{provider.name} did not sign you in: {_told(error)}", rule="sign-in.provider") from None


def _claims(provider: Provider, tokens: Mapping[str, Any], nonce: str) -> tuple[Claims, Claims]:
    """What the ID token says (OpenID Connect Core section 3.1.3.7), and what the provider adds to it when asked (5.3)."""
    token = tokens.get("id_token")
    if not isinstance(token, str):
        raise _out(provider, "it gives no ID token")
    claims = provider.issuer.verify(token, provider.client_id)
    if not hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
        raise Forbidden(f"what {provider.name} says is not about this sign-in; begin again", rule="sign-in.nonce")
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if claims.get("azp", provider.client_id) != provider.client_id or (len(audiences) > 1 and "azp" not in claims):
        raise Forbidden(f"what {provider.name} says is for another than this server", rule="sign-in.azp")
    if provider.groups_claim in claims and provider.name_claim in claims:
        return claims, {}
    return claims, _userinfo(provider, claims["sub"], tokens["access_token"])


def _userinfo(provider: Provider, subject: str, access_token: str) -> Claims:
    if "userinfo_endpoint" not in provider.issuer.metadata():
        return {}
    status, said = provider.issuer.get(_endpoint(provider, "userinfo_endpoint"), {"Authorization": f"Bearer {access_token}"})
    if status != 200 or not isinstance(said, dict):
        raise _out(provider, f"it answers {status} when asked about a user")
    if said.get("sub") != subject:
        raise Forbidden(f"{provider.name} speaks of another user than the one who signed in", rule="sign-in.subject")
    return said


def _person(provider: Provider, signed: Claims, asked: Claims) -> tuple[Person, frozenset[str]]:
    """Whom the provider vouches for, and their groups by its own names. What is signed counts before what was asked."""
    said = {**asked, **signed}
    groups = _groups(said.get(provider.groups_claim))
    subject = signed["sub"]
    if not people.is_subject(subject):
        raise Forbidden(f"{provider.name} gives no subject by which you could be known again", rule="identity.subject")
    person = Person(
        source=provider.name,
        issuer=provider.issuer.url,
        subject=subject,
        name=_text(said.get(provider.name_claim)),
        email=people.kept_email(_text(said.get(provider.email_claim))),
        groups=frozenset(f"{provider.name}:{group}" for group in groups),
    )
    return person, groups


def _groups(said: Any) -> frozenset[str]:
    named = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    return frozenset(group for group in named if isinstance(group, str) and group and "\0" not in group)


def _text(said: Any) -> str:
    return said if isinstance(said, str) and "\0" not in said else ""


def _endpoint(provider: Provider, name: str) -> str:
    address = provider.issuer.metadata().get(name)
    if not isinstance(address, str) or urlsplit(address).fragment:
        raise _out(provider, f"it names no {name}")
    try:
        return connector.led_to(provider.issuer.url, address)
    except UpstreamFailed as failure:
        raise _out(provider, f"the {name} that it names cannot be used") from failure


def _with_query(client: WebApplicationClient, endpoint: str, **parameters: str) -> str:
    """`endpoint` with what oauthlib adds to it; it wants https, and what may do without was decided by the configuration."""
    scheme, _, rest = endpoint.partition("://")
    return f"{scheme}://" + client.prepare_request_uri(f"https://{rest}", **parameters).partition("://")[2]


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749 section 2.3.1: both are encoded as in a form before they become Basic."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _told(error: OAuth2Error) -> str:
    """The provider's own words, within bounds."""
    words = f"{error.error}: {error.description}" if error.description else str(error.error)
    return "".join(character if character.isprintable() else " " for character in words)[:200]


def _out(provider: Provider, why: str) -> Unavailable:
    return Unavailable(f"{provider.name} cannot be asked: {why}; try again later", rule="issuer.failed")
