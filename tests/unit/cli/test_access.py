"""The commands about who may what, against a platform behind a real socket."""

from __future__ import annotations

import json
import re

import pytest

from mainstay.cli.exits import Exit
from mainstay.domain.caps import AtMost
from mainstay.domain.plan import Submit
from tests.stores import WHY
from tests.unit.cli.test_commands import mainstay, site
from tests.unit.web.site import Site

__all__ = ["site"]
pytestmark = pytest.mark.xdist_group("command-line")
TOKEN = re.compile(r"mst_[0-9a-f]{12}_[0-9a-f]{72}\n")


def rows(*arguments: str) -> list[list[str]]:
    """Of a table, without its head."""
    listed = mainstay(*arguments)
    assert listed.returncode == 0, listed.stderr
    return [line.split() for line in listed.stdout.splitlines()[1:]]


def test_a_member_is_added_gets_a_token_alone_on_standard_output_and_is_taken_out(site: Site) -> None:
    added = mainstay("member", "add", "carol", "--role", "user")
    assert "carol has the role user in the tenant" in added.stderr
    assert ["carol", "person", "user"] in rows("member", "list")
    made = mainstay("token", "create", "--member", "carol", "laptop")
    assert TOKEN.fullmatch(made.stdout), made.stdout
    (token,) = rows("token", "list")
    assert (token[1:4], made.stdout.strip() in "".join(token)) == (["carol", "laptop", "valid"], False)
    assert mainstay("token", "revoke", token[0]).returncode == 0
    assert rows("token", "list")[0][3] == "revoked"
    assert mainstay("member", "remove", "carol").returncode == 0
    assert "carol" not in mainstay("member", "list").stdout


def test_a_role_holds_in_one_project_only_where_that_is_said(site: Site) -> None:
    assert mainstay("project", "create", "vision").returncode == 0
    assert ["vision", "root"] in rows("project", "list")
    mainstay("member", "add", "ci", "--service", "--role", "user", "--project", "vision")
    assert ["ci", "service", "-", "vision:", "user"] in rows("member", "list")
    assert "from project vision" not in mainstay("member", "remove", "ci", "--project", "nope").stderr
    assert "ci is removed from project vision" in mainstay("member", "remove", "ci", "--project", "vision").stderr


def test_a_role_of_ones_own_is_made_listed_and_forgotten(site: Site) -> None:
    assert "role operator may read, stop" in mainstay("role", "create", "operator", "--may", "stop,read").stderr
    assert ["operator", "own", "read,", "stop"] in rows("role", "list")
    assert mainstay("role", "remove", "operator").returncode == 0
    assert "operator" not in mainstay("role", "list").stdout


def test_a_word_that_is_no_action_is_refused_with_those_that_there_are(site: Site) -> None:
    for command in (("role", "create", "x", "--may", "fly"), ("token", "create", "x", "--may", "read,fly")):
        refused = mainstay(*command)
        assert refused.returncode == Exit.USAGE
        assert "'fly' is no action; there are: read, submit" in refused.stderr


def test_the_limits_of_a_token_are_those_that_were_said(site: Site) -> None:
    mainstay("member", "add", "ci", "--service", "--role", "user")
    limits = ("--may", "read,submit", "--project", "default", "--gpus", "8", "--expires", "7d")
    made = json.loads(mainstay("token", "create", "--member", "ci", *limits, "nightly", "--json").stdout)
    assert (made["may"], made["projects"], made["gpus"]) == (["read", "submit"], ["default"], 8)


def test_a_tenant_and_the_first_token_of_its_administrator_are_made_at_once(site: Site) -> None:
    made = mainstay("tenant", "create", "chemistry", "--admin", "eve")
    assert "tenant chemistry is there, and eve administers it" in made.stderr
    assert TOKEN.fullmatch(made.stdout)
    assert ["chemistry", "root"] in rows("tenant", "list")
    again = mainstay("tenant", "create", "chemistry", "--admin", "eve")
    assert again.returncode != 0
    assert "there is a tenant chemistry already" in again.stderr


def test_somebody_is_let_back_into_a_tenant_with_a_token_alone_on_standard_output(site: Site) -> None:
    first = mainstay("tenant", "create", "chemistry", "--admin", "eve").stdout
    made = mainstay("tenant", "appoint", "chemistry", "--admin", "noa")
    assert "noa administers the tenant chemistry" in made.stderr
    assert TOKEN.fullmatch(made.stdout)
    assert made.stdout != first
    shown = json.loads(mainstay("tenant", "appoint", "chemistry", "--admin", "eve", "--json").stdout)
    assert (shown["tenant"], shown["administrator"]) == ("chemistry", "eve")
    refused = mainstay("tenant", "appoint", "alchemy", "--admin", "noa")
    assert refused.returncode != 0
    assert "no such tenant: alchemy" in refused.stderr
    assert "list them with: mainstay tenant list" in refused.stderr


def test_a_project_and_a_tenant_are_removed_and_their_names_are_not_given_again(site: Site) -> None:
    mainstay("project", "create", "vision")
    assert "vision is removed: nothing is put into it" in mainstay("project", "remove", "vision").stderr
    assert "vision" not in mainstay("project", "list").stdout
    assert "project vision was removed on 20" in mainstay("project", "create", "vision").stderr
    mainstay("tenant", "create", "chemistry", "--admin", "eve")
    removed = mainstay("tenant", "remove", "chemistry")
    assert (removed.returncode, "cost --tenant chemistry" in removed.stderr) == (0, True)
    assert "chemistry" not in mainstay("tenant", "list").stdout
    assert [row[:2] for row in rows("tenant", "list", "--removed")] == [["chemistry", "root"]]
    assert mainstay("cost", "--tenant", "chemistry").returncode == 0
    assert "tenant chemistry was removed on 20" in mainstay("tenant", "create", "chemistry", "--admin", "eve").stderr


def test_what_is_used_of_the_caps_of_a_token_is_listed_and_shown(site: Site) -> None:
    assert mainstay("member", "add", "bot", "--service", "--role", "user").returncode == 0
    made = mainstay("token", "create", "--member", "bot", "--gpus", "8", "--spend", "2.5", "--json", "nightly")
    token = json.loads(made.stdout)["id"]
    use = AtMost(gpus=2, cost_micros=500_000)
    site.scene.applied(Submit(workload=site.scene.new(token=token, at_most=use), reason=WHY))
    assert next(row for row in rows("token", "list") if row[0] == token)[-2:] == ["gpus=2/8", "spend=0+0.5/2.5"]
    shown = mainstay("token", "show", token).stdout
    assert "2 of 8: asked for by its open runs" in shown
    assert "0 of 2.5 spent, 0.5 more reserved for its open runs" in shown
    assert "no such token" in mainstay("token", "show", "nope").stderr


def test_a_whole_token_that_was_found_is_revoked_and_not_printed_again(site: Site) -> None:
    assert mainstay("member", "add", "bot", "--service", "--role", "user").returncode == 0
    made = mainstay("token", "create", "--member", "bot", "--json", "leaked")
    whole = json.loads(made.stdout)["token"]
    shown = mainstay("token", "show", whole)
    revoked = mainstay("token", "revoke", whole)
    assert (shown.returncode, revoked.returncode) == (0, 0)
    assert f"token {whole.split('_')[1]} is revoked" in revoked.stderr
    assert whole not in shown.stdout + shown.stderr + revoked.stdout + revoked.stderr
    again = mainstay("token", "show", whole + "x")
    assert "revoked" in again.stdout
