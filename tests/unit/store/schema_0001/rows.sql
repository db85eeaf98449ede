-- One running job on one node, in schema 0001. Never edited.

INSERT INTO alembic_version (version_num) VALUES ('0001');

INSERT INTO head (one, system, version, event_seq, audit_seq, next_key,
  nodes_at, workloads_at, allocations_at, endpoints_at, prices_at)
VALUES (1, '00000000000000000000000000000000', 4, 2, 1, 4, 3, 4, 4, 0, 0);

INSERT INTO nodes (key, cluster, name, ready, cpu_milli, memory_bytes, gpus, gpu_model,
  used_cpu_milli, used_memory_bytes, used_gpus, version)
VALUES (1, 'local', 'local-0', 1, 4000, 4294967296, 0, '', 1000, 1073741824, 0, 3);

INSERT INTO workloads (key, id, tenant, project, queue, name, submitted_by, kind, priority, phase, attempt,
  infrastructure_failures, user_failures, stop_requested, submitted_at, not_before, started_at, finished_at,
  output, reason, version, nodes, cpu_milli, memory_bytes, gpus, gpu_model, choices_count,
  max_duration_seconds, stop_grace_seconds, infrastructure_max, user_max, backoff_seconds, backoff_seconds_max,
  retry_always, spec)
VALUES (2, 'train-0001', 'physics', 'default', 'default', 'train', 'ada', 0, 50, 5, 1,
  0, 0, 0, 1700000000000000, 0, 1700000003000000, 0,
  '', '["PodRunning","",{}]', 4, 1, 1000, 1073741824, 0, '', 1,
  0, 30, 3, 0, 10, 360,
  0, '{"kind":"job","name":"train","run":["python","train.py"],"setup":"","env":[],"mounts":[],"nodes":1,"choices":[{"cpu_milli":1000,"memory_bytes":1073741824,"gpus":0,"gpu_model":""}],"cpu_limit_milli":0,"memory_limit_bytes":0,"retry":{"infrastructure_max":3,"user_max":0,"backoff_seconds":10,"backoff_seconds_max":360,"always":false},"max_duration_seconds":0,"stop_grace_seconds":30,"port":false,"ready_path":""}');

INSERT INTO allocations (key, workload_key, workload, tenant, project, attempt, rank, node_key, node, cluster,
  cpu_milli, memory_bytes, gpus, gpu_model, stop, seen, ready, address, created_at, started_at, ended_at,
  metered_until, ending, exit_code, detail, closed, version)
VALUES (3, 2, 'train-0001', 'physics', 'default', 1, 0, 1, 'local-0', 'local',
  1000, 1073741824, 0, '', 0, 3, 1, '127.0.0.1:9000', 1700000002000000, 1700000003000000, 0,
  0, -1, -1, '', 0, 4);

INSERT INTO events (seq, at, actor, kind, object, tenant, workload, reason, phase_before, phase_after)
VALUES
  (1, 1700000000000000, 'ada', 'workload', 'train-0001', 'physics', 'train-0001', '["Submitted","",{}]', -1, 0),
  (2, 1700000003000000, 'lifecycle', 'workload', 'train-0001', 'physics', 'train-0001', '["PodRunning","",{}]', 0, 5);

INSERT INTO audit (seq, at, actor, tenant, action, object, detail)
VALUES (1, 1700000000000000, 'ada', 'physics', 'submit', 'train-0001', 'accepted');
