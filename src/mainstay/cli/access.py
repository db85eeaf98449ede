"""Who may what: `tenant`, `project`, `member`, `token` and `role`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import click

from mainstay.cli.show import ago, json_option, out, print_json, print_table, say

if TYPE_CHECKING:
    from mainstay.wire.access import TokenView


@click.group()
def tenant() -> None:
    """List, make and remove tenants, and let people back in. Nothing of one is visible to another."""


@tenant.command(name="list")
@click.option("--removed", is_flag=True, help="Those that were removed; `cost --tenant` still has their bills.")
@json_option
def list_tenants(*, removed: bool, as_json: bool) -> None:
    """List all tenants, if you administer the platform; else your own."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.tenants(removed=removed)
    if as_json:
        print_json(found)
        return
    if removed:
        rows = ((one.name, one.created_by, f"{one.removed_at:%Y-%m-%d}") for one in found)
        print_table(("TENANT", "BY", "REMOVED"), rows)
        if not found:
            say("no tenant was removed")
        return
    print_table(("TENANT", "BY"), ((one.name, one.created_by) for one in found))


@tenant.command(name="create")
@click.argument("name")
@click.option("--admin", "administrator", required=True, metavar="MEMBER", help="Who administers it, e.g. an address.")
@json_option
def create_tenant(name: str, *, administrator: str, as_json: bool) -> None:
    """Make a tenant and its first administrator. Their token is printed, once."""
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.create_tenant(name, administrator=administrator)
    if as_json:
        print_json(made)
        return
    say(f"✓ tenant {made.name} is there, and {made.administrator} administers it", colour="green")
    _show_token(made.token, f"mainstay tenant appoint {made.name} --admin {made.administrator}")


@tenant.command(name="appoint")
@click.argument("name")
@click.option("--admin", "administrator", required=True, metavar="MEMBER", help="A member of it, or somebody new.")
@json_option
def appoint_administrator(name: str, administrator: str, *, as_json: bool) -> None:
    """Make somebody administrator of a tenant that has none left. Their token is printed, once.

    For a tenant whose administrators have left or whose tokens are lost. Its other members keep what they have, and
    read in its events that you did it.
    """
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.appoint_administrator(name, administrator=administrator)
    if as_json:
        print_json(made)
        return
    say(f"✓ {made.administrator} administers the tenant {made.tenant}", colour="green")
    _show_token(made.token, f"mainstay tenant appoint {made.tenant} --admin {made.administrator}")


@tenant.command(name="remove")
@click.argument("name")
@json_option
def remove_tenant(name: str, *, as_json: bool) -> None:
    """End a tenant for good, with its members, their tokens, its roles, secrets and webhooks.

    Refused while it has open runs, endpoints, volumes, or projects beside `default`. Finished runs, files and costs stay
    on record, and so its name is not given again.
    """
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_tenant(name)
    if as_json:
        print_json({"removed": name})
    say(f"tenant {name} is removed: nobody can sign in there, and its name stays taken")
    say(f"  next: mainstay cost --tenant {name} still prints its bill")


@click.group()
def project() -> None:
    """List, make and remove projects of your tenant."""


@project.command(name="list")
@json_option
def list_projects(*, as_json: bool) -> None:
    """List the projects that you may look into."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.projects()
    if as_json:
        print_json(found)
        return
    print_table(("PROJECT", "BY"), ((one.name, one.created_by) for one in found))


@project.command(name="create")
@click.argument("name")
@json_option
def create_project(name: str, *, as_json: bool) -> None:
    """Make a project. Whoever has a role in the whole tenant has it there, too."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.create_project(name)
    if as_json:
        print_json({"created": name})
    say(f"✓ project {name} is there", colour="green")
    say(f"  next: mainstay member add NAME --role user --project {name}")


@project.command(name="remove")
@click.argument("name")
@json_option
def remove_project(name: str, *, as_json: bool) -> None:
    """End a project for good, with the roles in it, its webhooks, and tokens that are good nowhere else.

    Refused while it has open runs, endpoints or volumes. Finished runs, files and costs stay on record, and so its name
    is not given again.
    """
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_project(name)
    if as_json:
        print_json({"removed": name})
    say(f"project {name} is removed: nothing is put into it any more, and its name stays taken")


@click.group()
def member() -> None:
    """List, add and remove members of your tenant. What changes holds from their next request on."""


@member.command(name="list")
@json_option
def list_members(*, as_json: bool) -> None:
    """List everybody of the tenant, with their roles."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.members()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one.name,
            one.kind,
            one.role or "-",
            ", ".join(f"{name}: {role}" for name, role in one.projects.items()),
            ", ".join(one.groups),
        )
        for one in found
    )
    print_table(("MEMBER", "KIND", "ROLE", "IN PROJECTS", "IN GROUPS"), rows)


@member.command(name="add")
@click.argument("name")
@click.option("--role", required=True, help="See: mainstay role list.")
@click.option("--project", default="", help="Only there. Default: in all of the tenant.")
@click.option("--service", is_flag=True, help="It is a program, such as CI, and no person.")
@click.option("--subject", default="", metavar="SUB", help="Who it is to the identity provider: `sub` of its tokens.")
@click.option("--issuer", default="", metavar="URL", help="That provider. Default: the one at which people sign in.")
@json_option
def add_member(name: str, *, role: str, project: str, service: bool, subject: str, issuer: str, as_json: bool) -> None:
    """Give somebody a role, in the place of the one that they have there.

    \b
    mainstay member add carol@acme.example --role user
    mainstay member add ci --service --role user --project vision
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client

    kind: Literal["service"] | None = "service" if service else None
    with Client() as client:
        made = client.set_member(name, role, project=project, kind=kind, subject=subject, issuer=issuer)
    if as_json:
        print_json(made)
    say(f"✓ {made.name} has the role {role} {f'in project {project}' if project else 'in the tenant'}", colour="green")
    say(f"  next: mainstay token create --member {made.name} NAME makes a token for them")


@member.command(name="remove")
@click.argument("name")
@click.option("--project", default="", help="Take back the role there, and nothing else.")
@json_option
def remove_member(name: str, *, project: str, as_json: bool) -> None:
    """Take somebody out of the tenant, with all tokens, or out of one project. What they submitted runs on."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_member(name, project=project)
    if as_json:
        print_json({"removed": name, "project": project})
    say(f"{name} is removed from {f'project {project}' if project else 'the tenant'}")


@click.group()
def group() -> None:
    """Roles of groups of the identity provider. Whoever is in such a group becomes a member when they sign in."""


@group.command(name="list")
@json_option
def list_groups(*, as_json: bool) -> None:
    """List groups with their roles in your tenant."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.group_roles()
    if as_json:
        print_json(found)
        return
    print_table(("GROUP", "ROLE", "PROJECT"), ((one.group, one.role, one.project or "-") for one in found))
    if not found:
        say("no group has a role yet: mainstay group set GROUP --role ROLE")


@group.command(name="set")
@click.argument("group_name", metavar="GROUP")
@click.option("--role", required=True, help="See: mainstay role list.")
@click.option("--project", default="", help="Only there. Default: in all of the tenant.")
@json_option
def set_group(group_name: str, *, role: str, project: str, as_json: bool) -> None:
    """Give the members of a group a role, in the place of the one that it has there.

    \b
    mainstay group set ml-vision --role user --project vision
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.set_group_role(group_name, role, project=project)
    if as_json:
        print_json(made)
    where = f"in project {project}" if project else "in the tenant"
    say(f"✓ group {made.group} has the role {role} {where}", colour="green")


@group.command(name="remove")
@click.argument("group_name", metavar="GROUP")
@click.option("--project", default="", help="The role there. Default: the one in all of the tenant.")
@json_option
def remove_group(group_name: str, *, project: str, as_json: bool) -> None:
    """Take the role of a group back, from the next request of its members on."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_group_role(group_name, project=project)
    if as_json:
        print_json({"removed": group_name, "project": project})
    say(f"group {group_name} has no role {f'in project {project}' if project else 'in the tenant'} any more")


def _id_of(_: click.Context, __: click.Parameter, text: str) -> str:
    """The id in what was given: a token that somebody has found is neither sent anywhere nor printed again."""
    return text.split("_")[1] if text.startswith("mst_") and text.count("_") > 1 else text


@click.group()
def token() -> None:
    """List, make and revoke tokens: your own, or, if you administer members, those of all."""


@token.command(name="list")
@json_option
def list_tokens(*, as_json: bool) -> None:
    """List tokens. None of them is shown."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.tokens()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one.id,
            one.member,
            one.name,
            one.state,
            f"{one.expires_at:%Y-%m-%d}",
            f"{ago(one.used_at)} ago" if one.used_at else "never",
            " ".join(_of_caps(one)),
        )
        for one in found
    )
    print_table(("TOKEN", "MEMBER", "FOR", "STATE", "EXPIRES", "USED", "OF ITS CAPS"), rows)


@token.command(name="show")
@click.argument("token_id", metavar="TOKEN", callback=_id_of)
@json_option
def show_token(token_id: str, *, as_json: bool) -> None:
    """Show what a token allows at most, and what its runs have used of that. TOKEN is its id, as `token list` shows it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.token(token_id)
    if as_json:
        print_json(found)
        return
    rows = [
        ("for", f"{found.member}: {found.name}"),
        ("state", f"{found.state}, expires {found.expires_at:%Y-%m-%d %H:%M} UTC"),
        ("may", "all that its member may" if found.may is None else ", ".join(found.may)),
        ("projects", "all" if found.projects is None else ", ".join(found.projects)),
    ]
    if found.used and found.gpus is not None:
        rows.append(("GPUs", f"{found.used.gpus} of {found.gpus}: asked for by its open runs"))
    if found.used and found.spend is not None:
        spent = f"{found.used.spent} of {found.spend:g} spent, {found.used.reserved} more reserved for its open runs"
        rows.append(("spend", spent))
    for name, value in rows:
        out(f"{name:9} {value}")


def _of_caps(one: TokenView) -> Iterator[str]:
    """What is used of each cap: `gpus=4/8 spend=0.5+0.25/2`, where what is reserved follows what is spent."""
    if one.used and one.gpus is not None:
        yield f"gpus={one.used.gpus}/{one.gpus}"
    if one.used and one.spend is not None:
        yield f"spend={one.used.spent}+{one.used.reserved}/{one.spend:g}"


@token.command(name="create")
@click.argument("name")
@click.option("--member", default="", help="For whom. Default: you.")
@click.option("--expires", default="30d", show_default=True, metavar="TIME", help="For how long, 90d at most.")
@click.option("--may", metavar="ACTIONS", help="Only these, e.g. read,submit. Default: all that the member may.")
@click.option("--project", "projects", multiple=True, help="Only there; may be given several times.")
@click.option("--gpus", type=click.IntRange(min=0), help="All its open runs together ask for so many at most.")
@click.option("--spend", type=click.FloatRange(min=0), help="All its runs together cost so much at most.")
@json_option
def create_token(
    name: str,
    *,
    member: str,
    expires: str,
    may: str | None,
    projects: tuple[str, ...],
    gpus: int | None,
    spend: float | None,
    as_json: bool,
) -> None:
    """Make a token. It is printed once and kept by nobody. NAME says what it is for.

    \b
    mainstay token create laptop
    mainstay token create --member ci --may read,submit --project vision --gpus 8 nightly-training
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from pydantic import ValidationError

    from mainstay.sdk.client import Client
    from mainstay.wire.access import TokenRequest

    wish = {
        "name": name,
        "member": member,
        "expires": expires,
        "may": words(may) if may is not None else None,
        "projects": list(projects) or None,
        "gpus": gpus,
        "spend": spend,
    }
    try:
        request = TokenRequest.model_validate(wish)
    except ValidationError as error:
        raise click.UsageError("; ".join(str(fault["msg"]) for fault in error.errors())) from None
    with Client() as client:
        made = client.create_token(request)
    if as_json:
        print_json(made)
        return
    say(f"✓ token {made.id} for {made.member}, valid until {made.expires_at:%Y-%m-%d %H:%M} UTC", colour="green")
    _show_token(made.token, f"mainstay token create --member {made.member}")


@token.command(name="revoke")
@click.argument("token_id", metavar="TOKEN", callback=_id_of)
@json_option
def revoke_token(token_id: str, *, as_json: bool) -> None:
    """End a token at once, everywhere. TOKEN is its id, as `token list` shows it; of a whole one the id is taken."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.revoke_token(token_id)
    if as_json:
        print_json({"revoked": token_id})
    say(f"token {token_id} is revoked")


@click.group()
def role() -> None:
    """List roles, and make some of your tenant's own."""


@role.command(name="list")
@json_option
def list_roles(*, as_json: bool) -> None:
    """List roles with all that they may."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.roles()
    if as_json:
        print_json(found)
        return
    rows = ((one.name, "built in" if one.built_in else "own", ", ".join(one.may)) for one in found)
    print_table(("ROLE", "", "MAY"), rows)


@role.command(name="create")
@click.argument("name")
@click.option("--may", required=True, metavar="ACTIONS", help="E.g. read,submit; no more than a maintainer.")
@json_option
def create_role(name: str, *, may: str, as_json: bool) -> None:
    """Make a role, or say anew what one may: its members may so from their next request on."""
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.set_role(name, words(may))
    if as_json:
        print_json(made)
    say(f"✓ role {made.name} may {', '.join(made.may)}", colour="green")


@role.command(name="remove")
@click.argument("name")
@json_option
def remove_role(name: str, *, as_json: bool) -> None:
    """Forget a role of the tenant's own. Refused while a member has it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_role(name)
    if as_json:
        print_json({"removed": name})
    say(f"role {name} is removed")


def words(text: str) -> list[str]:
    """`read,submit` as two. Raises UsageError for one that is no action."""
    from mainstay.wire.access import Action

    found = [word.strip() for word in text.split(",") if word.strip()]
    for word in found:
        if word not in get_args(Action):
            msg = f"--may: {word!r} is no action; there are: {', '.join(get_args(Action))}"
            raise click.UsageError(msg)
    return found


def _show_token(shown: str, another: str) -> None:
    """On standard output, alone, so that it can be piped to where it is kept."""
    if not shown:
        say(f"its token was shown before; make another: {another}")
        return
    say("  this is shown once:")
    out(shown)
