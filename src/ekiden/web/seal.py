"""Tokens that only this installation can make: the login, and the one in every form.

Both are keyed with EKIDEN_API_KEY, so they hold across restarts and on every process of an
installation, and a new key ends them all. Without a key there is no login; then the form's token
only has to equal what the visitor's own cookie gives (a double submit), which another site can
neither read nor set.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from ekiden.api.sse import Login

LOGIN_SECONDS = 12 * 3600  # a working day


class Seal:
    """Makes and checks tokens. ``key`` is EKIDEN_API_KEY, or empty."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    @property
    def wants_login(self) -> bool:
        """Whether the pages are behind a login."""
        return bool(self._key)

    def is_key(self, given: str) -> bool:
        """Whether this is the key; takes as long whatever is given."""
        return self.wants_login and hmac.compare_digest(
            sha256(given.encode("utf-8", "surrogatepass")).digest(), sha256(self._key).digest()
        )

    def login(self, now: float) -> str:
        """Return a login that ends ``LOGIN_SECONDS`` after ``now`` (seconds since 1970)."""
        what = f"{int(now) + LOGIN_SECONDS}.{secrets.token_hex(8)}"
        return f"{what}.{self._sign('login', what)}"

    def login_of(self, token: str, now: float) -> Login | None:
        """Return the login that a token stands for; None if it is not ours, or has ended."""
        ends, _, rest = token.partition(".")
        nonce, _, signature = rest.partition(".")
        if not (ends.isdecimal() and len(ends) < 16 and nonce and self.wants_login):
            return None
        right = hmac.compare_digest(
            signature.encode("utf-8", "replace"), self._sign("login", f"{ends}.{nonce}").encode()
        )
        return Login(name=nonce, ends=float(ends)) if right and int(ends) > now else None

    def form_token(self, visitor: str) -> str:
        """Return what a form of this visitor must carry."""
        return self._sign("form", visitor)

    def is_form_token(self, token: str, visitor: str) -> bool:
        """Whether a form was made for this visitor."""
        return bool(visitor) and hmac.compare_digest(
            token.encode("utf-8", "replace"), self.form_token(visitor).encode()
        )

    def _sign(self, purpose: str, what: str) -> str:
        return hmac.new(self._key, f"{purpose}:{what}".encode(), sha256).hexdigest()


def new_visitor() -> str:
    """Return the value of a visitor's cookie: random, and says nothing of them."""
    return secrets.token_hex(16)
