#!/bin/sh
# The non-uniform Fourier transform against finufft, on one thread and on two. Installs finufft into a virtual
# environment of its own.
set -eu
cd "$(dirname "$0")/../.."
venv=${WELLPOSED_PEERS:-target/peers}/finufft
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import finufft' 2>/dev/null || "$venv/bin/pip" install --quiet numpy finufft
for threads in 1 2; do
    OMP_NUM_THREADS=$threads "$venv/bin/python" benches/peers/nufft.py
done
