"""The audit of the platform."""

from __future__ import annotations

import click

from mainstay.cli.show import json_option, print_json, print_table


@click.command()
@click.option("-n", "--most", type=click.IntRange(1), default=100, show_default=True, help="The last so many.")
@json_option
def audit(*, most: int, as_json: bool) -> None:
    """Print who changed what, of all tenants, the newest last. For administrators."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.audit(most=most)[::-1]
    if as_json:
        print_json(found)
        return
    rows = (
        (str(row.seq), f"{row.at:%Y-%m-%d %H:%M:%S}", row.actor, row.tenant, row.action, row.object, row.detail)
        for row in found
    )
    print_table(("SEQ", "AT (UTC)", "WHO", "TENANT", "ACTION", "WHAT", "DETAIL"), rows)
