-- The schema 0001 on PostgreSQL, as it was released. Never edited.

CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));

CREATE TABLE audit (
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  tenant TEXT NOT NULL,
  action TEXT NOT NULL,
  object TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (seq)
);

CREATE TABLE endpoints (
  name TEXT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  model TEXT NOT NULL,
  serving_version BIGINT NOT NULL,
  serving TEXT NOT NULL,
  serving_key BIGINT NOT NULL,
  candidate_version BIGINT NOT NULL,
  candidate TEXT NOT NULL,
  candidate_key BIGINT NOT NULL,
  address TEXT NOT NULL,
  removed BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (name)
);

CREATE TABLE events (
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  kind TEXT NOT NULL,
  object TEXT NOT NULL,
  tenant TEXT NOT NULL,
  workload TEXT NOT NULL,
  reason TEXT NOT NULL,
  phase_before BIGINT NOT NULL,
  phase_after BIGINT NOT NULL,
  PRIMARY KEY (seq)
);

CREATE INDEX events_by_tenant ON events (tenant, seq);

CREATE INDEX events_by_workload ON events (workload, seq);

CREATE TABLE head (
  one BIGINT NOT NULL,
  system TEXT NOT NULL,
  version BIGINT NOT NULL,
  event_seq BIGINT NOT NULL,
  audit_seq BIGINT NOT NULL,
  next_key BIGINT NOT NULL,
  nodes_at BIGINT NOT NULL,
  workloads_at BIGINT NOT NULL,
  allocations_at BIGINT NOT NULL,
  endpoints_at BIGINT NOT NULL,
  prices_at BIGINT NOT NULL,
  PRIMARY KEY (one),
  CONSTRAINT head_is_one_row CHECK (one = 1)
);

CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  route TEXT NOT NULL,
  key TEXT NOT NULL,
  body_hash TEXT NOT NULL,
  reply TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (tenant, route, key)
);

CREATE TABLE leases (
  name TEXT NOT NULL,
  holder TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (name)
);

CREATE TABLE models (
  tenant TEXT NOT NULL,
  model TEXT NOT NULL,
  number BIGINT NOT NULL,
  project TEXT NOT NULL,
  tree TEXT NOT NULL,
  workload TEXT NOT NULL,
  registered_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, model, number)
);

CREATE TABLE nodes (
  key BIGINT NOT NULL,
  cluster TEXT NOT NULL,
  name TEXT NOT NULL,
  ready BIGINT NOT NULL,
  cpu_milli BIGINT NOT NULL,
  memory_bytes BIGINT NOT NULL,
  gpus BIGINT NOT NULL,
  gpu_model TEXT NOT NULL,
  used_cpu_milli BIGINT NOT NULL,
  used_memory_bytes BIGINT NOT NULL,
  used_gpus BIGINT NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (key)
);

CREATE UNIQUE INDEX nodes_by_name ON nodes (cluster, name);

CREATE INDEX nodes_by_version ON nodes (version);

CREATE TABLE prices (
  sku TEXT NOT NULL,
  effective_from BIGINT NOT NULL,
  per_hour_micros BIGINT NOT NULL,
  currency TEXT NOT NULL,
  PRIMARY KEY (sku, effective_from)
);

CREATE TABLE workloads (
  key BIGINT NOT NULL,
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  queue TEXT NOT NULL,
  name TEXT NOT NULL,
  submitted_by TEXT NOT NULL,
  kind BIGINT NOT NULL,
  priority BIGINT NOT NULL,
  phase BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  infrastructure_failures BIGINT NOT NULL,
  user_failures BIGINT NOT NULL,
  stop_requested BIGINT NOT NULL,
  submitted_at BIGINT NOT NULL,
  not_before BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  finished_at BIGINT NOT NULL,
  output TEXT NOT NULL,
  reason TEXT NOT NULL,
  version BIGINT NOT NULL,
  nodes BIGINT NOT NULL,
  cpu_milli BIGINT NOT NULL,
  memory_bytes BIGINT NOT NULL,
  gpus BIGINT NOT NULL,
  gpu_model TEXT NOT NULL,
  choices_count BIGINT NOT NULL,
  max_duration_seconds BIGINT NOT NULL,
  stop_grace_seconds BIGINT NOT NULL,
  infrastructure_max BIGINT NOT NULL,
  user_max BIGINT NOT NULL,
  backoff_seconds BIGINT NOT NULL,
  backoff_seconds_max BIGINT NOT NULL,
  retry_always BIGINT NOT NULL,
  spec TEXT NOT NULL,
  PRIMARY KEY (key)
);

CREATE UNIQUE INDEX workloads_by_id ON workloads (id);

CREATE INDEX workloads_by_name ON workloads (tenant, name, key);

CREATE INDEX workloads_by_project ON workloads (tenant, project, key);

CREATE INDEX workloads_by_tenant ON workloads (tenant, key);

CREATE INDEX workloads_by_version ON workloads (version);

CREATE INDEX workloads_open ON workloads (key) WHERE phase < 10;

CREATE TABLE allocations (
  key BIGINT NOT NULL,
  workload_key BIGINT NOT NULL,
  workload TEXT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  rank BIGINT NOT NULL,
  node_key BIGINT NOT NULL,
  node TEXT NOT NULL,
  cluster TEXT NOT NULL,
  cpu_milli BIGINT NOT NULL,
  memory_bytes BIGINT NOT NULL,
  gpus BIGINT NOT NULL,
  gpu_model TEXT NOT NULL,
  stop BIGINT NOT NULL,
  seen BIGINT NOT NULL,
  ready BIGINT NOT NULL,
  address TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  ended_at BIGINT NOT NULL,
  metered_until BIGINT NOT NULL,
  ending BIGINT NOT NULL,
  exit_code BIGINT NOT NULL,
  detail TEXT NOT NULL,
  closed BIGINT NOT NULL,
  version BIGINT NOT NULL,
  PRIMARY KEY (key),
  CONSTRAINT allocation_of_workload FOREIGN KEY(workload_key) REFERENCES workloads (key),
  CONSTRAINT allocation_on_node FOREIGN KEY(node_key) REFERENCES nodes (key)
);

CREATE UNIQUE INDEX allocations_by_slot ON allocations (workload_key, attempt, rank);

CREATE INDEX allocations_by_version ON allocations (version);

CREATE INDEX allocations_open ON allocations (key) WHERE closed = 0;

CREATE TABLE usage (
  allocation_key BIGINT NOT NULL,
  start_at BIGINT NOT NULL,
  end_at BIGINT NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  workload TEXT NOT NULL,
  cpu_milli BIGINT NOT NULL,
  memory_bytes BIGINT NOT NULL,
  gpus BIGINT NOT NULL,
  gpu_model TEXT NOT NULL,
  PRIMARY KEY (allocation_key, start_at),
  CONSTRAINT usage_of_allocation FOREIGN KEY(allocation_key) REFERENCES allocations (key)
);

CREATE INDEX usage_by_tenant ON usage (tenant, start_at);

CREATE TABLE charges (
  allocation_key BIGINT NOT NULL,
  start_at BIGINT NOT NULL,
  sku TEXT NOT NULL,
  end_at BIGINT NOT NULL,
  quantity BIGINT NOT NULL,
  unit_price_micros BIGINT NOT NULL,
  cost_micros BIGINT NOT NULL,
  currency TEXT NOT NULL,
  PRIMARY KEY (allocation_key, start_at, sku),
  CONSTRAINT charge_of_usage FOREIGN KEY(allocation_key, start_at) REFERENCES usage (allocation_key, start_at)
);
