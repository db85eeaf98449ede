"""Why a request did not get there or its answer not back, in words that say what to do."""

from __future__ import annotations

import errno
import ssl

import aiohttp

from mainstay.clusters.kubernetes.errors import READS, ApiError, OutcomeUnknown, Silent, Unreachable

NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
"""Everything that aiohttp raises for a network."""

_WRONG_AUTHORITY = {18, 19, 20, 21}
"""X509_V_ERR_*: self-signed, or signed by an authority that is not ours (openssl-verify(1))."""
_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_NAME = {62, 64}
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def failure(error: Exception, *, method: str, server: str) -> ApiError:
    """The error for a request that failed: Unreachable if nothing has happened, OutcomeUnknown if a change may have."""
    if isinstance(error, NEVER_SENT):
        words, hint = _why_not_sent(error)
        return Unreachable(f"{server} cannot be reached: {words}", hint=hint)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return Silent(f"nothing came from {server} for too long")
    if method in READS:
        return Unreachable(f"the answer of {server} broke off: {_named(error)}")
    return OutcomeUnknown(f"the answer of {server} to a {method} was lost: {_named(error)}")


def _why_not_sent(error: Exception) -> tuple[str, str]:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _certificate(error.certificate_error)
        case aiohttp.ClientConnectorSSLError():
            return f"no TLS connection: {error.os_error}", "is this the port of an API server, and https?"
        case aiohttp.ClientConnectorDNSError():
            return "its name is unknown", "check the name in `server`, and the DNS of this machine"
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.ECONNREFUSED:
            return "the connection is refused", "is the API server running, and is the port right?"
        case aiohttp.ClientConnectorError() if error.os_error.errno in _NO_WAY:
            return "there is no way to it from here", "check the network and the routes of this machine"
        case aiohttp.ClientProxyConnectionError():
            return f"its proxy does not answer: {_words(error.os_error)}", "check proxy-url in the kubeconfig"
        case aiohttp.ClientConnectorError():
            return (
                f"no connection is made: {_words(error.os_error)}",
                "check the address, and the network of this machine",
            )
        case aiohttp.ConnectionTimeoutError():
            return "it does not answer", "a firewall may drop packets, or the machine is down"
        case aiohttp.InvalidURL():
            return f"it is no address: {error.url}", "check the address in `server`"
    return _named(error), ""


def _words(error: OSError) -> str:
    """What the system says. One without a number may be made of others, one for each address that was tried."""
    return error.strerror or str(error) or type(error).__name__


def _certificate(error: Exception) -> tuple[str, str]:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    if code in _WRONG_AUTHORITY:
        return (
            "its certificate is not signed by the authority of this cluster",
            "certificate-authority-data must be the CA of this cluster; was the cluster rebuilt, is there a proxy between?",
        )
    if code == _EXPIRED:
        return "its certificate has expired", "renew the serving certificate of the API server; is our clock right?"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet", "compare the clocks of the API server and of this machine"
    if code in _WRONG_NAME:
        return "its certificate is for other names", "use a name that it carries as `server`, or state tls-server-name"
    return f"its certificate is refused: {error}", ""


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
