-- Beside the seed's tables: what a run was and what it measured. `plan` and `result` are JSON without
-- secrets, `evidence` is what comparing needs beside names, `bytes` the size of a run's rows here.
CREATE TABLE IF NOT EXISTS loaddensity_results (
    run_id INTEGER PRIMARY KEY REFERENCES load_density_runs(id) ON DELETE CASCADE,
    uuid TEXT,
    started_at TEXT,
    outcome TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    requests_per_s REAL NOT NULL,
    p95_ms REAL NOT NULL,
    duration_s REAL NOT NULL,
    bytes INTEGER NOT NULL,
    plan TEXT,
    result TEXT NOT NULL,
    evidence TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_loaddensity_results_uuid ON loaddensity_results(uuid);
-- `histogram`: response times in the wire form of cluster.proto; `blocks`: the same over spans.
CREATE TABLE IF NOT EXISTS loaddensity_histograms (
    run_id INTEGER NOT NULL REFERENCES load_density_runs(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    scenario TEXT,
    failures INTEGER NOT NULL,
    histogram BLOB NOT NULL,
    blocks BLOB NOT NULL,
    PRIMARY KEY (run_id, position)
);
