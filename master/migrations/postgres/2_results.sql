-- Beside the seed's tables: what a run was and what it measured. `plan` and `result` are JSON without
-- secrets, `evidence` is what comparing needs beside names, `bytes` the size of a run's rows here.
CREATE TABLE IF NOT EXISTS loaddensity_results (
    run_id BIGINT PRIMARY KEY REFERENCES load_density_runs(id) ON DELETE CASCADE,
    uuid TEXT,
    started_at TEXT,
    outcome TEXT NOT NULL,
    requests BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    requests_per_s DOUBLE PRECISION NOT NULL,
    p95_ms DOUBLE PRECISION NOT NULL,
    duration_s DOUBLE PRECISION NOT NULL,
    bytes BIGINT NOT NULL,
    plan TEXT,
    result TEXT NOT NULL,
    evidence TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_loaddensity_results_uuid ON loaddensity_results(uuid);
-- `histogram`: response times in the wire form of cluster.proto; `blocks`: the same over spans.
CREATE TABLE IF NOT EXISTS loaddensity_histograms (
    run_id BIGINT NOT NULL REFERENCES load_density_runs(id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    scenario TEXT,
    failures BIGINT NOT NULL,
    histogram BYTEA NOT NULL,
    blocks BYTEA NOT NULL,
    PRIMARY KEY (run_id, position)
);
