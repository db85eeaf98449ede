"""A real OpenID provider for the tests, and somebody with a browser who signs in there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest

HERE = Path(__file__).parent / "provider"
CLIENT = "mainstay"
SECRET = "s3cret: of a client & no more"  # what must be encoded in Basic (RFC 6749, 2.3.1)
BACK = "http://127.0.0.1:1/sign-in/back"
START_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One that runs."""

    url: str
    process: subprocess.Popen[str]

    def machine_token(self) -> str:
        """A token that the provider makes for a machine, for us. Its subject is the client."""
        form = {"grant_type": "client_credentials", "scope": "api", "resource": "https://mainstay.example.com"}
        answer = httpx2.post(f"{self.url}/token", data={**form, "client_id": CLIENT, "client_secret": SECRET})
        return answer.raise_for_status().json()["access_token"]


@contextlib.contextmanager
def running(
    people: Mapping[str, list[str]], *, back: str = BACK, done: str = BACK, told: str = ""
) -> Iterator[Provider]:
    """`people`: who is in which groups. Whoever else signs in is in none. Any password is right.

    `done`: where browsers come back to that have signed out; `told`: who is told then, by session.
    """
    if not shutil.which("node") or not (HERE / "node_modules").exists():
        pytest.skip("no OpenID provider; hint: scripts/ensure-identity-provider")
    settings = {"PEOPLE": people, "CLIENT": CLIENT, "SECRET": SECRET, "BACK": back, "DONE": done, "TOLD": told}
    process = subprocess.Popen(
        ["node", str(HERE / "provider.mjs")],
        env={**os.environ, "PROVIDER": json.dumps(settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        watch = threading.Timer(START_SECONDS_MAX, process.kill)
        watch.start()
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        watch.cancel()
        assert url, "the provider did not start"
        yield Provider(url=url, process=process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def new_browser() -> httpx2.Client:
    """One that nobody has used yet."""
    return httpx2.Client(follow_redirects=False, timeout=10)


def sign_in(address: str, person: str, *, back: str = BACK, browser: httpx2.Client | None = None) -> str:
    """Follow `address` as a browser of `person` would, until it is sent `back` or there is nothing to fill in.

    The address it is sent to, or the last page. It agrees to whatever it is asked, to signing out too.
    """
    with contextlib.nullcontext(browser) if browser else new_browser() as used:
        answer = used.get(address)
        for _ in range(20):
            if answer.is_redirect:
                to = urljoin(str(answer.url), answer.headers["location"])
                if to.startswith(back):
                    return to
                answer = used.get(to)
                continue
            if "<form" not in answer.text:
                return answer.text
            answer = _filled_in(used, answer, person)
    pytest.fail(f"no end: {answer.status_code} {answer.text[:500]}")


def _filled_in(browser: httpx2.Client, page: httpx2.Response, person: str) -> httpx2.Response:
    """Send the form of a page: log in with a name, or agree."""
    form = re.search(r'<form[^>]*action="([^"]*)"', page.text)
    assert form, page.text[:500]
    fields = dict(re.findall(r'<input[^>]*name="([^"]*)"[^>]*value="([^"]*)"', page.text))
    fields |= {
        name: unescape(value) for value, name in re.findall(r'<input[^>]*value="([^"]*)"[^>]*name="([^"]*)"', page.text)
    }
    if 'name="login"' in page.text:
        fields |= {"login": person, "password": "any"}
    if 'name="logout"' in page.text:
        fields |= {"logout": "yes"}
    return browser.post(urljoin(str(page.url), unescape(form.group(1))), data=fields)
