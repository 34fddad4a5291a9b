"""wellposed against PyTorch on one CUDA device, in one run.

    cargo bench --features cuda --bench cuda --no-run --target-dir target/cuda    # where cargo is
    python benches/peers/gpu.py target/cuda/release/deps/cuda-…                  # on the machine with the GPU

Needs torch and safetensors; take along this repository's `tests/reference` and `data/priors`. The network has the very
weights that we ship. PyTorch runs in f32 and with TF32, eager and (without --eager) compiled, in both memory formats; its
fastest counts.
"""
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reference"))
from unet import UNet  # noqa: E402


def median(run, count=7):
    for _ in range(3):
        run()
    times = []
    for _ in range(count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def networks():
    """Times by name, of the fastest form in full f32, and with TF32 in brackets."""
    file = safe_open(ROOT / "data" / "priors" / "ct.safetensors", "pt")
    net = UNet(json.loads(file.metadata()["config"]))
    net.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})
    net.requires_grad_(False).cuda()
    found = {}
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        for layout in (torch.contiguous_format, torch.channels_last):
            net = net.to(memory_format=layout)
            for form in (net,) if "--eager" in sys.argv else (net, torch.compile(net)):
                for batch in (1, 8):
                    x = torch.randn(batch, 1, 256, 256, device="cuda").requires_grad_()
                    g, code = torch.randn_like(x), torch.full((batch,), -0.17, device="cuda")

                    def value():
                        with torch.no_grad():
                            form(x, code)

                    def gradient():
                        torch.autograd.grad((form(x, code) * g).sum(), x)

                    for name, run in (("denoiser", value), ("denoiser with gradient", gradient)):
                        key = (f"{name}, batch {batch}", tf32)
                        try:
                            found[key] = min(found.get(key, 1e9), median(run))
                        except Exception as error:  # torch.compile may be missing a compiler
                            print(f"{key}: {type(error).__name__}", file=sys.stderr)
    return found


def sense():
    maps = torch.randn(8, 256, 256, dtype=torch.complex64, device="cuda")
    x = torch.randn(4, 1, 256, 256, dtype=torch.complex64, device="cuda")

    def run():
        k = torch.fft.fft2(x * maps, norm="ortho")
        (torch.fft.ifft2(k, norm="ortho") * maps.conj()).sum(1)

    return {("SENSE normal operator, 4 images of 256x256, 8 coils", False): median(run)}


def main():
    lines = subprocess.run([sys.argv[1]], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    if not lines or not lines[0].startswith("{"):
        sys.exit("\n".join(lines) or "no output")
    theirs = {**networks(), **sense()}
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; ms")
    print(f"{'':56}{'ours':>10}{'torch':>10}{'TF32':>10}{'ratio':>8}")
    for line in lines:
        ours = json.loads(line)
        full, fast = theirs.get((ours["name"], False)), theirs.get((ours["name"], True))
        cell = lambda x: f"{x:10.3f}" if x else f"{'':>10}"  # noqa: E731
        ratio = f"{full / ours['ms']:8.2f}" if full else ""
        print(f"{ours['name']:56}{ours['ms']:10.3f}{cell(full)}{cell(fast)}{ratio}")


if __name__ == "__main__":
    main()
