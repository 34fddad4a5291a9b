"""Times ASTRA's CPU projector (linear, that is Joseph) and prints it beside the times that criterion has just
measured of ours (target/criterion)."""

import json
import math
import os
import statistics
import sys
import time

import astra
import numpy as np

CASES = [(256, 180, 367), (512, 720, 729)]


def ours(name):
    root = os.environ.get("CARGO_TARGET_DIR", "target")
    # criterion writes '/' of a benchmark's name as '_'.
    path = f"{root}/criterion/parallel/{name.replace('/', '_')}/new/estimates.json"
    with open(path) as file:
        return json.load(file)["median"]["point_estimate"] / 1e9


def median(run, rounds):
    """Median time on the wall clock, as criterion reports ours."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peer(side, views, bins, rounds):
    volume = astra.create_vol_geom(side, side)
    angles = np.linspace(0, math.pi, views, endpoint=False)
    geometry = astra.create_proj_geom("parallel", 1.0, bins, angles)
    projector = astra.create_projector("linear", geometry, volume)
    rng = np.random.default_rng(1)
    image = astra.data2d.create("-vol", volume, rng.standard_normal((side, side)).astype(np.float32))
    sinogram = astra.data2d.create("-sino", geometry, rng.standard_normal((views, bins)).astype(np.float32))
    times = []
    for kind in ["FP", "BP"]:
        config = astra.astra_dict(kind)
        config["ProjectorId"] = projector
        config["ProjectionDataId"] = sinogram
        config["VolumeDataId" if kind == "FP" else "ReconstructionDataId"] = image
        algorithm = astra.algorithm.create(config)
        times.append(median(lambda: astra.algorithm.run(algorithm), rounds))
    return times


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"ASTRA {astra.__version__}, linear, one thread, median of {rounds}; ours: median of criterion")
    print(f"{'case':>16} {'':>8} {'ours, ms':>10} {'ASTRA, ms':>10} {'ratio':>7}")
    for side, views, bins in CASES:
        theirs = peer(side, views, bins, rounds)
        for direction, seconds in zip(["forward", "back"], theirs):
            own = ours(f"{direction}/{side}x{views}x{bins}x1")
            case = f"{side}²×{views}×{bins}"
            print(f"{case:>16} {direction:>8} {1e3 * own:10.1f} {1e3 * seconds:10.1f} {seconds / own:6.1f}×")


main()
