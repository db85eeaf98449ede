-- The schema 0001 on SQLite, as it was released. Never edited.

CREATE TABLE alembic_version (
  version_num VARCHAR(32) NOT NULL,
  CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE head (
  one INTEGER NOT NULL,
  system TEXT NOT NULL,
  version INTEGER NOT NULL,
  event_seq INTEGER NOT NULL,
  audit_seq INTEGER NOT NULL,
  next_key INTEGER NOT NULL,
  nodes_at INTEGER NOT NULL,
  workloads_at INTEGER NOT NULL,
  allocations_at INTEGER NOT NULL,
  endpoints_at INTEGER NOT NULL,
  prices_at INTEGER NOT NULL,
  PRIMARY KEY (one),
  CONSTRAINT head_is_one_row CHECK (one = 1)
) STRICT;

CREATE TABLE leases (
  name TEXT NOT NULL,
  holder TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (name)
) STRICT;

CREATE TABLE nodes (
  "key" INTEGER NOT NULL,
  cluster TEXT NOT NULL,
  name TEXT NOT NULL,
  ready INTEGER NOT NULL,
  cpu_milli INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  gpus INTEGER NOT NULL,
  gpu_model TEXT NOT NULL,
  used_cpu_milli INTEGER NOT NULL,
  used_memory_bytes INTEGER NOT NULL,
  used_gpus INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY ("key")
) STRICT;

CREATE INDEX nodes_by_version ON nodes (version);

CREATE UNIQUE INDEX nodes_by_name ON nodes (cluster, name);

CREATE TABLE workloads (
  "key" INTEGER NOT NULL,
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  queue TEXT NOT NULL,
  name TEXT NOT NULL,
  submitted_by TEXT NOT NULL,
  kind INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  phase INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  infrastructure_failures INTEGER NOT NULL,
  user_failures INTEGER NOT NULL,
  stop_requested INTEGER NOT NULL,
  submitted_at INTEGER NOT NULL,
  not_before INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  output TEXT NOT NULL,
  reason TEXT NOT NULL,
  version INTEGER NOT NULL,
  nodes INTEGER NOT NULL,
  cpu_milli INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  gpus INTEGER NOT NULL,
  gpu_model TEXT NOT NULL,
  choices_count INTEGER NOT NULL,
  max_duration_seconds INTEGER NOT NULL,
  stop_grace_seconds INTEGER NOT NULL,
  infrastructure_max INTEGER NOT NULL,
  user_max INTEGER NOT NULL,
  backoff_seconds INTEGER NOT NULL,
  backoff_seconds_max INTEGER NOT NULL,
  retry_always INTEGER NOT NULL,
  spec TEXT NOT NULL,
  PRIMARY KEY ("key")
) STRICT;

CREATE INDEX workloads_by_project ON workloads (tenant, project, "key");

CREATE INDEX workloads_by_version ON workloads (version);

CREATE INDEX workloads_open ON workloads ("key") WHERE phase < 10;

CREATE INDEX workloads_by_tenant ON workloads (tenant, "key");

CREATE UNIQUE INDEX workloads_by_id ON workloads (id);

CREATE INDEX workloads_by_name ON workloads (tenant, name, "key");

CREATE TABLE allocations (
  "key" INTEGER NOT NULL,
  workload_key INTEGER NOT NULL,
  workload TEXT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  node_key INTEGER NOT NULL,
  node TEXT NOT NULL,
  cluster TEXT NOT NULL,
  cpu_milli INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  gpus INTEGER NOT NULL,
  gpu_model TEXT NOT NULL,
  stop INTEGER NOT NULL,
  seen INTEGER NOT NULL,
  ready INTEGER NOT NULL,
  address TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  metered_until INTEGER NOT NULL,
  ending INTEGER NOT NULL,
  exit_code INTEGER NOT NULL,
  detail TEXT NOT NULL,
  closed INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY ("key"),
  CONSTRAINT allocation_of_workload FOREIGN KEY(workload_key) REFERENCES workloads ("key"),
  CONSTRAINT allocation_on_node FOREIGN KEY(node_key) REFERENCES nodes ("key")
) STRICT;

CREATE UNIQUE INDEX allocations_by_slot ON allocations (workload_key, attempt, rank);

CREATE INDEX allocations_by_version ON allocations (version);

CREATE INDEX allocations_open ON allocations ("key") WHERE closed = 0;

CREATE TABLE endpoints (
  name TEXT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  serving_version INTEGER NOT NULL,
  serving TEXT NOT NULL,
  serving_key INTEGER NOT NULL,
  candidate_version INTEGER NOT NULL,
  candidate TEXT NOT NULL,
  candidate_key INTEGER NOT NULL,
  address TEXT NOT NULL,
  removed INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (name)
) STRICT;

CREATE TABLE models (
  tenant TEXT NOT NULL,
  model TEXT NOT NULL,
  number INTEGER NOT NULL,
  project TEXT NOT NULL,
  tree TEXT NOT NULL,
  workload TEXT NOT NULL,
  registered_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, model, number)
) STRICT;

CREATE TABLE usage (
  allocation_key INTEGER NOT NULL,
  start_at INTEGER NOT NULL,
  end_at INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  workload TEXT NOT NULL,
  cpu_milli INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  gpus INTEGER NOT NULL,
  gpu_model TEXT NOT NULL,
  PRIMARY KEY (allocation_key, start_at),
  CONSTRAINT usage_of_allocation FOREIGN KEY(allocation_key) REFERENCES allocations ("key")
) STRICT;

CREATE INDEX usage_by_tenant ON usage (tenant, start_at);

CREATE TABLE charges (
  allocation_key INTEGER NOT NULL,
  start_at INTEGER NOT NULL,
  sku TEXT NOT NULL,
  end_at INTEGER NOT NULL,
  quantity INTEGER NOT NULL,
  unit_price_micros INTEGER NOT NULL,
  cost_micros INTEGER NOT NULL,
  currency TEXT NOT NULL,
  PRIMARY KEY (allocation_key, start_at, sku),
  CONSTRAINT charge_of_usage FOREIGN KEY(allocation_key, start_at) REFERENCES usage (allocation_key, start_at)
) STRICT;

CREATE TABLE prices (
  sku TEXT NOT NULL,
  effective_from INTEGER NOT NULL,
  per_hour_micros INTEGER NOT NULL,
  currency TEXT NOT NULL,
  PRIMARY KEY (sku, effective_from)
) STRICT;

CREATE TABLE events (
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  kind TEXT NOT NULL,
  object TEXT NOT NULL,
  tenant TEXT NOT NULL,
  workload TEXT NOT NULL,
  reason TEXT NOT NULL,
  phase_before INTEGER NOT NULL,
  phase_after INTEGER NOT NULL,
  PRIMARY KEY (seq)
) STRICT;

CREATE INDEX events_by_tenant ON events (tenant, seq);

CREATE INDEX events_by_workload ON events (workload, seq);

CREATE TABLE audit (
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  tenant TEXT NOT NULL,
  action TEXT NOT NULL,
  object TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (seq)
) STRICT;

CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  route TEXT NOT NULL,
  "key" TEXT NOT NULL,
  body_hash TEXT NOT NULL,
  reply TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (tenant, route, "key")
) STRICT;
