"""The tables, as they are now. What brought them here is in `migrations/`; a test keeps both the same.

Every row that a snapshot shows carries `version`, the version of the commit that last changed it, so that a reader
fetches what changed and nothing else. Keys are drawn from one counter in `head`: unique over all tables, ascending in
the order of commits, never used twice.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

Whole: Final = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
"""64 bits. Strict tables of SQLite know the type only as INTEGER."""
Text: Final = sa.Text()
Real: Final[sa.types.TypeEngine[float]] = sa.Double().with_variant(sa.REAL(), "sqlite")

metadata = sa.MetaData()


def _table(
    name: str, *parts: sa.Column[int] | sa.Column[str] | sa.Column[float] | sa.Constraint | sa.Index
) -> sa.Table:
    """Strict, so that a value of a foreign type (a NumPy integer, bytes) is refused and not stored as a blob."""
    return sa.Table(name, metadata, *parts, sqlite_strict=True)


def _whole(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, Whole, primary_key=key, autoincrement=False, nullable=False)


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, Text, primary_key=key, nullable=False)


head = _table(
    "head",
    _whole("one", key=True),
    _text("system"),
    _whole("version"),
    _whole("event_seq"),
    _whole("audit_seq"),
    _whole("next_key"),
    _whole("nodes_at"),
    _whole("workloads_at"),
    _whole("allocations_at"),
    _whole("endpoints_at"),
    _whole("prices_at"),
    _whole("volumes_at"),
    _whole("queues_at"),
    _text("audit_hash"),
    sa.CheckConstraint("one = 1", name="head_is_one_row"),
)
"""One row. Locking it serialises the writers, so versions become visible in their order and sequences have no gap.
`<table>_at` is the version of the last commit that changed that table: a reader skips the others. `audit_hash` is that of the
newest row of the audit: who appends has the lock, so no two rows follow the same one."""

leases = _table(
    "leases",
    _text("name", key=True),
    _text("holder"),
    _whole("epoch"),
    _whole("expires_at"),
)

lines = _table(
    "lines",
    _text("cluster", key=True),
    _text("replica", key=True),
    _text("address"),
    _whole("number"),
)
"""Lines of agents, and the replica at which each ends; of one cluster, the highest number is the newest. Hints: a replica
that was killed leaves its own behind. No snapshot shows this table."""

workloads = _table(
    "workloads",
    _whole("key", key=True),
    _text("id"),
    _text("tenant"),
    _text("project"),
    _text("queue"),
    _text("name"),
    _text("submitted_by"),
    _whole("kind"),
    _whole("priority"),
    _whole("phase"),
    _whole("attempt"),
    _whole("infrastructure_failures"),
    _whole("user_failures"),
    _whole("stop_requested"),
    _whole("held"),
    _whole("preemptible"),
    _text("nominated"),
    _whole("nominated_until"),
    _text("displaced_by"),
    _whole("submitted_at"),
    _whole("not_before"),
    _whole("started_at"),
    _whole("finished_at"),
    _text("output"),
    _text("reason"),
    _whole("version"),
    _whole("nodes"),
    _whole("nodes_min"),
    _whole("nodes_max"),
    _whole("cpu_milli"),
    _whole("memory_bytes"),
    _whole("gpus"),
    _text("gpu_model"),
    _whole("choices_count"),
    _whole("max_duration_seconds"),
    _whole("usual_seconds"),
    _whole("typical_seconds"),
    _whole("spread_permille"),
    _text("typical_on"),
    _whole("stop_grace_seconds"),
    _whole("checkpoint_seconds"),
    _whole("infrastructure_max"),
    _whole("user_max"),
    _whole("backoff_seconds"),
    _whole("backoff_seconds_max"),
    _whole("retry_always"),
    _whole("attempts_max"),
    _text("token"),
    _text("cluster"),
    _text("restriction"),
    _text("topology"),
    _text("volumes"),
    _text("image"),
    _text("spec"),
    sa.Index("workloads_by_id", "id", unique=True),
    sa.Index("workloads_by_name", "tenant", "name", "key"),
    sa.Index("workloads_by_project", "tenant", "project", "key"),
    sa.Index("workloads_by_tenant", "tenant", "key"),
    sa.Index("workloads_by_version", "version"),
    sa.Index(
        "workloads_nominated",
        "key",
        sqlite_where=sa.text("nominated <> ''"),
        postgresql_where=sa.text("nominated <> ''"),
    ),
    sa.Index(
        "workloads_succeeded_at_once",
        *("tenant", "project", "name", "key"),
        sqlite_where=sa.text("phase = 10 AND attempt = 1"),
        postgresql_where=sa.text("phase = 10 AND attempt = 1"),
    ),
    sa.Index(
        "workloads_succeeded_of_shape",
        *("tenant", "queue", "cpu_milli", "memory_bytes", "gpus", "gpu_model", "nodes", "key"),
        sqlite_where=sa.text("phase = 10 AND attempt = 1"),
        postgresql_where=sa.text("phase = 10 AND attempt = 1"),
    ),
    sa.Index("workloads_open", "key", sqlite_where=sa.text("phase < 10"), postgresql_where=sa.text("phase < 10")),
    sa.Index(
        "workloads_open_of_tenant",
        *("tenant", "key"),
        sqlite_where=sa.text("phase < 10"),
        postgresql_where=sa.text("phase < 10"),
    ),
)
"""`spec` is the truth of what was submitted; the columns from `nodes` on repeat what a snapshot needs of it, so that
no JSON is parsed for one. `volumes`: the names of those that outlive it, with a space between two.
`topology`: `required rack`, `preferred block`, or empty; behind a slash over which level it is spread, and how many lie in one
domain of it at most: `required rack/host 1`, `/zone 0`."""

allocations = _table(
    "allocations",
    _whole("key", key=True),
    _whole("workload_key"),
    _text("workload"),
    _text("tenant"),
    _text("project"),
    _whole("attempt"),
    _whole("rank"),
    _whole("ranks"),
    _whole("node_key"),
    _text("node"),
    _text("cluster"),
    _whole("cpu_milli"),
    _whole("memory_bytes"),
    _whole("gpus"),
    _text("gpu_model"),
    _whole("stop"),
    _whole("stop_asked_at"),
    _whole("moves"),
    _whole("preempted"),
    _whole("yields_to"),
    _whole("surplus"),
    _whole("seen"),
    _whole("ready"),
    _text("address"),
    _whole("created_at"),
    _whole("started_at"),
    _whole("ended_at"),
    _whole("metered_until"),
    _whole("witnessed_at"),
    _whole("ending"),
    _whole("exit_code"),
    _text("detail"),
    _whole("closed"),
    _whole("version"),
    sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="allocation_of_workload"),
    sa.ForeignKeyConstraint(["node_key"], ["nodes.key"], name="allocation_on_node"),
    sa.Index("allocations_by_slot", "workload_key", "attempt", "rank", unique=True),
    sa.Index("allocations_by_version", "version"),
    sa.Index(
        "allocations_yielding",
        "node_key",
        sqlite_where=sa.text("preempted > 0 AND closed = 0"),
        postgresql_where=sa.text("preempted > 0 AND closed = 0"),
    ),
    sa.Index("allocations_open", "key", sqlite_where=sa.text("closed = 0"), postgresql_where=sa.text("closed = 0")),
)
"""`ending` is an index into `ENDS`, -1 while it has not ended; `exit_code` is -1 where there is none."""

nodes = _table(
    "nodes",
    _whole("key", key=True),
    _text("cluster"),
    _text("name"),
    _whole("ready"),
    _whole("cpu_milli"),
    _whole("memory_bytes"),
    _whole("gpus"),
    _text("gpu_model"),
    _whole("used_cpu_milli"),
    _whole("used_memory_bytes"),
    _whole("used_gpus"),
    _text("admits"),
    _text("traits"),
    _text("images"),
    _whole("barred"),
    _text("topology"),
    _text("problem"),
    _text("complaints"),
    _whole("cordoned"),
    _text("strangers"),
    _text("shapes"),
    _text("used_shapes"),
    _whole("pods_max"),
    _whole("used_pods"),
    _text("unhealthy"),
    _whole("whole_cpu_milli"),
    _whole("whole_memory_bytes"),
    _whole("whole_gpus"),
    _text("whole_shapes"),
    _text("closure"),
    _text("closure_reason"),
    _whole("closed_at"),
    _whole("closed_until"),
    _whole("drains"),
    _whole("wait_seconds"),
    _whole("version"),
    sa.Index("nodes_by_name", "cluster", "name", unique=True),
    sa.Index("nodes_by_version", "version"),
    sa.Index(
        "nodes_kept_out",
        *("cluster", "name"),
        sqlite_where=sa.text("closure <> ''"),
        postgresql_where=sa.text("closure <> ''"),
    ),
)
"""`used_*` is the sum over the allocations on the node that have not ended (`used_pods`: how many), kept by the commits that
change it. `admits`: the restrictions that the node meets, with a space between two. `traits`: the digest of
those in `node_traits`, or empty. `images`: digests of images that it has, and MiB that each takes, as
`0123456789ab=512 89abcdef0123=90`. `barred`: it is not ready, but only for its taints. `topology`: where it is, as
`block=b1 rack=r7`. `shapes`, `used_shapes`, `whole_shapes` and `unhealthy` are JSON objects of counts by name, or empty.
`whole_*` is what the node could give if nobody else used it and all of it worked. `pods_max` is -1 where no limit is known.
`closure` is `cordoned`, `quarantined` or empty; `closed_at` is when it changed last."""

node_traits = _table(
    "node_traits",
    _text("digest", key=True),
    _text("labels"),
    _text("taints"),
    _whole("spot"),
)
"""What nodes say of themselves, once for all that say the same: `labels` as `disk=ssd zone=a`, `taints` as
`dedicated=ml:NoSchedule`, with a space between two. A row of a node is read and written all the time, and these are long. Those
of no node any more go when others come."""

clusters = _table(
    "clusters",
    _text("name", key=True),
    _whole("observed_at"),
    _text("kind"),
    _text("settings"),
    _text("sealed"),
    _text("identity"),
    _text("wanted"),
    _text("wanted_reason"),
    _text("seen"),
    _text("seen_reason"),
    _whole("added_at"),
    _text("added_by"),
    _whole("version"),
)
"""`observed_at`: up to which instant of its own time a cluster has been witnessed; never goes back while it stays.
`settings` is JSON, `sealed` its encrypted credentials. Changes of this table count as changes of `nodes`: a reader
that reads those reads these few rows too."""

volumes = _table(
    "volumes",
    _text("cluster", key=True),
    _text("tenant", key=True),
    _text("project", key=True),
    _text("name", key=True),
    _whole("size_bytes"),
    _text("access"),
    _text("storage_class"),
    _whole("bound"),
    _whole("leaving"),
    _text("reach"),
    _text("place"),
    _whole("removed"),
    sa.Index("volumes_by_tenant", "tenant", "cluster", "project", "name"),
)
"""As their clusters report them; `removed` is what somebody wants. Few and small: a reader reads all of them again when
`head.volumes_at` has moved on."""

secrets = _table(
    "secrets",
    _text("tenant", key=True),
    _text("name", key=True),
    _text("sealed"),
    _whole("set_at"),
    _text("set_by"),
)
"""`sealed` is the encrypted value. No snapshot shows this table: decisions know nothing of it."""

webhooks = _table(
    "webhooks",
    _text("tenant", key=True),
    _text("name", key=True),
    _text("project"),
    _text("url"),
    _text("types"),
    _text("sealed"),
    _text("sealed_before"),
    _whole("before_until"),
    _whole("cursor"),
    _text("disabled"),
    _whole("failing_since"),
    _whole("failures"),
    _whole("made_at"),
    _text("made_by"),
)
"""`types`: what is told, with a space between two. `cursor`: the events up to this one have their deliveries. No snapshot shows
this table or the next: no decision of what runs knows of them."""

deliveries = _table(
    "deliveries",
    _text("tenant", key=True),
    _text("webhook", key=True),
    _whole("seq", key=True),
    _text("type"),
    _whole("made_at"),
    _whole("attempts"),
    _whole("next_at"),
    _text("outcome"),
    _whole("status"),
    _text("detail"),
    _whole("attempted_at"),
    sa.Index(
        "deliveries_due",
        *("tenant", "webhook", "next_at", "seq"),
        sqlite_where=sa.text("outcome = 'pending'"),
        postgresql_where=sa.text("outcome = 'pending'"),
    ),
    sa.Index(
        "deliveries_ended",
        "attempted_at",
        sqlite_where=sa.text("outcome <> 'pending'"),
        postgresql_where=sa.text("outcome <> 'pending'"),
    ),
)
"""An event, by its `seq`, on its way to a webhook. Those that have ended go after a month."""

open_work = _table("open_work", _text("tenant", key=True), _whole("workloads"))
"""How many workloads of each tenant are not final; a tenant that never had any has no row. Kept by every commit."""

queues = _table(
    "queues",
    _text("name", key=True),
    _text("parent"),
    _whole("cohort"),
    sa.Column("weight", Real, nullable=False),
    _text("quotas"),
    _text("preemption"),
    _whole("reserved_after_seconds"),
    _text("placement"),
    _text("ordering"),
    _whole("default_max_duration_seconds"),
    _text("users"),
    _whole("set_at"),
    _text("set_by"),
    _whole("version"),
)
"""Queues and cohorts. `quotas` is a JSON list of [flavor, resource, nominal, borrowing limit, lending limit]; `users`: words with
a blank between two, none for everybody."""

local_queues = _table(
    "local_queues",
    _text("cluster", key=True),
    _text("namespace", key=True),
    _text("name", key=True),
    _text("queue"),
    _whole("set_at"),
    _text("set_by"),
)
"""Names that namespaces of clusters have for queues; an empty `cluster` is any. No snapshot shows them."""

node_flavors = _table(
    "node_flavors",
    _text("name", key=True),
    _whole("place"),
    _text("requirements"),
    _whole("set_at"),
    _text("set_by"),
)
"""Flavors of nodes, by `place`. `requirements` is a JSON list of them. `head.queues_at` says when any changed."""

history_policy = _table(
    "history_policy",
    _whole("one", key=True),
    _whole("half_life_seconds"),
    sa.Column("weight", Real, nullable=False),
    _whole("entry_seconds"),
    _whole("set_at"),
    _text("set_by"),
    sa.CheckConstraint("one = 1", name="history_policy_is_one_row"),
)
"""How what queues used lately counts. No row: nobody has asked for it. `head.queues_at` says when it changed."""

queue_history = _table(
    "queue_history",
    _text("name", key=True),
    sa.Column("cpu_milli", Real, nullable=False),
    sa.Column("memory_bytes", Real, nullable=False),
    sa.Column("gpus", Real, nullable=False),
    _whole("at"),
)
"""What the allocations that have ended left of what each queue used lately, as of `at`; it fades from there. Changed in the
commit that records an end, so `head.allocations_at` says when it changed."""

tenants = _table("tenants", _text("name", key=True), _whole("created_at"), _text("created_by"), _whole("removed_at"))
"""Who is billed. Of this table snapshots know only whether there are several (`head.queues_at` says when that changed), of
those of members nothing: they are read where somebody asks. `removed_at` is 0 while it is there; the row of one that was removed
stays, so that its name is not given again.
"""

projects = _table(
    "projects",
    _text("tenant", key=True),
    _text("name", key=True),
    _whole("created_at"),
    _text("created_by"),
    _whole("removed_at"),
)
"""Beside `default`, which every tenant has. `removed_at` as of tenants."""

roles = _table(
    "roles",
    _text("tenant", key=True),
    _text("name", key=True),
    _text("permissions"),
    _whole("set_at"),
    _text("set_by"),
)
"""Those that a tenant has made. `permissions`: words with a blank between two."""

members = _table(
    "members",
    _text("tenant", key=True),
    _text("name", key=True),
    _text("kind"),
    _text("role"),
    _text("grants"),
    _text("issuer"),
    _text("subject"),
    _text("groups"),
    _whole("added_at"),
    _text("added_by"),
    sa.Index("members_by_identity", "subject", "issuer"),
)
"""`role`: in all of the tenant, empty for none; `grants`: JSON, project -> role; `groups`: JSON. `issuer` and `subject`: who it
is to an identity provider, empty for nobody."""

group_roles = _table(
    "group_roles",
    _text("tenant", key=True),
    _text("group_name", key=True),
    _text("project", key=True),
    _text("role"),
    _whole("set_at"),
    _text("set_by"),
    sa.Index("group_roles_by_group", "group_name"),
)
"""What groups of the identity provider may; `project` empty: in all of the tenant."""

tokens = _table(
    "tokens",
    _text("id", key=True),
    _text("tenant"),
    _text("member"),
    _text("name"),
    _text("kind"),
    _text("parent"),
    _text("root"),
    _text("issuer"),
    _text("provider_session"),
    _text("digest"),
    _text("caps"),
    _whole("spent_micros"),
    _whole("created_at"),
    _text("created_by"),
    _whole("expires_at"),
    _whole("revoked_at"),
    _whole("used_at"),
    sa.Index("tokens_of_member", "tenant", "member"),
    sa.Index("tokens_by_parent", "parent"),
    sa.Index("tokens_by_provider_session", "provider_session"),
)
"""`digest`: SHA-256 of the whole token, in hex. `parent`: the token that it ends with, empty for none. `root`: the token whose
caps it shares, empty where it has its own. `issuer`, `provider_session`: the identity provider, and its session, of a sign-in
there; empty for none. `caps`: JSON. `spent_micros`: what its runs have cost, if it has caps. Times of 0: not yet."""

cap_uses = _table(
    "cap_uses",
    _whole("workload_key", key=True),
    _text("token"),
    _whole("gpus"),
    _whole("cost_micros"),
    sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="cap_use_of_workload"),
    sa.Index("cap_uses_by_token", "token"),
)
"""What each run of a token with caps may hold, and may cost yet. A row goes once its run is over and all its usage is recorded,
so that there are no more than open runs."""

priority_classes = _table(
    "priority_classes",
    _text("name", key=True),
    _whole("priority"),
    _whole("preemptible"),
    _whole("set_at"),
    _text("set_by"),
)
"""Names for priorities. No snapshot shows this table: a workload has the number from its submission on."""

endpoints = _table(
    "endpoints",
    _text("tenant", key=True),
    _text("name", key=True),
    _text("project"),
    _text("model"),
    _whole("serving_version"),
    _text("serving"),
    _whole("serving_key"),
    _whole("candidate_version"),
    _text("candidate"),
    _whole("candidate_key"),
    _text("address"),
    _whole("removed"),
    _whole("updated_at"),
    _whole("version"),
)

models = _table(
    "models",
    _text("tenant", key=True),
    _text("model", key=True),
    _whole("number", key=True),
    _text("project"),
    _text("tree"),
    _text("workload"),
    _whole("registered_at"),
)

usage = _table(
    "usage",
    _whole("allocation_key", key=True),
    _whole("start_at", key=True),
    _whole("end_at"),
    _text("tenant"),
    _text("project"),
    _text("workload"),
    _whole("cpu_milli"),
    _whole("memory_bytes"),
    _whole("gpus"),
    _text("gpu_model"),
    sa.ForeignKeyConstraint(["allocation_key"], ["allocations.key"], name="usage_of_allocation"),
    sa.Index("usage_by_tenant", "tenant", "start_at"),
)

charges = _table(
    "charges",
    _whole("allocation_key", key=True),
    _whole("usage_start_at", key=True),
    _text("sku", key=True),
    _whole("start_at", key=True),
    _whole("end_at"),
    _whole("quantity"),
    _whole("unit_price_micros"),
    _whole("cost_micros"),
    _text("currency"),
    sa.ForeignKeyConstraint(
        ["allocation_key", "usage_start_at"], ["usage.allocation_key", "usage.start_at"], name="charge_of_usage"
    ),
)
"""A usage record has several charges of one SKU where its price changed in between."""

prices = _table(
    "prices",
    _text("sku", key=True),
    _whole("effective_from", key=True),
    _whole("per_hour_micros"),
    _text("currency"),
)

events = _table(
    "events",
    _whole("seq", key=True),
    _whole("at"),
    _text("actor"),
    _text("kind"),
    _text("object"),
    _text("tenant"),
    _text("workload"),
    _text("reason"),
    _whole("phase_before"),
    _whole("phase_after"),
    sa.Index("events_by_workload", "workload", "seq"),
    sa.Index("events_by_tenant", "tenant", "seq"),
    sa.Index(
        "events_by_object",
        *("object", "seq"),
        sqlite_where=sa.text("workload = ''"),
        postgresql_where=sa.text("workload = ''"),
    ),
)
"""Append-only. A phase of -1 is none."""

audit = _table(
    "audit",
    _whole("seq", key=True),
    _whole("at"),
    _text("actor"),
    _text("tenant"),
    _text("action"),
    _text("object"),
    _text("detail"),
    _text("salt"),
    _text("payload"),
    _text("hash"),
)
"""Append-only, and chained (`mainstay.chain`). Only a redaction changes a row: it empties `detail` and `salt`."""

idempotency = _table(
    "idempotency",
    _text("tenant", key=True),
    _text("member", key=True),
    _text("route", key=True),
    _text("key", key=True),
    _text("body_hash"),
    _text("reply"),
    _whole("at"),
    sa.Index("idempotency_by_time", "at"),
)
