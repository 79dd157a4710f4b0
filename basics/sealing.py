"""Secrets that must be given to others, such as an upstream's password: encrypted at rest under the server's secret key."""

from __future__ import annotations

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from problems import Unavailable


def seal(secret: str) -> str:
    """`secret` encrypted and authenticated (Fernet), as text."""
    return _fernet(settings.SECRET_KEY).encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str:
    """What `seal` was given. Raises Unavailable where ENTREPOT_SECRET_KEY is not the one it was sealed under."""
    try:
        return _fernet(settings.SECRET_KEY).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise Unavailable(
            "a stored secret was sealed under another ENTREPOT_SECRET_KEY; apply it again", rule="secret.key"
        ) from None


@lru_cache(maxsize=4)
def _fernet(key: str) -> Fernet:
    derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"entrepot secrets").derive(key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
