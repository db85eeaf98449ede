"""A route that does not say what it needs cannot be declared."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.api.routes import Routes


@pytest.mark.parametrize("needs", [{}, {"needs": ""}, {"needs": "read"}, {"needs": False}])
def test_a_route_needs_a_permission_or_says_that_it_is_public(needs: dict[str, Any]):
    routes = Routes("test")
    with pytest.raises(TypeError):
        routes.add("GET", "/v1/anything", **needs)
    with pytest.raises(TypeError):
        routes.socket("/v1/anything", speaks="none")  # type: ignore[call-arg]
    assert (routes.declared, routes.sockets) == ([], [])
