"""Reference of src/prior/network/ncsnpp.rs: NCSN++, written down from the paper (Song et al. 2021), the FIR filters of
StyleGAN2 (Karras et al. 2020) and the names in the published files.

    python tests/reference/ncsnpp.py             # needs torch, safetensors
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from record import fill, record


def fir(x, pad, gain):
    """The separable filter [1, 3, 3, 1], of sum `gain`."""
    k = torch.tensor([1.0, 3.0, 3.0, 1.0])
    k = torch.outer(k, k) / 64 * gain
    c = x.shape[1]
    return F.conv2d(F.pad(x, (pad[0], pad[1], pad[0], pad[1])), k.expand(c, 1, 4, 4), groups=c)


def up(x, use_fir):
    if not use_fir:
        return F.interpolate(x, scale_factor=2)
    b, c, h, w = x.shape
    z = torch.zeros(b, c, 2 * h, 2 * w)
    z[:, :, ::2, ::2] = x
    return fir(z, (2, 1), 4.0)


def down(x, use_fir):
    return fir(x, (1, 1), 1.0)[:, :, ::2, ::2] if use_fir else F.avg_pool2d(x, 2)


def norm(c):
    return nn.GroupNorm(min(c // 4, 32), c, eps=1e-6)


class NIN(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.zeros(cin, cout)), nn.Parameter(torch.zeros(cout))
    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[None, :, None, None]


class Attention(nn.Module):
    def __init__(self, c, scale):
        super().__init__()
        self.GroupNorm_0 = norm(c)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = NIN(c, c), NIN(c, c), NIN(c, c), NIN(c, c)
        self.scale = scale
    def forward(self, x):
        b, c, h, w = x.shape
        y = self.GroupNorm_0(x)
        q, k, v = self.NIN_0(y), self.NIN_1(y), self.NIN_2(y)
        weights = torch.einsum("bchw,bcij->bhwij", q, k) / math.sqrt(c)
        weights = weights.reshape(b, h, w, h * w).softmax(-1).reshape(b, h, w, h, w)
        return (x + self.NIN_3(torch.einsum("bhwij,bcij->bchw", weights, v))) * self.scale


class Block(nn.Module):
    def __init__(self, cin, cout, cfg, resample=None):
        super().__init__()
        self.GroupNorm_0, self.Conv_0 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.Dense_0 = nn.Linear(4 * cfg["nf"], cout)
        self.GroupNorm_1, self.Conv_1 = norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        if cfg["resblock_type"] == "biggan":
            if cin != cout or resample:
                self.Conv_2 = nn.Conv2d(cin, cout, 1)
        elif cin != cout:
            self.NIN_0 = NIN(cin, cout)
        self.resample, self.fir = resample, cfg["fir"]
        self.scale = 1 / math.sqrt(2) if cfg["skip_rescale"] else 1.0
    def forward(self, x, e):
        h = F.silu(self.GroupNorm_0(x))
        if self.resample:
            change = up if self.resample == "up" else down
            h, x = change(h, self.fir), change(x, self.fir)
        h = self.Conv_0(h) + self.Dense_0(F.silu(e))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        x = self.Conv_2(x) if hasattr(self, "Conv_2") else self.NIN_0(x) if hasattr(self, "NIN_0") else x
        return (x + h) * self.scale


class Holder(nn.Module):
    """A convolution under a name."""
    def __init__(self, name, conv):
        super().__init__()
        setattr(self, name, conv)
        self.name = name
    def forward(self, x):
        return getattr(self, self.name)(x)


class Frequencies(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(n))


class Net(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.all_modules = nn.ModuleList()
        add = self.all_modules.append
        nf, mult, n, chans = cfg["nf"], cfg["ch_mult"], cfg["num_res_blocks"], cfg["num_channels"]
        scale = 1 / math.sqrt(2) if cfg["skip_rescale"] else 1.0
        biggan = cfg["resblock_type"] == "biggan"
        attends = lambda level: cfg["image_size"] // 2**level in cfg["attn_resolutions"]
        features = nf
        if cfg["embedding_type"] == "fourier":
            add(Frequencies(nf))
            features = 2 * nf
        add(nn.Linear(features, 4 * nf)); add(nn.Linear(4 * nf, 4 * nf))
        add(nn.Conv2d(chans, nf, 3, padding=1))
        skips, c, image = [nf], nf, chans
        for level, m in enumerate(mult):
            for _ in range(n):
                add(Block(c, m * nf, cfg)); c = m * nf
                if attends(level):
                    add(Attention(c, scale))
                skips.append(c)
            if level + 1 < len(mult):
                if biggan:
                    add(Block(c, c, cfg, "down"))
                else:
                    add(Holder("Conv_0", nn.Conv2d(c, c, 3, stride=2)) if cfg["resamp_with_conv"] else nn.Identity())
                if cfg["progressive_input"] == "input_skip":
                    add(Holder("Conv_0", nn.Conv2d(image, c, 1)))
                    if cfg["progressive_combine"] == "cat":
                        c *= 2
                elif cfg["progressive_input"] == "residual":
                    add(Holder("Conv2d_0" if cfg["fir"] else "Conv_0", nn.Conv2d(image, c, 3, stride=2)))
                    image = c
                skips.append(c)
        add(Block(c, c, cfg)); add(Attention(c, scale)); add(Block(c, c, cfg))
        for level, m in reversed(list(enumerate(mult))):
            for _ in range(n + 1):
                add(Block(c + skips.pop(), m * nf, cfg)); c = m * nf
            if attends(level):
                add(Attention(c, scale))
            if cfg["progressive"] == "output_skip":
                add(norm(c)); add(nn.Conv2d(c, chans, 3, padding=1))
            if level:
                if biggan:
                    add(Block(c, c, cfg, "up"))
                else:
                    add(Holder("Conv_0", nn.Conv2d(c, c, 3, padding=1)) if cfg["resamp_with_conv"] else nn.Identity())
        if cfg["progressive"] == "none":
            add(norm(c)); add(nn.Conv2d(c, chans, 3, padding=1))

    def forward(self, x, t):
        cfg, parts = self.cfg, iter(self.all_modules)
        biggan, with_conv = cfg["resblock_type"] == "biggan", cfg["resamp_with_conv"]
        attends = lambda level: cfg["image_size"] // 2**level in cfg["attn_resolutions"]
        scale = 1 / math.sqrt(2) if cfg["skip_rescale"] else 1.0
        if cfg["embedding_type"] == "fourier":
            a = t.log()[:, None] * next(parts).W[None] * 2 * math.pi
        else:
            half = cfg["nf"] // 2
            a = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))[None]
        e = next(parts)(torch.cat([a.sin(), a.cos()], 1))
        e = next(parts)(F.silu(e))
        if not cfg["centered"]:
            x = 2 * x - 1
        image, hs = x, [next(parts)(x)]
        for level in range(len(cfg["ch_mult"])):
            for _ in range(cfg["num_res_blocks"]):
                h = next(parts)(hs[-1], e)
                if attends(level):
                    h = next(parts)(h)
                hs.append(h)
            if level + 1 < len(cfg["ch_mult"]):
                part, h = next(parts), hs[-1]
                h = part(h, e) if biggan else part(F.pad(h, (0, 1, 0, 1))) if with_conv else down(h, cfg["fir"])
                if cfg["progressive_input"] == "input_skip":
                    image = down(image, cfg["fir"])
                    y = next(parts)(image)
                    h = torch.cat([y, h], 1) if cfg["progressive_combine"] == "cat" else y + h
                elif cfg["progressive_input"] == "residual":
                    image = next(parts)(fir(image, (2, 2), 1.0) if cfg["fir"] else F.pad(image, (0, 1, 0, 1)))
                    image = h = (image + h) * scale
                hs.append(h)
        h = next(parts)(hs[-1], e)
        h = next(parts)(h)
        h = next(parts)(h, e)
        pyramid = None
        for level in reversed(range(len(cfg["ch_mult"]))):
            for _ in range(cfg["num_res_blocks"] + 1):
                h = next(parts)(torch.cat([h, hs.pop()], 1), e)
            if attends(level):
                h = next(parts)(h)
            if cfg["progressive"] == "output_skip":
                y = F.silu(next(parts)(h))
                y = next(parts)(y)
                pyramid = y if pyramid is None else up(pyramid, cfg["fir"]) + y
            if level:
                part = next(parts)
                h = part(h, e) if biggan else part(up(h, False)) if with_conv else up(h, cfg["fir"])
        if cfg["progressive"] == "none":
            h = F.silu(next(parts)(h))
            pyramid = next(parts)(h)
        return pyramid / t[:, None, None, None] if cfg["scale_by_sigma"] else pyramid


SMALL = dict(
    image_size=16, num_channels=1, centered=False, nf=16, ch_mult=[1, 2], num_res_blocks=1, attn_resolutions=[8],
    resamp_with_conv=True, fir=True, fir_kernel=[1, 3, 3, 1], skip_rescale=True, resblock_type="biggan",
    progressive="output_skip", progressive_input="input_skip", progressive_combine="sum", embedding_type="fourier",
    scale_by_sigma=True,
)
CASES = dict(
    pyramids=dict(SMALL, ch_mult=[1, 1, 2]),
    residual=dict(
        SMALL, num_channels=2, progressive="none", progressive_input="residual", embedding_type="positional",
        centered=True, scale_by_sigma=False, attn_resolutions=[16],
    ),
    ddpm=dict(
        SMALL, resblock_type="ddpm", fir=False, skip_rescale=False, progressive_combine="cat", progressive="none",
        num_res_blocks=2,
    ),
    plain=dict(SMALL, resblock_type="ddpm", fir=True, resamp_with_conv=False, progressive_input="none"),
)


def case(config):
    net = fill(Net(config))
    return config, net, (2, config["num_channels"], 16, 16), [0.7, 23.0]


if __name__ == "__main__":
    record(__file__, {name: case(config) for name, config in CASES.items()})
