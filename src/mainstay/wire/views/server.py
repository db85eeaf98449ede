"""Who answers, and where to sign in."""

from __future__ import annotations

from mainstay.wire.views.base import View


class ServerView(View):
    """Who answers, and as whom you are known."""

    version: str
    system: str
    principal: str
    tenant: str
    role: str
    clusters: list[str]


class SignInView(View):
    """Where to send a browser. The code is behind the `#`, which browsers keep to themselves; it works once."""

    url: str
