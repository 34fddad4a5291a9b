"""CG-SENSE, 30 iterations on 8 coils of 256 x 256: wellposed against SigPy, on the same data in one run."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import sigpy
import sigpy.mri

ITERATIONS, LAMBDA = 30, 0.01


def simulate(folder):
    """A Shepp-Logan scan with 1 % noise; complex arrays are saved with a trailing [re, im]."""
    image = np.abs(sigpy.shepp_logan((256, 256))).astype(np.complex64)
    maps = sigpy.mri.birdcage_maps((8, 256, 256)).astype(np.complex64)
    mask = np.abs(sigpy.mri.poisson((256, 256), 4, calib=(24, 24), seed=1)).astype(np.float32)
    rng = np.random.default_rng(1)
    noise = 0.01 * (rng.standard_normal(maps.shape) + 1j * rng.standard_normal(maps.shape))
    kspace = (mask * (sigpy.fft(maps * image, axes=(-2, -1)) + noise)).astype(np.complex64)
    for name, array in [("maps", maps), ("kspace", kspace)]:
        np.save(f"{folder}/{name}.npy", np.stack([array.real, array.imag], -1).astype(np.float32))
    np.save(f"{folder}/mask.npy", mask)
    return image, maps, mask, kspace


def psnr(found, truth):
    found, truth = np.abs(found), np.abs(truth)
    found = found * np.vdot(found, truth) / np.vdot(found, found)
    return 10 * np.log10(truth.max() ** 2 / np.mean((found - truth) ** 2))


def ours(folder, threads):
    command = ["cargo", "bench", "-q", "--bench", "fft_sense"]
    environment = {**os.environ, "WELLPOSED_PEER_DATA": folder, "RAYON_NUM_THREADS": str(threads)}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    seconds = float(re.search(r"wellposed seconds (\S+)", printed).group(1))
    image = np.load(f"{folder}/wellposed.npy")
    return seconds, image[..., 0] + 1j * image[..., 1]


def theirs(maps, mask, kspace):
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        app = sigpy.mri.app.SenseRecon(
            kspace, maps, lamda=LAMBDA, weights=mask, max_iter=ITERATIONS, tol=0, show_pbar=False
        )
        image = app.run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), image


def main():
    threads = int(os.environ["OMP_NUM_THREADS"])
    with tempfile.TemporaryDirectory() as folder:
        truth, maps, mask, kspace = simulate(folder)
        print(f"threads {threads}, SigPy {sigpy.__version__}, R = {mask.size / mask.sum():.2f}")
        t, x = ours(folder, threads)
        print(f"wellposed {t:8.3f} s   PSNR {psnr(x, truth):6.2f} dB")
        t_peer, x_peer = theirs(maps, mask, kspace)
        print(f"SigPy     {t_peer:8.3f} s   PSNR {psnr(x_peer, truth):6.2f} dB")
        print(f"ratio     {t_peer / t:8.2f}")


if __name__ == "__main__":
    sys.exit(main())
