"""Times PyTorch on the CT prior that comes along: the same weights as `cargo bench --bench denoiser`.

    python benches/peers/denoiser.py [threads]        # needs torch and safetensors

Prints the median of 7 runs in ms, default and channels-last memory format, value and value with input gradient.
"""
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reference"))
from unet import UNet  # noqa: E402


def median(run, count=7):
    run()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    file = safe_open(ROOT / "data" / "priors" / "ct.safetensors", "pt")
    net = UNet(json.loads(file.metadata()["config"]))
    net.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})
    net.requires_grad_(False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for layout in (torch.contiguous_format, torch.channels_last):
        net = net.to(memory_format=layout)
        for batch in (1, 8):
            x = torch.randn(batch, 1, 256, 256).requires_grad_()
            g, time_code = torch.randn_like(x), torch.full((batch,), -0.17)

            def value():
                with torch.no_grad():
                    net(x, time_code)

            def gradient():
                torch.autograd.grad((net(x, time_code) * g).sum(), x)

            print(f"{layout}, batch {batch}: value {median(value):.0f} ms, with gradient {median(gradient):.0f} ms")


if __name__ == "__main__":
    main()
