"""8 images of 256 x 256 along 128 spokes of 512 samples: wellposed against finufft, on the same data in one run. Errors
are relative to finufft in double precision at 1e-12."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import finufft
import numpy as np

N, SPOKES, READOUT, COILS = 256, 128, 512, 8
# Tolerance of both and our oversampling; finufft chooses its own. Errors differ at equal tolerance, and are printed.
ACCURACIES = [(1e-3, 1.25), (1e-4, 2.0), (1e-5, 2.0)]


def parts(z):
    return np.stack([z.real, z.imag], -1).astype(np.float32)


def problem(folder):
    rng = np.random.default_rng(1)
    angle = np.pi * np.arange(SPOKES) / SPOKES
    radius = N * (np.arange(READOUT) / READOUT - 0.5)
    k = np.stack([np.outer(np.sin(angle), radius).ravel(), np.outer(np.cos(angle), radius).ravel()], -1)
    draw = lambda *shape: (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    images, samples = draw(COILS, N, N), draw(COILS, len(k))
    np.save(f"{folder}/trajectory.npy", k)
    np.save(f"{folder}/images.npy", parts(images))
    np.save(f"{folder}/samples.npy", parts(samples))
    with open(f"{folder}/accuracies.txt", "w") as out:
        out.writelines(f"{tolerance} {sigma}\n" for tolerance, sigma in ACCURACIES)
    return k, images, samples


def ours(folder, threads):
    command = ["cargo", "bench", "-q", "--bench", "nufft"]
    environment = {**os.environ, "WELLPOSED_PEER_DATA": folder, "RAYON_NUM_THREADS": str(threads)}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    seconds = {int(i): (float(f), float(a)) for i, f, a in re.findall(r"wellposed (\d+) (\S+) (\S+)", printed)}
    load = lambda name: np.load(f"{folder}/{name}.npy").view(np.float32)
    complex_ = lambda a: a[..., 0] + 1j * a[..., 1]
    return [(*seconds[i], complex_(load(f"forward{i}")), complex_(load(f"adjoint{i}"))) for i in range(len(ACCURACIES))]


def plans(k, tolerance, threads, dtype):
    points = [np.ascontiguousarray(2 * np.pi * k[:, axis] / N).astype(dtype[1]) for axis in (0, 1)]
    options = dict(eps=tolerance, n_trans=COILS, dtype=dtype[0], nthreads=threads)
    forward = finufft.Plan(2, (N, N), isign=-1, **options)
    adjoint = finufft.Plan(1, (N, N), isign=1, **options)
    for plan in (forward, adjoint):
        plan.setpts(*points)
    return forward, adjoint


def timed(run):
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result / N


def main():
    threads = int(os.environ["OMP_NUM_THREADS"])
    error = lambda found, exact: np.linalg.norm(found - exact) / np.linalg.norm(exact)
    with tempfile.TemporaryDirectory() as folder:
        k, images, samples = problem(folder)
        forward, adjoint = plans(k, 1e-12, threads, ("complex128", np.float64))
        exact = forward.execute(images.astype(np.complex128)) / N, adjoint.execute(samples.astype(np.complex128)) / N
        print(f"threads {threads}, finufft {finufft.__version__}; milliseconds (error)")
        for (tolerance, sigma), (tf, ta, f, a) in zip(ACCURACIES, ours(folder, threads)):
            forward, adjoint = plans(k, tolerance, threads, ("complex64", np.float32))
            peers = timed(lambda: forward.execute(images)), timed(lambda: adjoint.execute(samples))
            print(f"tolerance {tolerance:g}, our oversampling {sigma}")
            for name, t, x, peer, truth in [("forward", tf, f, peers[0], exact[0]), ("adjoint", ta, a, peers[1], exact[1])]:
                print(
                    f"  {name}  wellposed {1e3 * t:7.1f} ({error(x, truth):.1e})   finufft {1e3 * peer[0]:7.1f} "
                    f"({error(peer[1], truth):.1e})   ratio {peer[0] / t:.2f}"
                )


if __name__ == "__main__":
    sys.exit(main())
