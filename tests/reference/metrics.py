"""Reference numbers for src/metric/tests.rs: scikit-image's metrics, and fastMRI's as defined in its
evaluate.py (data range = maximum of the reference volume).

    python3 -m venv venv && venv/bin/pip install scikit-image && venv/bin/python metrics.py

The arrays are made by a formula that the Rust test repeats, so that nothing has to be stored but numbers.
"""

import numpy as np
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity


def volumes(slices=3, height=24, width=29):
    z, y, x = np.meshgrid(np.arange(slices), np.arange(height), np.arange(width), indexing="ij")
    reference = 2 + np.sin(0.31 * x + 0.2 * z) * np.cos(0.17 * y) + 0.5 * ((x // 5 + y // 4 + z) % 2)
    # A pseudo-random error that any language reproduces exactly: integers below 2^31, scaled.
    n = (z * height + y) * width + x
    noise = ((n * 1103515245 + 12345) % 2147483648) / 2147483648 - 0.5
    return reference + 0.3 * noise + 0.05, reference


x, r = volumes()
top = r.max()
for name, value in {
    "psnr": peak_signal_noise_ratio(r, x, data_range=top),
    "psnr of slice 1, range 4": peak_signal_noise_ratio(r[1], x[1], data_range=4),
    "ssim": np.mean([structural_similarity(r[i], x[i], data_range=4) for i in range(len(r))]),
    "ssim of slice 2": structural_similarity(r[2], x[2], data_range=4),
    "fastMRI ssim": np.mean([structural_similarity(r[i], x[i], data_range=top) for i in range(len(r))]),
    "gaussian ssim of slice 1": structural_similarity(
        r[1], x[1], data_range=4, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    ),
    "nmse": np.linalg.norm(r - x) ** 2 / np.linalg.norm(r) ** 2,
    "relative l2": np.linalg.norm(r - x) / np.linalg.norm(r),
    "rmse": np.sqrt(mean_squared_error(r, x)),
    "mae": np.abs(r - x).mean(),
    "maximum": top,
}.items():
    print(f"{name}: {value:.12f}")
