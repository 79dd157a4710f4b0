"""An issuer of tokens for jobs, over TLS with a CA of its own, with the claims that three kinds of them document."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.parts.githost import certificate
from tests.parts.upstream import Upstream

AUDIENCE = "entrepot"
WELL_KNOWN = "/.well-known/openid-configuration"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ALGORITHMS = {RSA: "RS256", OTHER_RSA: "RS256", EC: "ES256"}

GITHUB = {
    "sub": "repo:corp/app:ref:refs/heads/main",
    "repository": "corp/app",
    "repository_owner": "corp",
    "repository_id": "74",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "environment": "production",
    "event_name": "push",
    "workflow_ref": "corp/app/.github/workflows/release.yml@refs/heads/main",
    "run_id": "1234567890",
    "run_attempt": "1",
    "runner_environment": "github-hosted",
    "jti": "example-id",
}
"""GitHub Actions, "OpenID Connect reference"."""
GITLAB = {
    "sub": "project_path:corp/app:ref_type:branch:ref:main",
    "namespace_path": "corp",
    "project_id": "22",
    "project_path": "corp/app",
    "groups_direct": ["corp/releasers", "corp/everybody"],
    "pipeline_id": "574",
    "job_id": "302",
    "ref": "main",
    "ref_type": "branch",
    "ref_protected": "true",
    "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
}
"""GitLab CI/CD, "OpenID Connect (OIDC) Authentication Using ID Tokens"."""
KUBERNETES = {
    "sub": "system:serviceaccount:ci:builder",
    "kubernetes.io": {
        "namespace": "ci",
        "pod": {"name": "build-7x2", "uid": "f2a9b0a5-1b1c-4b3b-8a3e-6a1d5a3f5d0e"},
        "serviceaccount": {"name": "builder", "uid": "1c4e0d5e-5c0f-4d0b-9d0f-6d7a8b9c0d1e"},
        "warnafter": 1893456000,
    },
    "jti": "7d6a4f1e",
}
"""Kubernetes, "Managing Service Accounts", whose tokens name a list of audiences."""


class Issuer(Upstream):
    """`kid` is the key that it signs by, of those that it says are its own."""

    def __init__(self, folder: Path) -> None:
        self.ca, key = certificate(folder, ["127.0.0.1"])
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.ca, key)
        super().__init__(tls=tls)
        self.routes[WELL_KNOWN] = json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        self.replace_keys(one=RSA)

    def replace_keys(self, **keys: Any) -> None:
        """From now on these are its keys, and it signs by the last."""
        self.kid, self.key = list(keys.items())[-1]
        self.routes["/keys"] = json.dumps(key_set(**keys)).encode()

    def token(self, claims: dict[str, Any], *, key: Any = None, head: dict[str, Any] | None = None, **more: Any) -> str:
        """A token that is valid for five minutes; claims that are None are left out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "iat": now, "nbf": now - 5, "exp": now + 300, **claims, **more}
        said = {name: value for name, value in said.items() if value is not None}
        key = key or self.key
        return jwt.encode(said, key, algorithm=ALGORITHMS[key], headers={"kid": self.kid, **(head or {})})

    @property
    def asked(self) -> int:
        """How often it was asked for anything."""
        return len(self.seen)


def key_set(**keys: Any) -> dict[str, Any]:
    """A JSON Web Key Set (RFC 7517) of public keys by their ids."""
    return {"keys": [_public(kid, key) for kid, key in keys.items()]}


def _public(kid: str, key: Any) -> dict[str, Any]:
    kind = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, "use": "sig", "alg": ALGORITHMS[key]}
