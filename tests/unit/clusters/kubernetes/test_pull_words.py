"""Why an image is not pulled: which one, why and what to do, in one clause, and behind it all that was said."""

from __future__ import annotations

import pytest

from mainstay.clusters.kubernetes.kubelet_words import of_image
from mainstay.clusters.kubernetes.objects import Event
from mainstay.clusters.kubernetes.waiting import words
from mainstay.domain.allocation import Seen
from mainstay.domain.reason import BRIEF_CHARACTERS, Code, Reason

UNPACK = 'failed to pull and unpack image "{0}": failed to resolve reference "{0}": '
PYTHON = UNPACK.format("docker.io/library/python:nosuch")
TEAM = UNPACK.format("registry.example.com:5000/team/model:1")
HEAD = 'failed to do request: Head "https://registry.example.com:5000/v2/team/model/manifests/1": '

SAID = {
    f"{PYTHON}docker.io/library/python:nosuch: not found": "image python:nosuch cannot be pulled: not found: its registry has no",
    f"{TEAM}pull access denied, repository does not exist or may require authorization: server message: insufficient_scope:"
    " authorization failed": "image registry.example.com:5000/team/model:1 cannot be pulled: not allowed, or there is no such",
    f"{TEAM}unexpected status from HEAD request to https://registry.example.com: 401 Unauthorized": "not allowed; check its name",
    f"{TEAM}{HEAD}dial tcp: lookup registry.example.com on 10.96.0.10:53: no such host": "is not reachable: no such host; check",
    f"{TEAM}{HEAD}dial tcp 10.0.0.9:5000: connect: connection refused": "its registry is not reachable: connection refused; can",
    f"{TEAM}{HEAD}dial tcp 10.0.0.9:5000: i/o timeout": "its registry is not reachable: it does not answer in time; can its node",
    f"{TEAM}{HEAD}tls: failed to verify certificate: x509: certificate signed by unknown authority": "registry is not trusted",
    f"{PYTHON}429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit": "no more pulls",
    f"{PYTHON}no match for platform in manifest: not found": "it has no build for the processors of its node",
    'Failed to apply default image tag "MY IMAGE": couldn\'t parse image name "MY IMAGE": invalid reference format': (
        "image MY IMAGE cannot be pulled: that is no name of an image"
    ),
    'Container image "model:1" is not present with pull policy of Never': "image model:1 cannot be pulled: it is not on its node",
    "initializing source docker://python:nosuch: reading manifest nosuch in docker.io/library/python: manifest unknown": (
        "image python:nosuch cannot be pulled: not found"
    ),
    "the moon is in the wrong house: wait for spring": "the image cannot be pulled: wait for spring",
}


@pytest.mark.parametrize(("said", "told"), SAID.items())
def test_the_first_clause_says_which_image_and_what_failed_and_the_rest_is_kept(said: str, told: str) -> None:
    reason = Reason(code=Code.POD_STARTING, numbers={"detail": of_image(said)})
    assert told in reason.brief
    assert said not in reason.brief
    assert len(reason.brief) <= BRIEF_CHARACTERS
    assert reason.sentence.endswith(f"; in full: {said}")


def test_it_is_told_the_same_while_the_node_tries_and_while_it_waits_before_it_tries_again() -> None:
    cause = f"{PYTHON}docker.io/library/python:nosuch: not found"
    told = of_image(cause)
    assert of_image(f"rpc error: code = NotFound desc = {cause}") == told
    assert of_image(f'Back-off pulling image "python:nosuch": ErrImagePull: {cause}') == told
    assert (
        of_image(f'Back-off pulling image "python:nosuch": ErrImagePull: rpc error: code = NotFound desc = {cause}')
        == told
    )


@pytest.mark.parametrize("said", ['Back-off pulling image "python:nosuch"', ""])
def test_a_node_that_gives_no_cause_is_not_given_one(said: str) -> None:
    assert of_image(said).endswith("cannot be pulled: its node has failed to, and tries it again")
    assert ("python:nosuch" in of_image(said)) is bool(said)


def test_an_event_says_the_same() -> None:
    cause = f"{PYTHON}docker.io/library/python:nosuch: not found"
    failed = Event(type="Warning", reason="Failed", message=f'Failed to pull image "python:nosuch": {cause}')
    found = words([failed])
    assert found is not None
    assert (found.seen, found.detail) == (Seen.PULLING, of_image(cause))
