"""The administrator's own ways in: a kubeconfig on this machine, or the service account of the pod that we run in.

Unlike a registered kubeconfig (`registered.py`) this one is trusted: it may name files, and programs that log in (client-go
credential plug-ins, https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins).
Files are read again every minute, as kubelets and certificate managers replace them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User, UserExec
from lightkube.core.exceptions import ConfigError

from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.errors import Invalid, Unauthenticated
from mainstay.clusters.kubernetes.objects import Slim
from mainstay.clusters.kubernetes.sources import Reread, Source
from mainstay.ports import Clock

READ_SECONDS = 60.0
EARLY_SECONDS = 30.0
"""So long before a login expires the next one is made."""
LOGIN_SECONDS_MAX = 60.0
LOGIN_AGAIN_SECONDS = 10.0
"""The least time between two log-ins: by a clock of ours that is ahead every login has expired before it was made."""
_PLUGIN_VERSIONS = {f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1")}


def kubeconfig(path: Path, *, clock: Clock, context: str = "") -> Source:
    """A context of a kubeconfig file; its current one where `context` is empty."""
    return Reread(partial(_read, path.expanduser(), context, _Logins(clock)), clock=clock)


def in_cluster(*, clock: Clock, account: str = SERVICE_ACCOUNT) -> Source:
    """The service account of this pod; its token is replaced by the kubelet before it expires."""

    async def read() -> tuple[Credentials, float]:
        try:
            config = KubeConfig.from_service_account(account).get()
        except (ConfigError, KeyError) as error:
            msg = "there is no service account here"
            raise Invalid(msg, hint="this works inside a pod whose service account is mounted") from error
        assert config is not None  # it has a current context
        return _static(config, {}), READ_SECONDS

    return Reread(read, clock=clock)


async def _read(path: Path, context: str, logins: _Logins) -> tuple[Credentials, float]:
    try:
        document = yaml.safe_load(path.read_text())
        config = KubeConfig.from_dict(document, fname=path).get(context or None)
        assert config is not None  # a context is named, or `get` has raised
        cluster = {entry["name"]: entry["cluster"] for entry in document["clusters"]}[config.context.cluster]
        credentials = _static(config, cluster)
    except OSError as error:
        msg = f"{error.filename} cannot be read: {error.strerror}"
        raise Invalid(msg, hint="check the path of the kubeconfig and the files that it names") from error
    except yaml.YAMLError:  # its words would quote the file, and with it perhaps a token
        msg = f"{path} is not YAML"
        raise Invalid(msg, hint="check the file") from None
    except (ConfigError, msgspec.ValidationError, LookupError, AttributeError, TypeError, ValueError) as error:
        msg = f"{path} is no kubeconfig with that context: {_why(error)}"
        raise Invalid(msg, hint="kubectl config get-contexts shows what it has") from error
    if config.user is not None and config.user.exec is not None:
        login, seconds = await logins.by(config.user.exec, path, cluster)
        return _logged_in(credentials, login), seconds
    return credentials, READ_SECONDS


def _why(error: Exception) -> str:
    """In words: what Python says of a document of another shape helps nobody."""
    if isinstance(error, ConfigError | msgspec.ValidationError):
        return str(error)
    if isinstance(error, KeyError):
        return f"something is missing in it: {error.args[0]}"
    return "it needs lists named clusters, users and contexts, with a name in each entry"


def _static(config: SingleConfig, cluster: dict[str, Any]) -> Credentials:
    """What stands in the configuration and its files. `cluster` has the fields that lightkube does not know."""
    if config.cluster.insecure:
        msg = "insecure-skip-tls-verify is not supported"
        raise Invalid(msg, hint="give the authority of the cluster as certificate-authority-data")
    user = config.user or User()
    if user.auth_provider or user.username:
        msg = "auth-provider and passwords are not supported; Kubernetes has removed both"
        raise Invalid(msg, hint="use the exec plug-in of your provider, a token or a certificate")
    return Credentials(
        server=config.cluster.server.rstrip("/"),
        ca=_text(config, config.cluster.certificate_auth_data, config.cluster.certificate_auth),
        token=_text(config, None, user.token_file).strip() or user.token or "",
        certificate=_text(config, user.client_cert_data, user.client_cert),
        key=_text(config, user.client_key_data, user.client_key),
        tls_server_name=cluster.get("tls-server-name", ""),
        proxy=cluster.get("proxy-url", ""),
    )


def _text(config: SingleConfig, embedded: str | None, path: str | None) -> str:
    """Embedded content counts before a file, as for kubectl."""
    if embedded:
        try:
            return base64.b64decode(embedded).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            msg = "a field that ends in -data is not base64 of a PEM file"
            raise Invalid(msg) from error
    return Path(config.abs_file(path)).read_text() if path else ""


class _Login(Slim, frozen=True):
    """ExecCredentialStatus."""

    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: datetime | None = None


class _Answer(Slim, frozen=True):
    status: _Login = _Login()


class _Logins:
    """Those of one kubeconfig: never one soon after another, whatever clocks and servers say of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: tuple[UserExec, _Login] | None = None
        self._at = 0.0

    async def by(self, plugin: UserExec, path: Path, cluster: dict[str, Any]) -> tuple[_Login, float]:
        """The last login while it is new, else another one; and for how many seconds it is not asked for again."""
        if self._last is None or self._last[0] != plugin or self._clock.monotonic() - self._at >= LOGIN_AGAIN_SECONDS:
            self._last = plugin, await _login(plugin, path, cluster)
            self._at = self._clock.monotonic()
        login = self._last[1]
        return login, max(_good_for(login, self._clock), LOGIN_AGAIN_SECONDS)


async def _login(plugin: UserExec, path: Path, cluster: dict[str, Any]) -> _Login:
    """Run the plug-in. It may not ask: nobody sits here."""
    if plugin.apiVersion not in _PLUGIN_VERSIONS:
        msg = f"the exec plug-in speaks {plugin.apiVersion}, which is not supported"
        raise Invalid(msg, hint="update the plug-in; v1 and v1beta1 are supported")
    command = str(path.parent / plugin.command) if "/" in plugin.command else plugin.command
    spec = {"interactive": False, "cluster": {name: value for name, value in cluster.items() if name != "extensions"}}
    asked = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": spec}
    environment = {
        **os.environ,
        **{variable.name: variable.value for variable in plugin.env or ()},
        "KUBERNETES_EXEC_INFO": json.dumps(asked),
    }
    try:
        async with asyncio.timeout(LOGIN_SECONDS_MAX):
            output = await _output(command, *(plugin.args or ()), environment=environment)
        return msgspec.json.decode(output, type=_Answer).status
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        msg = f"the exec plug-in {plugin.command} gave no credentials: {error or 'it took too long'}"
        raise Unauthenticated(msg, hint=plugin.installHint or "log in again with its own command") from error


async def _output(*command: str, environment: dict[str, str]) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = complaint.decode(errors="replace").strip()[-500:]
        msg = f"{command[0]} ended with {process.returncode}: {said}"
        raise OSError(msg)
    return output


def _logged_in(credentials: Credentials, login: _Login) -> Credentials:
    return Credentials(
        server=credentials.server,
        ca=credentials.ca,
        token=login.token,
        certificate=login.client_certificate_data,
        key=login.client_key_data,
        tls_server_name=credentials.tls_server_name,
        proxy=credentials.proxy,
    )


def _good_for(login: _Login, clock: Clock) -> float:
    """Seconds. Without an end: until it is refused."""
    if login.expiration_timestamp is None:
        return math.inf
    return login.expiration_timestamp.timestamp() - clock.now() / 1_000_000 - EARLY_SECONDS
