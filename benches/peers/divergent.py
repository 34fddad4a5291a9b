"""Times ASTRA's fan projector (CPU, line model) and RTK's cone projectors and FDK, and prints them beside the times
that criterion has just measured of ours (target/criterion). The projections of a ball tell FDK's quality."""

import json
import math
import os
import statistics
import sys
import time

import astra
import itk
import numpy as np
from itk import RTK as rtk

# As in benches/projector.rs: a fan over 512², and a cone over 128³ (mm).
FAN = dict(side=512, views=720, bins=729, pitch=1.5, source=1000.0, detector=500.0)
CONE = dict(side=128, views=180, bins=192, pitch=1.5, source=400.0, detector=200.0)
BALL = dict(radius=50.0, value=0.02)
Image = itk.Image[itk.F, 3]


def ours(name):
    root = os.environ.get("CARGO_TARGET_DIR", "target")
    # criterion writes '/' of a benchmark's name as '_'.
    path = f"{root}/criterion/divergent/{name.replace('/', '_')}/new/estimates.json"
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


def fan(rounds):
    volume = astra.create_vol_geom(FAN["side"], FAN["side"])
    angles = np.linspace(0, 2 * math.pi, FAN["views"], endpoint=False)
    geometry = astra.create_proj_geom(
        "fanflat", FAN["pitch"], FAN["bins"], angles, FAN["source"], FAN["detector"]
    )
    projector = astra.create_projector("line_fanflat", geometry, volume)
    rng = np.random.default_rng(1)
    image = rng.standard_normal((FAN["side"],) * 2).astype(np.float32)
    image = astra.data2d.create("-vol", volume, image)
    sinogram = rng.standard_normal((FAN["views"], FAN["bins"])).astype(np.float32)
    sinogram = astra.data2d.create("-sino", geometry, sinogram)
    times = []
    for kind in ["FP", "BP"]:
        config = astra.astra_dict(kind)
        config["ProjectorId"] = projector
        config["ProjectionDataId"] = sinogram
        config["VolumeDataId" if kind == "FP" else "ReconstructionDataId"] = image
        algorithm = astra.algorithm.create(config)
        times.append(median(lambda: astra.algorithm.run(algorithm), rounds))
    return times


def image_of(array, spacing):
    """An ITK image whose middle is the origin, from [z, y, x]."""
    image = itk.image_from_array(np.ascontiguousarray(array, dtype=np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(reversed(array.shape), spacing)])
    return image


def stack_of(array, pitch):
    """Projections [view, row, bin] as RTK takes them."""
    image = image_of(array, [pitch, pitch, 1.0])
    image.SetOrigin(list(image.GetOrigin())[:2] + [0.0])
    return image


def ball_projections():
    """Chords of the ball, [view, row, bin]: the ball lies in the middle, so that all views agree."""
    half = (CONE["bins"] - 1) / 2
    place = (np.arange(CONE["bins"]) - half) * CONE["pitch"]
    u, v = np.meshgrid(place, place)
    distance = CONE["source"] + CONE["detector"]
    # Distance of the centre from the ray through (u, v).
    away = CONE["source"] * np.sqrt((u**2 + v**2) / (u**2 + v**2 + distance**2))
    chord = 2 * np.sqrt(np.clip(BALL["radius"] ** 2 - away**2, 0, None)) * BALL["value"]
    return np.repeat(chord[None], CONE["views"], axis=0)


def ball():
    fine = 4
    place = (np.arange(CONE["side"] * fine) - (CONE["side"] * fine - 1) / 2) / fine
    square = place**2
    truth = np.zeros((CONE["side"],) * 3)
    for i in range(CONE["side"]):
        z = square[i * fine : (i + 1) * fine, None, None]
        inside = (z + square[None, :, None] + square[None, None, :]) <= BALL["radius"] ** 2
        truth[i] = inside.reshape(fine, CONE["side"], fine, CONE["side"], fine).mean(axis=(0, 2, 4))
    return truth * BALL["value"]


def cone(rounds, threads):
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(threads)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    for view in range(CONE["views"]):
        geometry.AddProjection(CONE["source"], CONE["source"] + CONE["detector"], 360 * view / CONE["views"])
    side = CONE["side"]
    chords, unit = ball_projections(), [1.0, 1.0, 1.0]
    projections = stack_of(chords, CONE["pitch"])
    rng = np.random.default_rng(1)
    volume = image_of(rng.standard_normal((side,) * 3), unit)
    forward = rtk.JosephForwardProjectionImageFilter[Image, Image].New()
    back = rtk.JosephBackProjectionImageFilter[Image, Image].New()
    fdk = rtk.FDKConeBeamReconstructionFilter[Image].New()
    times, blank = [], lambda: image_of(np.zeros((side,) * 3), unit)
    for filter, empty, other in [
        (forward, lambda: stack_of(chords * 0, CONE["pitch"]), volume),
        (back, blank, projections),
        (fdk, blank, projections),
    ]:
        filter.SetGeometry(geometry)
        filter.SetInput(1, other)

        def run():
            # RTK works in place, on what it is given.
            filter.SetInput(0, empty())
            filter.Update()

        times.append(median(run, rounds))
    found, truth = itk.array_from_image(fdk.GetOutput()), ball()
    quality = 10 * math.log10(BALL["value"] ** 2 / np.mean((found - truth) ** 2))
    return times, quality


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(f"threads: {threads}; medians of {rounds}; ours: medians of criterion")
    print(f"{'case':>20} {'':>8} {'ours, ms':>10} {'theirs, ms':>10} {'ratio':>7}")

    def line(case, direction, name, seconds):
        own = ours(name)
        print(f"{case:>20} {direction:>8} {1e3 * own:10.1f} {1e3 * seconds:10.1f} {seconds / own:6.1f}×")

    for direction, seconds in zip(["forward", "back"], fan(rounds)):
        line(f"fan, ASTRA {astra.__version__}", direction, f"{direction}/fan/512x720x729", seconds)
    times, quality = cone(rounds, threads)
    for direction, seconds in zip(["forward", "back", "fdk"], times):
        line("cone, RTK", direction, f"{direction}/cone/128x180x192", seconds)
    print(f"FDK of the ball by RTK: {quality:.2f} dB (ours: printed by the bench above)")


main()
