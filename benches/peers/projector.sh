#!/usr/bin/env bash
# Our parallel-beam projector beside ASTRA's linear one on the CPU, one thread each: times and ratios of one run.
# Needs python3 with venv, and the network for pip. Usage: benches/peers/projector.sh [rounds]
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${WELLPOSED_PEERS:-target/peers}/astra"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c "import astra" 2>/dev/null || "$venv/bin/pip" install --quiet astra-toolbox numpy
export RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1
cargo bench --bench projector -- 'x1$'
"$venv/bin/python" benches/peers/projector.py "${1:-5}"
