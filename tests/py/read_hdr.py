"""Prints what Python's HdrHistogram reads from base64 on stdin: count, p50, p90, p95, p99, p99.9 and max in ms."""

import json, sys
from hdrh.histogram import HdrHistogram

h = HdrHistogram.decode(sys.stdin.read().strip())
at = h.get_value_at_percentile
print(json.dumps({
    "count": h.get_total_count(),
    **{k: at(p) / 1000 for k, p in [("p50_ms", 50), ("p90_ms", 90), ("p95_ms", 95), ("p99_ms", 99), ("p999_ms", 99.9)]},
    "max_ms": h.get_max_value() / 1000,
}))
