#!/usr/bin/env bash
# Our fan and cone projectors and FDK beside ASTRA (fan, line model) and RTK (cone, Joseph) on the CPU: times, ratios
# and FDK's quality from one run. Needs python3 with venv, and the network for pip.
# Usage: benches/peers/divergent.sh [rounds] [threads]
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${WELLPOSED_PEERS:-target/peers}/divergent"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c "import astra, itk" 2>/dev/null || "$venv/bin/pip" install --quiet astra-toolbox itk-rtk numpy
threads="${2:-1}"
export RAYON_NUM_THREADS="$threads" OMP_NUM_THREADS="$threads" ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS="$threads"
cargo bench --bench projector -- divergent
"$venv/bin/python" benches/peers/divergent.py "${1:-5}" "$threads"
