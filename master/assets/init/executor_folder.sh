#!/bin/sh
# Runs every document of LoadDensity/keyword, in order of their names.
# The documents load the embedded target, which this script starts and stops. For a service of your
# own: change `host` in the documents and take out the lines between the two marks.
set -eu
cd "$(dirname "$0")/../.."
ld_master=${LD_MASTER:-$(command -v ld-master || echo '@LD_MASTER@')}

# -- the embedded target
"$ld_master" target --listen 127.0.0.1:18080 --latency lognormal:8ms,0.5 &
target=$!
trap 'kill "$target" 2>/dev/null || :' EXIT
sleep 1
# the port may be taken: then the load would go to a stranger
kill -0 "$target" 2>/dev/null || { echo 'the target did not start: nothing was run' >&2; exit 3; }
# -- until here

"$ld_master" run-dir LoadDensity/keyword "$@"
