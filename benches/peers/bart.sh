#!/bin/sh
# ESPIRiT, CG-SENSE, l1-wavelet and TV against BART, on one thread and on two. Installs BART by apt, and NumPy into a
# virtual environment of its own. Arguments: a .cfl of measured k-space to compare on as well.
set -eu
cd "$(dirname "$0")/../.."
command -v bart >/dev/null || apt-get install --yes bart
venv=${WELLPOSED_PEERS:-target/peers}/bart
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import numpy' 2>/dev/null || "$venv/bin/pip" install --quiet numpy
for threads in 1 2; do
    OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads "$venv/bin/python" benches/peers/bart.py "$@"
done
