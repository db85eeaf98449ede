"""GPUs and the bill."""

from __future__ import annotations

import click

from mainstay.cli.show import json_option, memory_of_gpu, money, print_json, print_table, say


@click.command()
@json_option
def gpus(*, as_json: bool) -> None:
    """List GPUs and slices of them by model, size and cluster, with their price."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.gpus()
    if as_json:
        print_json(found)
        return
    sick = ("UNHEALTHY",) if any(gpu.unhealthy for gpu in found) else ()
    rows = (
        (
            gpu.model,
            gpu.cluster,
            memory_of_gpu(gpu.memory_bytes),
            str(gpu.used),
            str(gpu.total),
            *(str(gpu.unhealthy or "") for _ in sick),
            f"{money(gpu.price_per_hour)}/h",
        )
        for gpu in found
    )
    columns = ("MODEL", "CLUSTER", "MEMORY", "USED", "TOTAL", *sick, "PRICE")
    print_table(columns, rows, right=("MEMORY", "USED", "TOTAL", *sick))
    if not found:
        say("no node has a GPU")


@click.command()
@click.option(
    "--by", "group_by", type=click.Choice(["workload", "project", "day"]), default="workload", show_default=True
)
@click.option("--since", metavar="TIME", help="UTC, e.g. 2026-11-01 or 2026-11-01T12:00Z. Default: 30 days ago.")
@click.option("--until", metavar="TIME", help="Default: now.")
@click.option("--tenant", default="", metavar="NAME", help="Another than yours, if you administer the platform.")
@json_option
def cost(*, group_by: str, since: str | None, until: str | None, tenant: str, as_json: bool) -> None:
    """Print the bill. Its lines add up exactly to its total; ACCRUING is what runs now and is not yet charged."""
    from mainstay.sdk.client import Client

    with Client() as client:
        bill = client.cost(group_by=group_by, since=since, until=until, tenant=tenant)
    if as_json:
        print_json(bill)
        return
    columns = (group_by.upper(), "CORE HOURS", "GIB HOURS", "GPU HOURS", "CHARGED", "ACCRUING", "TOTAL")
    rows = [
        (
            line.group,
            f"{line.cpu_core_hours:.4f}",
            f"{line.memory_gib_hours:.4f}",
            f"{line.gpu_hours:.4f}",
            *(line.charged, line.accruing, line.total),
        )
        for line in bill.lines
    ]
    rows.append(("total", "", "", "", "", "", bill.total))
    print_table(columns, rows, right=columns[1:])
    say(f"in {bill.currency}, from {bill.since:%Y-%m-%d %H:%M} to {bill.until:%Y-%m-%d %H:%M} UTC")
