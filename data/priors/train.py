"""Trains the shipped priors in PyTorch on one GPU, for as long as it is told, and writes them as `prior train` would.

    python data/priors/train.py data  images.npz VOLUMES...                  # where the volumes are (needs nibabel)
    python data/priors/train.py train ct|brain images.npz OUT.safetensors --seconds 480 [--start OLD.safetensors]

The network and its preconditioning are those of `tests/reference/unet.py`, which the program's own network is tested
against. The loss is that of `wellposed prior train` (Karras et al. 2022), each noise level weighted by the inverse of its
mean loss (Karras et al. 2024); images are turned, scaled, mirrored and warped by smooth random fields; CT lungs get random
opacities now and then, bodies are laid on random couches, and heads get random smooth phases, bias fields and tone curves.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reference"))

NETWORK = dict(patch=2, widths=[48, 96, 144, 160], depths=[1, 1, 2, 1], attention=[False, False, False, True], groups=8,
               head=32, embedding=128, frequencies=32)
CARDS = {
    "ct": dict(name="ct", channels=1, layout="real", range=[-1, 1], window=[-1000, 1000], unit="HU", sigma_data=0.5),
    "brain": dict(name="brain", channels=2, layout="complex", range=[-1, 1], unit="magnitude, 99.9th percentile = 1",
                  sigma_data=0.25),
}
# Whole volumes kept back, by the beginning of their names.
HELD = {"ct": ["crlm_1004", "sts_010", "sts_020", "sts_030", "sts_040", "phantom_00"], "brain": ["fnndsc_eun", "mr_gd"]}
SIDE = 320
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20)


def body(codes):
    """Where the body is in a CT slice of bytes, without couch and clothes: what stays of its largest part when thin lines go."""
    from scipy import ndimage

    parts, count = ndimage.label(ndimage.binary_opening(codes > 85, iterations=3))
    if count == 0:
        return np.zeros(codes.shape, bool)
    largest = parts == 1 + np.argmax(ndimage.sum_labels(parts > 0, parts, range(1, count + 1)))
    whole = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(largest, 8), iterations=6))[8:-8, 8:-8]
    return ndimage.binary_dilation(whole, iterations=2)


def collect(out, paths):
    """Packs slices [rows, columns] as bytes: CT as HU/8 + 125, heads as they are; 0 outside of every image."""
    import nibabel

    images, bodies, sizes, aspects, names = [], [], [], [], []
    for path in sorted(paths):
        file = nibabel.load(path)
        volume, spacing = np.asarray(file.dataobj).transpose(2, 1, 0), file.header.get_zooms()
        ct = "/ct/" in path or volume.min() < -500
        codes = np.clip(np.round(volume / 8 + 125), 0, 250) if ct else np.clip(volume, 0, 255)
        for image in codes.astype(np.uint8):
            padded = np.zeros((SIDE, SIDE), np.uint8)
            padded[: image.shape[0], : image.shape[1]] = image
            images.append(padded)
            if ct:
                bodies.append(np.packbits(body(padded)))
            sizes.append(image.shape)
            aspects.append(spacing[1] / spacing[0])
            names.append(Path(path).name.split(".")[0])
    more = dict(bodies=np.stack(bodies)) if bodies else {}
    np.savez_compressed(out, images=np.stack(images), **more, sizes=np.array(sizes), aspects=np.array(aspects, np.float32),
                        names=np.array(names))
    print(f"{len(images)} slices of {len(set(names))} volumes: {out}")


class Images:
    """All slices on the device, and random changed crops of them."""

    def __init__(self, kind, path, device, generator, couches):
        import torch

        self.torch, self.kind, self.device, self.generator, self.couches = torch, kind, device, generator, couches
        file = np.load(path)
        names, every = file["names"], np.arange(len(file["names"]))
        held = np.array([any(n.startswith(h) for h in HELD[kind]) for n in names])
        codes = torch.from_numpy(file["images"]).to(device).float()[:, None]
        values = (codes / 125 - 1).clamp(-1, 1) if kind == "ct" else codes / 255
        # What lies outside of an image is 0 here, so that sampling pads with it.
        self.offset = 1.0 if kind == "ct" else 0.0
        self.levels = [values + self.offset]
        if kind == "ct":
            masks = torch.from_numpy(np.unpackbits(file["bodies"], axis=1).reshape(file["images"].shape)).to(device).bool()
            self.bare = self.levels[0] * masks[:, None]
            # The row under the body, and its middle column.
            line = torch.arange(SIDE, device=device)
            self.bottom = (masks.any(2) * line).amax(1).float() + 1
            columns = masks.any(1).float()
            self.middle = (columns * line).sum(1) / columns.sum(1).clamp(min=1)
            self.found = columns.any(1)
        for _ in range(2):
            self.levels.append(torch.nn.functional.avg_pool2d(self.levels[-1], 2))
        self.sizes = torch.from_numpy(file["sizes"]).to(device).float()
        self.aspects = torch.from_numpy(file["aspects"]).to(device)
        self.held = every[held]
        share = np.where(np.char.startswith(names, "sts"), 0.5, np.where(np.char.startswith(names, "phantom"), 0.12, 1.0))
        weights = torch.from_numpy(np.where(held, 0.0, share)).to(device)
        self.weights = weights / weights.sum()
        self.names = names

    def uniform(self, *shape):
        return self.torch.rand(*shape, device=self.device, generator=self.generator)

    def normal(self, *shape):
        return self.torch.randn(*shape, device=self.device, generator=self.generator)

    def smooth(self, batch, channels, cells, size):
        """Random fields of unit variance at the nodes, smooth between them."""
        field = self.normal(batch, channels, cells, cells)
        return self.torch.nn.functional.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)

    def batch(self, count, size):
        torch = self.torch
        index = torch.multinomial(self.weights, count, replacement=True, generator=self.generator)
        column = lambda p: (self.uniform(count) < p).float()  # noqa: E731
        plain = column(0.2)
        moved = 1 - plain
        # Pixels of the image for each pixel of the crop: mostly near one, some finer, some much coarser.
        kind = self.uniform(count)
        near, fine = 0.3 * (2 * self.uniform(count) - 1), -0.3 - 0.5 * self.uniform(count)
        coarse = 0.5 + 0.9 * self.uniform(count)
        # Coarse pixels fill small crops.
        share = 0.3 if size < 200 else 0.02
        rare = torch.where(kind < share, coarse, torch.where(kind < share + 0.08, fine, near))
        log = torch.where(kind < 0.85, rare, 0.0)
        scale = (moved * log).exp()
        stretch = (moved * 0.06 * self.normal(count)).exp()
        angle = moved * column(0.5) * self.normal(count) * math.radians(7)
        angle = angle + column(0.12) * math.pi / 2 * torch.floor(4 * self.uniform(count))
        mirror = 1 - 2 * column(0.5)
        flip = 1 - 2 * column(0.15)
        # Centres: near the middle of what the crop covers whole, else anywhere in the middle three quarters.
        sides = self.sizes[index]
        whole = (size * scale)[:, None] >= 0.95 * sides
        near_middle = 0.5 + 0.16 * (self.uniform(count, 2) - 0.5)
        centre = sides * torch.where(whole, near_middle, 0.12 + 0.76 * self.uniform(count, 2))
        centre = torch.where(plain[:, None] > 0, centre.floor() + 0.5 * (size % 2), centre)
        aspect = torch.where(plain > 0, torch.ones_like(scale), self.aspects[index])
        line = torch.arange(size, device=self.device) - (size / 2 - 0.5)
        y, x = flip[:, None, None] * line[None, :, None], mirror[:, None, None] * line[None, None, :]
        one = lambda a: a[:, None, None]  # noqa: E731
        warp = (moved * column(0.6))[:, None, None, None] * (
            self.smooth(count, 2, 5, size) * (0.03 * size * self.uniform(count))[:, None, None, None]
            + self.smooth(count, 2, 12, size) * (0.008 * size * self.uniform(count))[:, None, None, None]
        )
        y, x = y + warp[:, 0], x + warp[:, 1]
        cos, sin = one(angle.cos()), one(angle.sin())
        column_at = one(centre[:, 1]) - 0.5 + one(scale * stretch) * (cos * x - sin * y)
        row_at = one(centre[:, 0]) - 0.5 + one(scale / stretch / aspect) * (sin * x + cos * y)
        out, bare = None, None
        if self.kind == "ct":
            bare = (self.uniform(count) < self.couches) & self.found[index] & (scale < 1.6)
        for level, source in enumerate(self.levels):
            low, high = (0.0, 1.6, 3.2)[level], (1.6, 3.2, 1e9)[level]
            place = lambda a: (2 * a + 1) / SIDE - 1  # noqa: E731
            grid = torch.stack([place(column_at), place(row_at)], -1)
            values = source[index]
            if level == 0 and bare is not None:
                values = torch.where(bare[:, None, None, None], self.bare[index], values)
            drawn = torch.nn.functional.grid_sample(values, grid, mode="bicubic", align_corners=False)
            mine = one((scale >= low) & (scale < high))[:, None].float()
            out = drawn * mine if out is None else out + drawn * mine
        image = out - self.offset
        if self.kind == "ct":
            couch = self.couch(column_at - one(self.middle[index]), row_at - one(self.bottom[index])) * one(bare.float())
            image = torch.maximum(image, couch[:, None] - self.offset)
            return self.opacities(image.clamp(-1, 1), size)
        return self.complex(image.clamp(0, 1.3), size)

    def couch(self, x, y):
        """A couch at places right of the body's middle and below it, in pixels: two shells, as arcs, with foam between them; 0 is
        air."""
        count = x.shape[0]
        pick = lambda low, high: (low + (high - low) * self.uniform(count))[:, None, None]  # noqa: E731
        half = pick(60, 150)
        x = x - pick(-12, 12)
        rise = pick(0, 45) * (pick(0, 1) < 0.8)
        gap, lift = pick(3, 40), pick(0.2, 1.1)
        found = (pick(0, 0.1) * ((y > 0) & (y < 40)).float()) * (pick(0, 1) < 0.3)
        middle = pick(1, 22)
        shells = []
        for depth, height in ((middle, rise), (middle + gap, rise * lift)):
            slope = (1 + (2 * height * x / half**2) ** 2).sqrt()
            distance = (y - depth + height * (x / half) ** 2) / slope
            line = (pick(0.4, 2.0) - distance.abs() + 0.5).clamp(0, 1) * pick(0.08, 1.2)
            shells.append((distance, line * (pick(0, 1) < 0.92)))
        foam = ((shells[0][0] > 0) & (shells[1][0] < 0)).float() * pick(0, 0.12)
        whole = self.torch.maximum(self.torch.maximum(shells[0][1], shells[1][1]), self.torch.maximum(foam, found))
        return whole * (half - x.abs() + 0.5).clamp(0, 1)

    def opacities(self, image, size):
        """Ground glass and consolidation: smooth random patches in what has the density of lung."""
        torch, count = self.torch, image.shape[0]
        lung = ((image + 0.975) / 0.04).clamp(0, 1) * ((-0.45 - image) / 0.2).clamp(0, 1)
        lung = lung * (torch.nn.functional.avg_pool2d(lung, 9, 1, 4) > 0.4)
        field = sum(a * self.smooth(count, 1, c, size) for c, a in ((7, 0.9), (24, 0.7), (60, 0.5)))
        one = lambda a: a[:, None, None, None]  # noqa: E731
        threshold, amount = one(0.5 + 1.3 * self.uniform(count)), one(0.1 + 0.8 * self.uniform(count))
        change = lung * ((field - threshold) / 0.4).clamp(0, 1) * amount
        wanted = one((self.uniform(count) < 0.3).float())
        return torch.minimum(image + wanted * change, torch.maximum(image, torch.full_like(image, 0.05)))

    def complex(self, magnitude, size):
        torch, count = self.torch, magnitude.shape[0]
        one = lambda a: a[:, None, None, None]  # noqa: E731
        tone = (0.3 * self.normal(count) * (self.uniform(count) < 0.5)).exp()
        magnitude = magnitude.clamp(min=0) ** one(tone)
        line = torch.arange(size, device=self.device) / size
        waves = torch.stack([torch.cos(math.pi * k * line) for k in range(3)])
        def field(amount):  # noqa: E306
            c = one(amount) * self.normal(count, 1, 3, 3) / 3
            return torch.einsum("ncij,ih,jw->nchw", c, waves, waves)
        more = torch.where(self.uniform(count) < 0.2, 2.5, 1.0)
        phase = one(2 * math.pi * self.uniform(count)) + field(1.6 * more)
        size_of = one(0.6 + 0.5 * self.uniform(count)) * field(0.25 * torch.ones(count, device=self.device)).exp()
        value = magnitude * size_of
        return torch.cat([value * phase.cos(), value * phase.sin()], 1)


def levels(images, count, middle):
    """Noise levels: mostly log-normal about `middle`, the mean of ln sigma, some anywhere."""
    torch = images.torch
    some = (middle + 1.4 * images.normal(count)).clamp(math.log(0.004), math.log(100))
    any_ = math.log(0.004) + images.uniform(count) * math.log(100 / 0.004)
    return torch.where(images.uniform(count) < 0.3, any_, some).exp()


def validate(net, images, count=24):
    """Mean PSNR in dB of D(x, sigma) over held-back slices of 256 x 256, for a peak of 2, as `prior eval`."""
    import torch
    from unet import denoise

    held = images.held[np.linspace(0, len(images.held) - 1, count).astype(int)]
    clean = images.levels[0][torch.from_numpy(held).to(images.device)][:, :, :256, :256] - images.offset
    if images.kind == "brain":
        clean = torch.cat([clean, torch.zeros_like(clean)], 1)
    found = {}
    generator = torch.Generator(images.device).manual_seed(1)
    for sigma in SIGMAS:
        noise = torch.randn(clean.shape, device=images.device, generator=generator)
        noisy = clean + sigma * noise
        with torch.no_grad():
            parts = [denoise(net, p, torch.full((len(p),), float(sigma), device=images.device)) for p in noisy.split(8)]
        error = (torch.cat(parts) - clean).square().mean((1, 2, 3))
        found[str(sigma)] = round((10 * (4 / error).log10()).mean().item(), 2)
    return found


def write(path, kind, weights, training):
    from safetensors.torch import save_file

    metadata = dict(format="wellposed-unet-1", config=json.dumps(dict(**CARDS[kind], **NETWORK)),
                    training=json.dumps(training))
    save_file({k: v.detach().cpu().half().contiguous() for k, v in weights.items()}, path, metadata=metadata)


# How to compute, the fastest first: what gives numbers that are not finite is left for the next.
MODES = (dict(compiled=True, bf16=True, fused=True), dict(compiled=False, bf16=True, fused=False),
         dict(compiled=False, bf16=False, fused=False))


class Trainer:
    """A network in training, its moving average, and the running mean of the loss at each noise level."""

    def __init__(self, kind, images, start, batch, rate, mode, middle):
        import torch
        from safetensors.torch import load_file
        from unet import UNet

        self.torch, self.images, self.batch, self.rate, self.middle = torch, images, batch, rate, middle
        self.config, device = dict(**CARDS[kind], **NETWORK), images.device
        net = UNet(self.config)
        if start:
            net.load_state_dict({k: v.float() for k, v in load_file(start).items()})
        self.net = net.to(device, memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.shadow = UNet(self.config).to(device)
        self.edges = torch.linspace(math.log(0.004), math.log(100), 25, device=device)
        self.means = torch.ones(26, device=device)
        self.skipped, self.sum = torch.zeros((), device=device), torch.zeros((), device=device)
        self.step, self.seen = 0, 0
        self.take(mode)

    def take(self, mode):
        """Computes in this way from now on."""
        torch = self.torch
        self.mode, how = mode, MODES[mode]
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_flash_sdp(how["fused"])
        torch.backends.cuda.enable_mem_efficient_sdp(how["fused"])
        self.net.load_state_dict(self.average)
        self.run = torch.compile(self.net) if how["compiled"] else self.net
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

    def advance(self, factor):
        from unet import precondition

        torch, images = self.torch, self.images
        # Small crops, which have other borders and sums, are rare enough to go without compilation.
        small = self.step % 8 == 7
        size, count = (128, 2 * self.batch) if small else (256, self.batch)
        clean = images.batch(count, size)
        sigma = levels(images, count, self.middle)
        c_skip, c_out, c_in, c_noise = (a[:, None, None, None] for a in precondition(sigma, self.config["sigma_data"]))
        noisy = clean + sigma[:, None, None, None] * torch.randn_like(clean)
        target = (clean - c_skip * noisy) / c_out
        net, x = self.net if small else self.run, (c_in * noisy).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device, torch.bfloat16, enabled=MODES[self.mode]["bf16"]):
            value = net(x, c_noise.flatten())
        loss = (value.float() - target).square().mean((1, 2, 3))
        which = torch.bucketize(sigma.log(), self.edges)
        (loss / self.means[which]).mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0, foreach=True)
        with torch.no_grad():
            # A step that is not finite is not taken.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, (~torch.isfinite(norm)).float()
            self.skipped += self.optimizer.found_inf
            loss = torch.where(torch.isfinite(loss), loss, self.means[which])
            self.sum += loss.mean()
            hits = torch.zeros_like(self.means).index_add_(0, which, torch.ones_like(loss))
            here = torch.zeros_like(self.means).index_add_(0, which, loss) / hits.clamp(min=1)
            self.means = self.means * 0.98**hits + here * (1 - 0.98**hits)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self.seen = self.step + 1, self.seen + count * size**2 / 256**2
        state, decay = self.net.state_dict(), (1 - 1 / self.step) ** 17
        torch._foreach_lerp_(list(self.average.values()), [state[k] for k in self.average], 1 - decay)

    def watch(self, steps):
        """The mean loss of the last `steps` steps; goes over to the next way if many of them were not finite."""
        skipped, loss = self.skipped.item(), self.sum.item() / steps
        self.skipped.zero_(), self.sum.zero_()
        if skipped > steps / 4 and self.mode + 1 < len(MODES):
            print(f"step {self.step}: {skipped:.0f} of {steps} steps were not finite by {MODES[self.mode]}", flush=True)
            self.take(self.mode + 1)
        return loss, skipped

    def validate(self):
        self.shadow.load_state_dict(self.average)
        return validate(self.shadow, self.images)


def behind(start):
    """Steps and slices of the training that a file comes from."""
    from safetensors import safe_open

    training = json.loads(safe_open(start, "pt").metadata()["training"]) if start else {}
    return training.get("steps", 0), training.get("slices", 0)


def train(kind, data, out, deadline, start, batch, mode, rate, middle, couches):
    import torch

    steps_before, slices_before = behind(start)
    torch.manual_seed(steps_before)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    images = Images(kind, data, device, torch.Generator(device).manual_seed(steps_before), couches)
    trainer = Trainer(kind, images, start, batch, rate, mode, middle)
    begin, log, lost, halfway, reported = None, [], 0, False, time.time()
    while True:
        part = 0.0 if begin is None else min(1.0, (time.time() - begin) / max(deadline - begin, 1.0))
        # Up for 2 % of the time, level, and down to nothing over the last 45 %.
        trainer.advance(min(1.0, part / 0.02 + 0.02, (1 - part) / 0.45 + 0.005))
        if begin is None:  # the first step compiles
            trainer.sum.item()
            begin = time.time()
        if trainer.step % 32 == 0:
            loss, skipped = trainer.watch(32)
            log.append(round(loss, 5))
            lost += skipped
        if time.time() - reported < (45 if device == "cuda" else 600) and part < 1:
            continue
        reported = time.time()
        psnr = trainer.validate()
        seconds = round(reported - begin)
        last = log[-1] if log else None
        print(f"{kind} {seconds} s: step {trainer.step}, {trainer.seen:.0f} slices, {lost:.0f} lost, loss {last}, {psnr}", flush=True)
        training = dict(steps=steps_before + trainer.step, slices=round(slices_before + trainer.seen), seconds=seconds, batch=batch, rate=rate,
                        middle=middle, couches=couches, mode=trainer.mode,
                        device=torch.cuda.get_device_name() if device == "cuda" else "cpu", loss=log[:: len(log) // 400 + 1],
                        held_back=HELD[kind], validation=dict(step=steps_before + trainer.step, psnr=psnr))
        write(out, kind, trainer.average, training)
        if part > 0.5 and not halfway:
            halfway = True
            write(out.replace(".safetensors", "-half.safetensors"), kind, trainer.average, training)
        if part >= 1:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("data")
    pack.add_argument("out")
    pack.add_argument("volumes", nargs="+")
    go = commands.add_parser("train")
    go.add_argument("kind", choices=CARDS)
    go.add_argument("data")
    go.add_argument("out")
    go.add_argument("--seconds", type=float, default=480, help="from now on, with compilation")
    go.add_argument("--start")
    go.add_argument("--batch", type=int, default=64)
    go.add_argument("--rate", type=float, default=1e-3)
    go.add_argument("--mode", type=int, default=0, help="how to compute: 0 compiled, 1 eager, 2 in TF32")
    go.add_argument("--middle", type=float, default=-0.8, help="mean of ln sigma of most images")
    go.add_argument("--couches", type=float, default=0.45, help="share of CT images laid on a random couch")
    a = parser.parse_args()
    if a.command == "data":
        collect(a.out, a.volumes)
    else:
        train(a.kind, a.data, a.out, time.time() + a.seconds, a.start, a.batch, a.mode, a.rate, a.middle, a.couches)


if __name__ == "__main__":
    main()
