#!/bin/sh
# CG-SENSE against SigPy, on one thread and on two. Installs SigPy into a virtual environment of its own.
set -eu
cd "$(dirname "$0")/../.."
venv=${WELLPOSED_PEERS:-target/peers}/sigpy
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import sigpy' 2>/dev/null || "$venv/bin/pip" install --quiet numpy scipy sigpy
for threads in 1 2; do
    OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads NUMBA_NUM_THREADS=$threads \
        "$venv/bin/python" benches/peers/sense.py
done
