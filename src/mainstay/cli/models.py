"""Models and what serves them."""

from __future__ import annotations

import time

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import ago, duration, json_option, print_json, print_table, say

LOOK_SECONDS = 0.1
WAIT_SECONDS = 120
PATIENCE_SECONDS = 2.0


@click.command()
@click.argument("ref", metavar="RUN")
@click.option("--endpoint", help="Its name. Default: that of the run.")
@click.option("--model", help="The model's name in the registry. Default: that of the run.")
@click.option("--path", default="model", show_default=True, help="Folder of the model in the run's output.")
@click.option("--infra", default="", metavar="CLUSTER", help="The cluster where it must run. Default: any.")
@click.option("--cpus", default="1", show_default=True, metavar="CORES")
@click.option("--memory", default="1GB", show_default=True, metavar="SIZE")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is ready.")
@json_option
def deploy(
    ref: str,
    *,
    endpoint: str | None,
    model: str | None,
    path: str,
    infra: str,
    cpus: str,
    memory: str,
    detach: bool,
    as_json: bool,
) -> int:
    """Serve the model that a run made. What serves now goes on until the new version is healthy."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.deploy(ref, endpoint=endpoint, model=model, path=path, infra=infra, cpu=cpus, memory=memory)
        candidate, version, began, told = found.candidate, found.candidate_version, time.monotonic(), ""
        say(f"  endpoint {found.name}: version {version} of {found.model} starts as {candidate}")
        while not detach and found.candidate == candidate and time.monotonic() - began < WAIT_SECONDS:
            time.sleep(LOOK_SECONDS)
            found = client.endpoint(found.name)
            if time.monotonic() - began > PATIENCE_SECONDS and told != (why := client.get(candidate).reason.sentence):
                told = why
                say(f"  {why}")
        fate = client.get(candidate)
    if as_json:
        print_json(found)
    if detach:
        return Exit.OK
    if found.serving != candidate:
        late = f"not ready after {WAIT_SECONDS} s, {fate.phase}" if found.candidate == candidate else fate.phase
        say(f"✗ version {version} does not serve: {late}, {fate.reason.sentence}", colour="red")
        say(f"  next: mainstay explain {candidate} | mainstay logs {candidate} | mainstay endpoints")
        return Exit.FAILED
    say(f"✓ ready in {duration(time.monotonic() - began)}: {found.url}", colour="green")
    say(f"  next: POST {found.url}/v2/models/{found.model}/infer | mainstay endpoints")
    return Exit.OK


@click.command()
@click.option("--remove", metavar="NAME", help="Take this endpoint away and stop what serves it.")
@json_option
def endpoints(*, remove: str | None, as_json: bool) -> None:
    """List what is served and where."""
    from mainstay.sdk.client import Client

    with Client() as client:
        if remove:
            client.remove_endpoint(remove)
            if as_json:
                print_json({"removed": remove})
            say(f"endpoint {remove} is gone")
            return
        found = client.endpoints()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            item.name,
            item.state,
            item.model,
            str(item.serving_version or ""),
            str(item.candidate_version or ""),
            item.url,
            ago(item.updated_at),
        )
        for item in found
    )
    print_table(("NAME", "STATE", "MODEL", "SERVES", "NEXT", "URL", "CHANGED"), rows)
    if not found:
        say("nothing is served yet: mainstay deploy RUN")


@click.command()
@click.argument("model", default="")
@json_option
def models(model: str, *, as_json: bool) -> None:
    """List registered versions of models, newest first; of one MODEL or of all."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.models(model=model)
    if as_json:
        print_json(found)
        return
    rows = (
        (item.model, str(item.version), item.project, item.workload, item.tree[:12], ago(item.registered_at))
        for item in found
    )
    print_table(("MODEL", "VERSION", "PROJECT", "MADE BY", "FILES", "AGE"), rows)
