"""Groups of commands that know the short names of other command lines."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import click

ALIASES: Mapping[str, str] = MappingProxyType({"ls": "list", "rm": "remove"})


class Group(click.Group):
    """Knows the short names."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """By name or short name."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))
