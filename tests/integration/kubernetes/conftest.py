"""The clusters of the test bed as fixtures."""

from __future__ import annotations

from testbed.fixtures import breakable_control_plane, control_plane, hollow_nodes, namespace, proxy, real_node

__all__ = ["breakable_control_plane", "control_plane", "hollow_nodes", "namespace", "proxy", "real_node"]
