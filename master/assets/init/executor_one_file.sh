#!/bin/sh
# Runs one document, LoadDensity/keyword/keyword1.json unless another one is named:
#   LoadDensity/executor/executor_one_file.sh LoadDensity/keyword/keyword2.json
# The document loads the embedded target, which this script starts and stops. For a service of your
# own: change `host` in the document and take out the lines between the two marks.
set -eu
cd "$(dirname "$0")/../.."
ld_master=${LD_MASTER:-$(command -v ld-master || echo '@LD_MASTER@')}
document=${1:-LoadDensity/keyword/keyword1.json}

# -- the embedded target
"$ld_master" target --listen 127.0.0.1:18080 --latency lognormal:8ms,0.5 &
target=$!
trap 'kill "$target" 2>/dev/null || :' EXIT
sleep 1
# the port may be taken: then the load would go to a stranger
kill -0 "$target" 2>/dev/null || { echo 'the target did not start: nothing was run' >&2; exit 3; }
# -- until here

"$ld_master" run "$document"
