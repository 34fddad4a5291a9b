"""ESPIRiT and iterative reconstruction of 8 coils of 256 x 256: wellposed against BART, on the same data in one run.

Ours are library calls; BART's are whole runs of its tools, from which the time of one that does nothing is subtracted.
Repetitions alternate, and the smallest time counts, so that other work on the machine matters little.

Arguments: measured k-space (.cfl), whose truth is BART's own image, or images (.npy, real [y, x]), which are scanned like
the phantom.
"""

import os
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

REPETITIONS = int(os.environ.get("REPETITIONS", 3))
# Method, our strength and iterations, BART's options.
METHODS = [
    ("sense", (0.05, 10), "-l2 -r 0.05 -i 10"),
    ("sense", (0.05, 30), "-l2 -r 0.05 -i 30"),
    ("wavelet", (0.003, 30), "-l1 -r 0.003 -i 30"),
    ("wavelet", (0.003, 60), "-l1 -r 0.003 -i 100"),
    ("tv", (0.003, 15), "-R T:3:0:0.01 -i 30"),
    ("tv", (0.003, 40), "-R T:3:0:0.01 -i 100"),
]


def write_cfl(name, array):
    """Complex [coil, y, x]; BART's first axis is the fastest."""
    array = np.asarray(array, np.complex64)
    array = array.reshape((-1,) + array.shape[-2:])
    with open(f"{name}.hdr", "w") as header:
        coils, height, width = array.shape
        header.write(f"# Dimensions\n{width} {height} 1 {coils} 1 1 1 1 1 1 1 1 1 1 1 1\n")
    array.tofile(f"{name}.cfl")


def read_cfl(name):
    """Complex, with the axes in reverse order and those of length 1 left out."""
    with open(f"{name}.hdr") as header:
        shape = [int(n) for n in header.readlines()[1].split()]
    return np.fromfile(f"{name}.cfl", np.complex64).reshape(shape[::-1]).squeeze()


def write_npy(name, array):
    np.save(name, np.stack([array.real, array.imag], -1).astype(np.float32))


def read_npy(name):
    array = np.load(name)
    return array[..., 0] + 1j * array[..., 1]


def bart(folder, command):
    start = time.perf_counter()
    subprocess.run(["bart", *command.split()], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def ours(folder, binary, method):
    environment = {
        **os.environ,
        "WELLPOSED_PEER_DATA": folder,
        "WELLPOSED_PEER_METHOD": method,
        "RAYON_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
    }
    printed = subprocess.run(binary, env=environment, check=True, capture_output=True, text=True).stdout
    return min(float(t) for t in re.findall(r"wellposed seconds (\S+)", printed))


def simulate(folder, acceleration, truth=None):
    """A scan of an image, or of Shepp-Logan, with 1 % noise, sampled by a Poisson disc with a full centre of 24 x 24."""
    side = 256 if truth is None else max(truth.shape)
    bart(folder, f"phantom -x{side} truth")
    bart(folder, f"phantom -x{side} -S8 coils")
    if truth is None:
        truth = read_cfl(f"{folder}/truth")
    else:
        margins = [((side - n) // 2, side - n - (side - n) // 2) for n in truth.shape]
        truth = np.pad(truth, margins) / np.percentile(truth, 99)
    coils = read_cfl(f"{folder}/coils")
    coils = coils / np.sqrt((np.abs(coils) ** 2).sum(0))
    # BART's own discs are sparser than asked for; search for what gives the acceleration.
    low, high = 1.0, acceleration
    for _ in range(12):
        step = 0.5 * (low + high)
        bart(folder, f"poisson -Y{side} -Z{side} -y{step} -z{step} -C24 -e -s1 disc")
        mask = np.abs(read_cfl(f"{folder}/disc")) > 0.5
        low, high = (step, high) if mask.size / mask.sum() < acceleration else (low, step)
    rng = np.random.default_rng(1)
    noise = 0.01 * (rng.standard_normal(coils.shape) + 1j * rng.standard_normal(coils.shape))
    axes = (-2, -1)
    shift, back = np.fft.fftshift, np.fft.ifftshift
    spectrum = shift(np.fft.fft2(back(coils * truth, axes=axes), norm="ortho"), axes=axes)
    kspace = mask * (spectrum + noise)
    return kspace, mask, np.abs(truth)


def psnr(found, truth):
    found, truth = np.abs(found), np.abs(truth)
    found = found * np.vdot(found, truth) / np.vdot(found, found)
    return 10 * np.log10(truth.max() ** 2 / np.mean((found - truth) ** 2))


def alternate(first, second):
    times = [(first(), second()) for _ in range(REPETITIONS)]
    return min(t for t, _ in times), min(t for _, t in times)


def line(name, t, t_peer, remark=""):
    print(f"{name:30} {1e3 * t:8.0f} ms {1e3 * t_peer:8.0f} ms {t_peer / t:6.2f}  {remark}", flush=True)


def compare(folder, binary, name, kspace, mask, truth):
    idle = min(bart(folder, "version") for _ in range(3))
    print(f"{name}, R = {mask.size / mask.sum():.2f}: wellposed, BART, ratio")
    write_cfl(f"{folder}/kspace", kspace)
    write_npy(f"{folder}/kspace.npy", kspace)
    np.save(f"{folder}/mask.npy", mask.astype(np.float32))
    times = alternate(
        lambda: ours(folder, binary, "espirit"),
        lambda: bart(folder, "ecalib -m1 -r24 kspace maps values") - idle,
    )
    maps, values = read_cfl(f"{folder}/maps"), np.abs(read_cfl(f"{folder}/values"))
    own = read_npy(f"{folder}/espirit_maps.npy")
    # Maps matter where there is an object, and both call them certain.
    inside = (truth > 0.05 * truth.max()) & (values > 0.95) & (np.load(f"{folder}/espirit_values.npy") > 0.95)
    overlap = np.abs((own.conj() * maps).sum(0))[inside]
    angle = np.sqrt(np.maximum(0, 1 - np.minimum(overlap, 1) ** 2))
    line("espirit", *times, f"angle between maps: median {np.median(angle):.1e}, 99 % {np.quantile(angle, 0.99):.1e}")
    write_npy(f"{folder}/maps.npy", maps)
    for method, (strength, iterations), options in METHODS:
        times = alternate(
            lambda: ours(folder, binary, f"{method} {strength} {iterations}"),
            lambda: bart(folder, f"pics -S {options} kspace maps image") - idle,
        )
        quality = [psnr(x, truth) for x in (read_npy(f"{folder}/wellposed.npy"), read_cfl(f"{folder}/image"))]
        line(f"{method} {strength} × {iterations} / {options.split()[-1]}", *times, "PSNR {:.2f} / {:.2f} dB".format(*quality))


def binary():
    """The benchmark program, built where it is not given."""
    if "WELLPOSED_BENCH" in os.environ:
        return os.environ["WELLPOSED_BENCH"]
    built = subprocess.run(
        ["cargo", "bench", "--bench", "mri", "--no-run"], check=True, capture_output=True, text=True
    )
    return re.search(r"Executable .*\((.*)\)", built.stderr).group(1)


def main():
    program = binary()
    version = subprocess.run(["bart", "version"], capture_output=True, text=True).stdout.strip()
    print(f"threads {os.environ['OMP_NUM_THREADS']}, BART {version}")
    for acceleration in (4, 8):
        with tempfile.TemporaryDirectory() as folder:
            compare(folder, program, "Shepp-Logan 8 × 256²", *simulate(folder, acceleration))
    for path in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            if path.endswith(".npy"):
                scan = simulate(folder, 4, np.load(path).astype(np.float32))
                compare(folder, program, os.path.basename(path), *scan)
                continue
            kspace = read_cfl(path.removesuffix(".cfl"))
            kspace = kspace / np.abs(kspace).max()
            mask = (np.abs(kspace) > 0).any(0)
            # No truth is known: BART's own image after many iterations stands for it.
            write_cfl(f"{folder}/kspace", kspace)
            bart(folder, "ecalib -m1 -r24 kspace maps")
            bart(folder, "pics -S -l1 -r 0.002 -i 300 kspace maps reference")
            compare(folder, program, os.path.basename(path), kspace, mask, np.abs(read_cfl(f"{folder}/reference")))


if __name__ == "__main__":
    main()
