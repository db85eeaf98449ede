"""Identity providers that speak OpenID Connect."""

from mainstay.identity.openid import Client, OpenId

__all__ = ["Client", "OpenId"]
