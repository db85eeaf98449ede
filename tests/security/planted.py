"""Security bugs to plant: each is a small change of the product, and the test of the suite that must find it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A text that stands exactly once in a file of `src/mainstay`, and what a careless hand would make of it."""

    file: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A bug, and who finds it. `says`: what that test says then, where it tries many things of which one must be meant."""

    name: str
    changes: tuple[Change, ...]
    found_by: str
    says: str = ""


def plant(name: str, *changes: tuple[str, str, str], found_by: str, says: str = "") -> Plant:
    """A bug in fewer words."""
    of_files = tuple(Change(file=file, before=before, after=after) for file, before, after in changes)
    return Plant(name=name, changes=of_files, found_by=f"tests/{found_by}", says=says)


FORGED = "unit/identity/test_tokens.py::test_no_forged_token_is_believed"
ACCESS = "unit/api/test_access.py::"
REMOVAL = "contracts/test_store_removal.py::"
VERIFIED = "audience=audience, issuer=issuer, options=options"
ALGORITHMS = '"ES512", "EdDSA"}\n)'

TENANTS = (
    plant(
        "a run is found whoever asks for it",
        (
            "store/queries.py",
            "mine = sa.select(table).where(table.c.tenant == codec.storable(tenant))\n    if projects",
            "mine = sa.select(table)\n    if projects",
        ),
        found_by="unit/api/test_routes.py::test_what_belongs_to_another_tenant_is_not_there",
    ),
    plant(
        "a member of one project sees all of them",
        (
            "store/queries.py",
            "    if projects is not None:\n        mine = mine.where(table.c.project.in_(projects))\n    text",
            "    text",
        ),
        found_by="unit/api/test_projects.py::test_what_lies_in_another_project_is_not_there",
    ),
    plant(
        "the secret of another tenant is handed out by its name",
        (
            "store/queries.py",
            "sa.select(table.c.version, table.c.sealed).where(table.c.tenant == codec.storable(tenant))",
            "sa.select(table.c.version, table.c.sealed)",
        ),
        found_by="contracts/test_store_secrets.py::test_tenants_do_not_see_each_others[sqlite]",
    ),
    plant(
        "a sealed secret opens wherever it is put",
        ("operations/sealing.py", 'return f"secret\\0{tenant}\\0{name}"', 'return "secret\\0"'),
        found_by="unit/operations/test_sealing.py::test_a_secret_opens_at_its_own_place_only",
    ),
    plant(
        "a pod gets secrets without being its owner's",
        (
            "operations/secrets.py",
            "if wanted.allocation.owner != owner:",
            "if not owner.tenant:",
        ),
        found_by="contracts/test_secrets.py::test_a_pod_of_another_owner_or_of_nobody_is_not_found",
    ),
    plant(
        "an idempotency key of one tenant gets the answer of another",
        (
            "store/commit.py",
            """    tables.idempotency.c.tenant == sa.bindparam("of_tenant"),
    tables.idempotency.c.member == sa.bindparam("of_member"),
""",
            "",
        ),
        found_by="unit/api/test_routes.py::test_keys_of_tenants_do_not_meet",
    ),
)

PERMISSIONS = (
    plant(
        "no route asks for its permission",
        ("api/app.py", "else [Depends(guard(declared.permission, of_projects=declared.of_projects))],", "else [],"),
        found_by="unit/api/test_routes.py::test_a_route_is_open_to_the_roles_with_its_permission_and_to_no_other"
        "[GET /v1/server]",
    ),
    plant(
        "a write asks for reading only",
        (
            "api/secrets.py",
            'routes.add("PUT", "/v1/secrets/{name}", needs=Permission.SECRETS',
            'routes.add("PUT", "/v1/secrets/{name}", needs=Permission.READ',
        ),
        found_by="unit/api/test_routes.py::test_every_route_that_changes_something_needs_more_than_reading",
    ),
    plant(
        "somebody gives more than they have",
        (
            "store/guards_access.py",
            "        more |= _permissions(world, member.tenant, role) - within\n    if not more:",
            "        more |= frozenset()\n    if not more:",
        ),
        found_by="contracts/test_store_access.py::test_nobody_gives_or_takes_more_than_they_have[sqlite]",
    ),
    plant(
        "the token of an agent opens the public API",
        (
            "api/auth.py",
            "if principal.cluster and not scope",
            "if not principal.name and principal.cluster and not scope",
        ),
        found_by="unit/api/test_agents.py::test_the_token_of_an_agent_opens_nothing_of_the_public_api[GET /v1/workloads]",
    ),
)

TOKENS = (
    plant(
        "the algorithm none is accepted",
        ("identity/tokens.py", ALGORITHMS, '"ES512", "EdDSA", "none"}\n)'),
        (
            "identity/tokens.py",
            "if header.algorithm in key.algorithms]",
            "if header.algorithm in {*key.algorithms, 'none'}]",
        ),
        (
            "identity/tokens.py",
            VERIFIED,
            "audience=audience, issuer=issuer, options={**options, 'verify_signature': header.algorithm != 'none'}",
        ),
        found_by=FORGED,
        says="believed: algorithm 'none' without a signature",
    ),
    plant(
        "a shared key of the issuer signs (HS256)",
        ("identity/tokens.py", ALGORITHMS, '"ES512", "EdDSA", "HS256"}\n)'),
        (
            "identity/tokens.py",
            '    ("RSA", None): frozenset(',
            '    ("oct", None): frozenset({"HS256"}),\n    ("RSA", None): frozenset(',
        ),
        found_by=FORGED,
        says="believed: HS256 with the shared key of the issuer",
    ),
    plant(
        "a token for somebody else is taken",
        ("identity/tokens.py", VERIFIED, "issuer=issuer, options={**options, 'verify_aud': False}"),
        found_by=FORGED,
        says="believed: audience 'other'",
    ),
    plant(
        "a token never ends",
        ("identity/tokens.py", "if expires + LEEWAY_SECONDS <= now:", "if expires < 0:"),
        found_by=FORGED,
        says="believed: ended an hour ago",
    ),
    plant(
        "the name of an unknown key means any key",
        (
            "identity/tokens.py",
            "return next((key for key in fitting if key.name == header.key), None)",
            "return next((key for key in fitting if key.name == header.key), fitting[0] if fitting else None)",
        ),
        found_by=FORGED,
        says="believed: RS256 by the name of another kind of key",
    ),
    plant(
        "a token is compared by its beginning",
        (
            "operations/tokens.py",
            "hmac.compare_digest(authority.digest, digest_of(token))",
            "hmac.compare_digest(authority.digest[:16], digest_of(token)[:16])",
        ),
        found_by="unit/operations/test_tokens.py",
    ),
    plant(
        "a revoked token lives on",
        ("operations/tokens.py", "    if token.revoked_at:\n", "    if token.revoked_at > now:\n"),
        found_by=ACCESS + "test_a_revoked_token_is_refused_at_the_next_request_and_says_so",
    ),
    plant(
        "a revoked token ends only what was made with it itself",
        ("store/access.py", ".where(table.c.parent == line.c.id)", ".where(table.c.parent.in_(ids))"),
        found_by="contracts/test_store_access.py"
        "::test_what_was_made_with_a_token_ends_with_it_however_many_lie_between[sqlite]",
    ),
    plant(
        "the cookie of a session is a key of the API",
        ("operations/tokens.py", "not true or authority.token.kind is not kind:", "not true:"),
        found_by=ACCESS + "test_a_cookie_is_no_key_and_a_link_opens_nothing_but_a_session",
    ),
    plant(
        "a token with limits gets one without them by way of another tenant",
        ("operations/tenants.py", "    tokens.require_no_limits(principal)\n", ""),
        found_by="unit/api/test_appointing.py::test_a_token_with_limits_makes_none_without_them_in_another_tenant",
    ),
    plant(
        "who administers the platform is made less by being appointed",
        ("operations/tenants.py", "principal.everywhere & ROLES[TENANT_ADMIN]", "principal.everywhere"),
        found_by="unit/api/test_appointing.py::test_who_administers_the_platform_is_not_made_less",
    ),
)

REMOVALS = (
    plant(
        "what was on its way comes into a tenant or project that was removed",
        ("store/apply/__init__.py", "guards_access.home_is_there(world, home(action)) or _change(", "_change("),
        found_by=REMOVAL + "test_what_was_on_its_way_when_its_project_ended_is_refused[sqlite-run]",
    ),
    plant(
        "tokens outlive their tenant",
        ("store/write.py", "tables.members, tables.tokens, tables.roles,", "tables.members, tables.roles,"),
        found_by=REMOVAL + "test_whoever_had_access_to_a_tenant_has_none_in_the_same_transaction[sqlite]",
    ),
    plant(
        "the name of a removed project is given again",
        ("store/apply/access.py", "    if key in world.projects:\n", "    if key in world.roles:\n"),
        found_by=REMOVAL + "test_a_removed_name_is_not_given_again[sqlite]",
    ),
    plant(
        "anybody reads the bill of another tenant",
        ("operations/costs.py", "        principal.require(Permission.MANAGE)\n", ""),
        found_by="unit/api/test_removal.py::test_the_bill_of_a_removed_tenant_is_for_who_administers_the_platform",
    ),
)

CAPS = (
    plant(
        "runs that wait do not count for the caps of their token",
        (
            "store/apply/caps.py",
            "    if new.at_most is not None:\n",
            "    if new.at_most is not None and key < 0:\n",
        ),
        found_by="contracts/test_store_caps.py"
        "::test_all_open_runs_of_a_token_together_hold_as_many_gpus_as_it_may_and_no_more[sqlite]",
    ),
    plant(
        "the caps of a token are looked at before the transaction only",
        ("store/apply/workloads.py", " or guards_access.token_may_take(world, new)", ""),
        (
            "operations/caps.py",
            "    try:\n        return store.commit(plan)\n",
            "    require(store, principal, specs[0], now=plan.now)\n    try:\n        return store.commit(plan)\n",
        ),
        found_by="unit/api/test_caps.py::test_what_somebody_else_submits_meanwhile_with_the_same_token_counts",
    ),
    plant(
        "a session of a token has caps of its own",
        ("operations/sessions.py", "        root=principal.root,\n", ""),
        found_by="unit/api/test_caps.py::test_a_browser_that_is_signed_in_with_a_token_shares_its_caps",
    ),
)

BROWSERS = (
    plant(
        "PKCE: the verifier is not sent",
        ("identity/openid.py", '            "code_verifier": begun.verifier,\n', ""),
        (
            "identity/openid.py",
            '            "code_challenge": _challenge(verifier),\n',
            '            "code_challenge": "",\n',
        ),
        found_by="unit/identity/test_openid.py::test_a_code_counts_only_where_its_sign_in_was_begun",
    ),
    plant(
        "the nonce of a sign-in is not compared",
        (
            "identity/openid.py",
            "if nonce is not None and not secrets.compare_digest",
            "if nonce == '' and not secrets.compare_digest",
        ),
        found_by="unit/identity/test_openid.py::test_a_code_counts_only_where_its_sign_in_was_begun",
    ),
    plant(
        "the state of a sign-in is not compared",
        ("operations/sign_in.py", 'if not state or kept.get("state") != state:', "if not state:"),
        found_by="unit/operations/test_sign_in.py",
    ),
    plant(
        "whatever the provider has signed for us signs somebody out",
        (
            "identity/tokens.py",
            "if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):",
            "if not isinstance(events, dict):",
        ),
        found_by="unit/web/test_sign_out.py::test_nothing_else_signs_anybody_out",
    ),
    plant(
        "the session that has ended at the provider is not compared",
        (
            "store/access.py",
            "table.c.provider_session == codec.storable(session), table.c.issuer == codec.storable(issuer)",
            "table.c.issuer == codec.storable(issuer)",
        ),
        found_by="unit/web/test_sign_out.py::"
        "test_the_end_of_one_session_ends_no_other_and_that_of_a_subject_all_of_theirs",
    ),
    plant(
        "the subject of a session that has ended at the provider is not compared",
        ("operations/sign_out.py", "and (not out.subject or (member and", "and (True or (member and"),
        found_by="unit/web/test_sign_out.py::test_a_session_of_somebody_else_does_not_end_whatever_its_name",
    ),
    plant(
        "a write with a cookie needs no form token",
        ("api/auth.py", "if not from_us or not hmac.compare_digest(given, form_token.encode()):", "if not from_us:"),
        found_by="unit/web/test_sign_in.py::test_a_write_with_the_cookie_needs_the_form_token_of_the_page",
    ),
    plant(
        "any page opens a WebSocket",
        ("api/auth.py", "if origin is not None and origin != url:", "if origin is not None and not origin:"),
        found_by="unit/api/test_inside.py::test_a_page_of_another_site_enters_nothing",
    ),
    plant(
        "a script reads the cookie",
        (
            "web/sign_in.py",
            '            httponly=True,\n            samesite="strict",\n        )',
            '            httponly=False,\n            samesite="strict",\n        )',
        ),
        found_by="unit/web/test_sign_in.py::test_a_code_becomes_a_cookie_that_no_script_and_no_other_site_can_use",
    ),
    plant(
        "pages may run scripts that stand in them",
        ("api/headers.py", "script-src 'self';", "script-src 'self' 'unsafe-inline';"),
        found_by="security/test_headers.py::test_an_error_of_ours_has_the_headers_too",
    ),
)

OUTSIDE = (
    plant(
        "any address outside is asked",
        ("outbound.py", "why = refusal(address, self._allowed)", 'why = ""'),
        found_by="integration/test_outbound.py::test_a_name_with_a_public_and_another_address_is_refused[10.0.0.1]",
    ),
    plant(
        "the name that was checked is looked up once more",
        ("outbound.py", "str(address), port, timeout=timeout", "host, port, timeout=timeout"),
        found_by="integration/test_outbound.py"
        "::test_the_connection_goes_to_the_address_that_was_checked_and_asks_no_second_time",
    ),
    plant(
        "a redirect of an identity provider is followed",
        ("identity/openid.py", "follow_redirects=False", "follow_redirects=True"),
        found_by="unit/identity/test_openid.py::test_a_provider_leads_nobody_elsewhere",
    ),
    plant(
        "a redirect of an API server is followed",
        ("clusters/kubernetes/transport.py", "allow_redirects=False", "allow_redirects=True"),
        found_by="unit/clusters/kubernetes/test_connection.py::test_a_redirect_is_not_followed",
    ),
    plant(
        "a kubeconfig runs a program",
        ("clusters/kubernetes/registered.py", '    "exec": _RUNS_A_PROGRAM,\n', ""),
        (
            "clusters/kubernetes/registered.py",
            '"client-key-data", "extensions"},',
            '"client-key-data", "extensions", "exec"},',
        ),
        found_by="unit/clusters/kubernetes/test_registered.py::test_what_runs_reads_redirects_or_is_unclear_is_refused",
    ),
)

FILES = (
    plant(
        "a path of a tree climbs",
        ("domain/artifact.py", 'part not in {"", ".", ".."}', 'part not in {"", "."}'),
        found_by="unit/domain/test_artifact.py::test_a_path_that_could_leave_the_tree_is_refused",
    ),
    plant(
        "a link among the output is followed",
        (
            "clusters/local/trees.py",
            "os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags",
            "os.O_RDONLY | os.O_CLOEXEC | flags",
        ),
        found_by="security/test_paths.py::test_what_became_a_link_after_it_was_found_is_not_read[one]",
    ),
    plant(
        "a folder of the output that is a link is followed",
        (
            "clusters/local/trees.py",
            "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
            "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        ),
        found_by="security/test_paths.py::test_what_became_a_link_after_it_was_found_is_not_read[linked/canary]",
    ),
)

PODS = (
    plant(
        "a pod may gain privileges",
        ("clusters/kubernetes/pods.py", '"allowPrivilegeEscalation": False', '"allowPrivilegeEscalation": True'),
        found_by="unit/clusters/kubernetes/test_pods.py::test_every_pod_passes_the_restricted_profile",
    ),
    plant(
        "a pod mounts a path of its node",
        (
            "clusters/kubernetes/pods.py",
            '        yield {"name": name, "emptyDir": {}}\n',
            '        yield {"name": name, "hostPath": {"path": f"/var/tmp/{name}"}}\n',
        ),
        found_by="unit/clusters/kubernetes/test_isolation.py::test_every_pod_that_we_render_is_in_the_safe_set",
    ),
    plant(
        "the network of a project is open to all",
        (
            "clusters/kubernetes/surroundings.py",
            '"ingress": [{"from": [same_project]}, models],',
            '"ingress": [{}, models],',
        ),
        (
            "clusters/kubernetes/surroundings.py",
            '                {"to": [same_project]},\n',
            "                {},\n",
        ),
        found_by="unit/clusters/kubernetes/test_isolation.py"
        "::test_pods_reach_those_of_their_own_project_in_all_its_shards_and_of_no_other",
    ),
    plant(
        "an image is permitted that begins like one that is",
        ("domain/permitted.py", 'name.startswith(f"{one}/")', "name.startswith(one)"),
        found_by="unit/domain/test_permitted.py::test_what_it_refuses_is_no_image_or_not_permitted",
    ),
    plant(
        "nobody asks whether an image is permitted",
        ("operations/submit.py", "    require_permitted((job.spec for job in jobs), permitted)\n", ""),
        found_by="unit/api/test_permitted.py::test_what_is_not_permitted_is_refused_with_what_is",
    ),
    plant(
        "a signature of one digest counts for any other",
        (
            "registries/signatures.py",
            'if text(signed, "critical", "image", "docker-manifest-digest") != digest:',
            'if not text(signed, "critical", "image", "docker-manifest-digest"):',
        ),
        found_by="integration/test_image_signatures.py::test_no_forged_signature_counts_and_a_good_one_beside_it_does",
    ),
    plant(
        "whoever has a key may sign",
        (
            "registries/signatures.py",
            "if not any(key.has_signed(payload, signature) for key in keys):",
            "if not signature or not keys:",
        ),
        found_by="integration/test_image_signatures.py::test_no_forged_signature_counts_and_a_good_one_beside_it_does",
    ),
    plant(
        "what an administrator has for a registry goes wherever that says that tokens are",
        (
            "registries/repository.py",
            "self._credentials.for_tokens(self._host, realm.netloc)",
            "self._credentials.of(self._host)",
        ),
        found_by="integration/test_registry_credentials.py"
        "::test_a_registry_that_sends_us_elsewhere_sends_no_credentials_there[bearer]",
    ),
    plant(
        "a registry gets a token of another by naming where that hands them out",
        ("registries/credentials.py", "if theirs and theirs == ours else {}", "if theirs else {}"),
        found_by="integration/test_registry_credentials.py"
        "::test_a_registry_gets_no_token_of_another_whose_credentials_it_does_not_have",
    ),
    plant(
        "wherever a registry sends us is asked",
        ("registries/repository.py", "if (url.scheme, url.netloc) == (self._scheme, self._host):", "if url.netloc:"),
        found_by="integration/test_registry_credentials.py"
        "::test_where_a_registry_sends_us_is_judged_as_the_address_of_a_webhook[a name-token]",
    ),
)

TRACES = (
    plant(
        "what people do is not audited",
        (
            "store/commit.py",
            "(plan.epoch is None or isinstance(action, Submit | Reseal))",
            "isinstance(action, Submit | Reseal)",
        ),
        found_by="unit/api/test_secrets.py::test_who_set_and_removed_it_is_audited",
    ),
    plant(
        "a denial leaves no trace",
        (
            "api/denials.py",
            "        if count:\n            plan = denial(",
            "        if count and not who:\n            plan = denial(",
        ),
        found_by="unit/api/test_audit.py::test_what_a_person_may_not_do_is_refused_and_on_record",
    ),
    plant(
        "a revoked token that is tried leaves no trace",
        ("api/auth.py", "if isinstance(error, Unauthenticated) and shown:", "if not shown:"),
        found_by="unit/api/test_audit.py::test_a_revoked_token_that_is_used_names_its_member_and_never_shows_itself",
    ),
    plant(
        "a row of the audit does not hang on the one before",
        ("chain/__init__.py", "said = before + _ENCODED(", "said = _ENCODED("),
        found_by="contracts/test_store_audit.py::test_what_is_done_to_any_row_is_found_by_the_chain_alone[sqlite-forge]",
    ),
    plant(
        "a log shows the secrets of its run",
        ("operations/redaction.py", "masked = masks.masked(chunk.data)", "masked = chunk.data"),
        found_by="unit/operations/test_redaction.py::test_a_reader_that_begins_within_a_value_is_shown_none_of_it",
    ),
    plant(
        "the API passes on what a cluster has let through",
        ("api/logs.py", "        if masks and masks.patterns:\n", "        if masks and not masks.patterns:\n"),
        found_by="unit/api/test_masked_logs.py",
    ),
    plant(
        "an event shows the value of a secret",
        (
            "operations/secrets.py",
            'reason = Reason(code=Code.SECRET_SET, object=name, numbers={"by": principal.name})',
            'reason = Reason(code=Code.SECRET_SET, object=name, numbers={"by": f"{principal.name}: {value.decode()}"})',
        ),
        found_by="unit/api/test_secrets.py::test_a_secret_is_set_listed_and_removed_and_its_value_is_nowhere",
    ),
)

LIMITS = (
    plant(
        "nobody is too fast",
        ("api/pace.py", "        if not self._most or not owner.tenant:\n            return\n", "        return\n"),
        found_by="unit/api/test_pace.py::test_a_tenant_that_asks_too_fast_is_told_why_and_when_to_come_back",
    ),
    plant(
        "a flood is looked up before it is refused",
        ("api/auth.py", "known = self._pacing.owner(credential)", "known = None"),
        found_by="unit/api/test_pace.py::test_what_is_refused_is_not_looked_up_until_it_may_ask_again",
    ),
    plant(
        "a body is read however large it is",
        ("api/limits.py", "if arrived > most:", "if arrived < 0:"),
        found_by="unit/api/test_routes.py::test_a_body_that_is_too_large_is_refused_announced_or_not",
    ),
    plant(
        "a Range header has a file sent once for each of its pieces",
        (
            "api/trees.py",
            "async def get_blob(call: Caller, digest: Digest,",
            "async def get_blob(call: Caller, request: Request, digest: Digest,",
        ),
        (
            "api/trees.py",
            "    return StreamingResponse(after(first, chunks), media_type=BYTES, headers=headers)\n\n\ndef _to_read",
            "    return Response(first * (request.headers.get('range', '').count(',') % 100 + 1))\n\n\ndef _to_read",
        ),
        found_by="security/test_ranges.py::test_no_range_makes_an_answer_larger_slower_or_another_one",
    ),
    plant(
        "only the newest value of a secret is masked",
        (
            "operations/redaction.py",
            "sealed |= {one.place: one for one in store.handed_secrets(allocation.key)}",
            "pass",
        ),
        found_by="unit/operations/test_redaction.py::"
        "test_the_values_of_now_and_those_that_were_handed_are_masked_and_what_cannot_be_opened_is_said",
    ),
    plant(
        "a termination message is passed on as it is",
        ("clusters/kubernetes/spoken.py", "if values else pod", "if not values else pod"),
        found_by="unit/clusters/kubernetes/test_spoken.py::"
        "test_a_termination_message_is_masked_also_where_it_is_cut_off_and_by_a_replica_that_handed_nothing",
    ),
    plant(
        "an earlier value of a secret is kept after the last pod that has it",
        ("store/write.py", "if any(deleted.rowcount for deleted in gone):", "if not gone:"),
        found_by="contracts/test_store_secrets.py::"
        "test_what_a_pod_was_handed_stays_on_record_until_the_last_such_pod_is_closed[sqlite]",
    ),
)

AREAS = (TENANTS, PERMISSIONS, TOKENS, CAPS, REMOVALS, BROWSERS, OUTSIDE, FILES, PODS, TRACES, LIMITS)
PLANTS = tuple(itertools.chain(*AREAS))
COPIES = tuple(tuple(filter(None, one_of_each)) for one_of_each in itertools.zip_longest(*AREAS))
"""Which bugs share a copy of the product, and a run of the tests that takes most of the time: one of each area, so that no test
fails for the bug of another.
"""
