"""The check of a kubeconfig that somebody registers: reduced to addresses and keys, or refused with the field that is wrong.

Nothing that it names is opened, run or asked. The chosen context alone is read, and it alone is
stored (`Credentials.to_kubeconfig`).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from mainstay.clusters.kubernetes import plain_yaml, tls
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.errors import Invalid
from mainstay.clusters.kubernetes.plain_yaml import Tree
from mainstay.domain.outbound import never_a_machine

BYTES_MAX = 256 << 10
TOKEN_CHARACTERS_MAX = 16 << 10

_RUNS_A_PROGRAM = "it would run a program on the control plane; register a token or a client certificate"
_READS_A_FILE = "it would read a file of the control plane; embed the content (the field that ends in -data, or token)"
_ALLOWED = {
    "cluster": {"server", "certificate-authority-data", "tls-server-name", "extensions", "disable-compression"},
    "user": {"token", "client-certificate-data", "client-key-data", "extensions"},
    "context": {"cluster", "user", "namespace", "extensions"},
}
_REFUSED = {
    "exec": _RUNS_A_PROGRAM,
    "auth-provider": _RUNS_A_PROGRAM,
    "certificate-authority": _READS_A_FILE,
    "client-certificate": _READS_A_FILE,
    "client-key": _READS_A_FILE,
    "tokenFile": _READS_A_FILE,
    "proxy-url": "clusters are reached directly; let the agent dial out from a closed network",
    "username": "Kubernetes has no passwords since 1.19; register a token",
    "password": "Kubernetes has no passwords since 1.19; register a token",
    "as": "register the account that is meant, without impersonation",
}
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE
)
"""The last label begins with a letter: what else looks like a name (2852039166, 0x7f.1) is an address in disguise."""
_PATH = re.compile(r"(/[A-Za-z0-9_~:-][A-Za-z0-9._~:-]*)*/?")
_VISIBLE = re.compile(r"[!-~]+")
"""ASCII without spaces and controls: nothing that could end a line of a header."""
_FALSE = {"", "false", "no", "off", "n"}


def registered(text: str | bytes, *, context: str = "") -> Credentials:
    """Of the chosen context, or of `current-context`. Raises Invalid with the field and what to do."""
    document = _mapping(_parsed(text), "document")
    name = context or _text(document.get("current-context", ""), "current-context")
    if not name:
        raise _refused(field="current-context", why="it is missing", hint="name the context that is meant")
    chosen = _entry(document, "context", name)
    cluster = _entry(document, "cluster", _text(chosen.get("cluster", ""), "context.cluster"))
    user = _entry(document, "user", _text(chosen.get("user", ""), "context.user"))
    if _text(cluster.pop("insecure-skip-tls-verify", ""), "insecure-skip-tls-verify").lower() not in _FALSE:
        raise _refused(
            field="cluster.insecure-skip-tls-verify", why="anybody in between could be the cluster", hint=_CA_HINT
        )
    for kind, entry in (("cluster", cluster), ("user", user), ("context", chosen)):
        _check_fields(kind, entry)
    return _checked(_credentials(cluster, user))


_CA_HINT = "give the authority of the cluster as certificate-authority-data"


def _parsed(text: str | bytes) -> Tree:
    if len(text) > BYTES_MAX:
        raise _refused(field="document", why=f"it has more than {BYTES_MAX >> 10} KiB")
    try:
        return plain_yaml.parsed(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError as error:
        raise _refused(field="document", why="it is not UTF-8") from error
    except plain_yaml.NotPlainError as error:
        raise _refused(field="document", why=str(error), hint="write every value out, as in JSON") from error


def _credentials(cluster: Mapping[str, Tree], user: Mapping[str, Tree]) -> Credentials:
    token = _text(user.get("token", ""), "user.token")
    certificate = _pem(user, "client-certificate-data", "CERTIFICATE")
    key = _pem(user, "client-key-data", "PRIVATE KEY")
    if bool(certificate) != bool(key):
        raise _refused(field="user", why="client-certificate-data and client-key-data belong together")
    if bool(token) == bool(certificate):
        raise _refused(field="user", why="one of a token and a client certificate is needed, not both")
    if token and not (_VISIBLE.fullmatch(token) and len(token) <= TOKEN_CHARACTERS_MAX):
        raise _refused(field="user.token", why="it is not a token")
    name = _text(cluster.get("tls-server-name", ""), "cluster.tls-server-name")
    if name and not _is_host(name):
        raise _refused(field="cluster.tls-server-name", why="it is not a host name")
    return Credentials(
        server=_server(_text(cluster.get("server", ""), "cluster.server")),
        ca=_pem(cluster, "certificate-authority-data", "CERTIFICATE"),
        token=token,
        certificate=certificate,
        key=key,
        tls_server_name=name,
    )


def _server(url: str) -> str:
    """`https://host[:port][/path]` in its shortest form."""
    field = "cluster.server"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(field=field, why="it is not a URL") from error
    if parts.scheme != "https" or not _VISIBLE.fullmatch(url):
        raise _refused(field=field, why="it must begin with https://")
    if "@" in parts.netloc:
        raise _refused(
            field=field, why="it carries a user name", hint="put the identity into the user of the kubeconfig"
        )
    if parts.query or parts.fragment or "?" in url or "#" in url or not _PATH.fullmatch(parts.path):
        raise _refused(field=field, why="only a host, a port and a plain path may stand in it")
    if not _is_host(host) or port == 0:
        raise _refused(field=field, why="its host is neither a name nor the address of a machine")
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _is_host(host: str) -> bool:
    """A name, or an address that a machine can have. Private ones are: administrators register clusters of their own networks."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return not never_a_machine(address)


def _pem(entry: Mapping[str, Tree], field: str, label: str) -> str:
    """The text of a base64 field that holds PEM blocks of one kind."""
    given = _text(entry.get(field, ""), field)
    if not given:
        return ""
    try:
        text = base64.b64decode("".join(given.split()), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise _refused(field=field, why="it is not base64 of a PEM file") from error
    begins = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", text)
    if not begins or not all(found.endswith(label) for found in begins):
        raise _refused(field=field, why=f"it holds no {label} in PEM, or something else too")
    return text


def _checked(credentials: Credentials) -> Credentials:
    """OpenSSL has the last word on certificates and keys."""
    tls.context(credentials)
    return credentials


def _check_fields(kind: str, entry: Mapping[str, Tree]) -> None:
    for field in entry:
        if field in _ALLOWED[kind]:
            continue
        why = "as" if field.startswith("as-") else field
        raise _refused(field=f"{kind}.{field[:60]}", why="it is not accepted", hint=_REFUSED.get(why, "remove it"))


def _entry(document: Mapping[str, Tree], kind: str, name: str) -> dict[str, Tree]:
    """The one entry of that name."""
    listed = document.get(f"{kind}s", [])
    if not isinstance(listed, list):
        raise _refused(field=f"{kind}s", why="it is not a list")
    entries = [_mapping(entry, f"{kind}s") for entry in listed]
    found = [entry for entry in entries if entry.get("name") == name]
    if len(found) != 1:
        there = "no entry" if not found else f"{len(found)} entries"
        raise _refused(field=f"{kind}s", why=f"there is {there} named {name[:60]!r}")
    return dict(_mapping(found[0].get(kind, ""), f"{kind}s[{name[:60]}].{kind}"))


def _mapping(tree: Tree, field: str) -> dict[str, Tree]:
    if not isinstance(tree, dict):
        raise _refused(field=field, why="it is not a mapping")
    return tree


def _text(tree: Tree, field: str) -> str:
    if not isinstance(tree, str):
        raise _refused(field=field, why="it is not text")
    return tree


def _refused(*, field: str, why: str, hint: str = "") -> Invalid:
    return Invalid(f"the kubeconfig is refused, {field}: {why}", object_=field, hint=hint)
