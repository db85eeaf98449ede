"""Who somebody is to an identity provider. What they may do here is another matter: that is on record, by this identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a provider vouches for. Somebody is `issuer` and `subject` together: names and addresses change hands.

    Source: OpenID Connect Core 1.0, 5.7.
    """

    issuer: str
    subject: str
    name: str
    """What the provider calls them: to be shown, and proposed as the name of a member; never compared."""
    groups: tuple[str, ...] = ()
    """Sorted, each once."""
    session: str = ""
    """Their session at the provider (`sid`), which it names when it ends; empty: it does not say."""
    until: int = 0
    """When what was shown for it ends, in UTC microseconds, with what two clocks may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOut:
    """A provider says that somebody has signed out there. `subject`, `session` or both are said.

    Source: OpenID Connect Back-Channel Logout 1.0, 2.4.
    """

    issuer: str
    subject: str
    """Empty: whoever had the session."""
    session: str
    """Empty: all sessions of the subject."""
    id: str
    """`jti`: it is told once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInBegun:
    """A browser is on its way to the provider. All but `url` is kept until it comes back, where only we can read it."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBegun:
    """A terminal shows `user_code` and where to enter it. Source: RFC 8628, 3.2."""

    device_code: str
    user_code: str
    url: str
    url_complete: str
    """With the code in it; empty if the provider has none."""
    seconds: int
    """For so long."""
    interval: int
    """Seconds between two questions whether it was entered."""
