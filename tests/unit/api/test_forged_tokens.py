"""The tokens that somebody might forge, sent to the real API as a machine sends its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mainstay.domain.access import PLATFORM_ADMIN, ROLES
from mainstay.domain.identity import Identity
from mainstay.domain.plan import SetMember
from mainstay.identity import Client, OpenId
from mainstay.ports import WorkloadFilter
from tests.clock import ManualClock
from tests.forged import AUDIENCE, ISSUER, NOW, Keys, forged, good, make_keys
from tests.stores import TENANT, WHY, Scene
from tests.unit.api.conftest import Api, api_over
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of

SUBMITTED = {"job": {"name": "forged", "run": "true"}}


@pytest.fixture(scope="module")
def keys() -> Keys:
    return make_keys()


@pytest.fixture
async def api(tmp_path: Path, keys: Keys) -> AsyncIterator[Api]:
    """Of a platform on which the subject of all these tokens, and of none, may everything."""

    def issuer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/keys":
            return httpx2.Response(200, json=keys.document())
        return httpx2.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"})

    clock = ManualClock(wall_us=NOW)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(issuer))
    with services_of(tmp_path, url="http://platform.test") as plain:
        async with OpenId(ISSUER, client=Client(id=AUDIENCE), clock=clock, http=http) as identities:
            services = replace(plain, identities=identities, clock=clock, authenticate=lambda _: None)
            for subject in ("u-1", "u-2", "7", "u-1\n"):
                known = Identity(issuer=ISSUER, subject=subject, name="")
                Scene(services.store, now=NOW).applied(
                    SetMember(
                        tenant=TENANT,
                        name=f"machine-{subject.strip()}-{len(subject)}",
                        role=PLATFORM_ADMIN,
                        identity=known,
                        within=ROLES[PLATFORM_ADMIN],
                        reason=WHY,
                    )
                )
            async with api_over(services) as found:
                yield found


async def test_good_tokens_are_let_in(api: Api, keys: Keys) -> None:
    for name, token in good(keys):
        assert (await api.ask("GET", "/v1/server", token=token)).status_code == 200, name


async def test_each_forged_token_is_refused_by_the_api_and_leaves_nothing_but_its_denial(api: Api, keys: Keys) -> None:
    store = api.services.store
    before = store.audit(after=0, limit=999)
    tried = list(forged(keys))
    for name, token in tried:
        headers = {"Authorization": f"Bearer {token}"}
        for method, path, body in (("GET", "/v1/server", None), ("POST", "/v1/workloads", SUBMITTED)):
            problem = is_problem(await api.http.request(method, path, headers=headers, json=body), 401)
            assert problem["code"] == "unauthenticated", name
            assert len(token) < 40 or token[:40] not in str(problem), f"{name}: the refusal shows the token"
    assert store.workloads(WorkloadFilter(tenant=TENANT), before=0, limit=9) == ()
    assert {row.action for row in store.audit(after=before[-1].seq, limit=999)} <= {"deny"}
    assert len(tried) >= 83
    print(f"forged tokens refused by the API: {len(tried)} of {len(tried)}, twice each")
