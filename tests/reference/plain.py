"""Reference of src/prior/network/plain.rs: DnCNN and DRUNet, written down from their papers (Zhang et al. 2017, 2021) and
the names in the published files; and a checkpoint of torch.save with score-SDE's list of averages.

    python tests/reference/plain.py              # needs torch, safetensors
"""
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn as nn
from record import draw, fill, record


class DnCNN(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width = [cfg["in_nc"]] + [cfg["nc"]] * (cfg["nb"] - 1) + [cfg["in_nc"]]
        layers = []
        for a, b in zip(width, width[1:]):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x, t):
        return self.model(x)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.res = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1, bias=False))

    def forward(self, x):
        return x + self.res(x)


class DRUNet(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        nc, nb = cfg["nc"], cfg["nb"]
        self.depth = len(nc) - 1
        self.m_head = nn.Conv2d(cfg["in_nc"] + 1, nc[0], 3, padding=1, bias=False)
        for i in range(self.depth):
            down = [Block(nc[i]) for _ in range(nb)] + [nn.Conv2d(nc[i], nc[i + 1], 2, stride=2, bias=False)]
            up = [nn.ConvTranspose2d(nc[i + 1], nc[i], 2, stride=2, bias=False)] + [Block(nc[i]) for _ in range(nb)]
            setattr(self, f"m_down{i + 1}", nn.Sequential(*down))
            setattr(self, f"m_up{i + 1}", nn.Sequential(*up))
        self.m_body = nn.Sequential(*[Block(nc[-1]) for _ in range(nb)])
        self.m_tail = nn.Conv2d(nc[0], cfg["in_nc"], 3, padding=1, bias=False)

    def forward(self, x, t):
        level = t[:, None, None, None].expand(-1, 1, *x.shape[2:])
        skips = [self.m_head(torch.cat([x, level], 1))]
        for i in range(self.depth):
            skips.append(getattr(self, f"m_down{i + 1}")(skips[-1]))
        h = self.m_body(skips[-1])
        for i in reversed(range(self.depth)):
            h = getattr(self, f"m_up{i + 1}")(h + skips[i + 1])
        return self.m_tail(h + skips[0])


def checkpoint(path):
    """A state dict under `model` with names of DataParallel, a strided tensor, buffers, and other averages."""
    model = OrderedDict([
        ("module.sigmas", draw("sigmas", (5,))),
        ("module.all_modules.0.W", draw("W", (4,))),
        ("module.all_modules.1.weight", draw("weight", (6, 4)).t()),
        ("module.all_modules.1.bias", draw("bias", (4,)).half()),
    ])
    averages = [draw("average weight", (4, 6)), draw("average bias", (4,))]
    torch.save(dict(model=model, ema=dict(decay=0.999, num_updates=7, shadow_params=averages), step=7), path)


if __name__ == "__main__":
    dncnn = dict(in_nc=1, nc=16, nb=4, sigma=0.1)
    drunet = dict(in_nc=1, nc=[16, 24, 32], nb=1)
    shape, times = (2, 1, 8, 8), [0.1, 0.4]
    record(__file__, dict(
        dncnn=(dncnn, fill(DnCNN(dncnn)), shape, times),
        drunet=(drunet, fill(DRUNet(drunet)), shape, times),
    ))
    checkpoint(Path(__file__).with_name("averages.pth"))
