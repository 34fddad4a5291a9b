"""The network of src/prior/network/unet.rs in PyTorch, and the reference of its test.

    python tests/reference/unet.py            # writes tests/reference/unet.safetensors (needs torch, safetensors)

Weights, input and cotangent come from a formula that the test repeats, so that the file holds only outputs.
"""
import json
import math
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIG = dict(
    name="reference", range=[-1, 1], unit="none", sigma_data=0.5, channels=2, patch=2, widths=[16, 32], depths=[1, 2],
    attention=[False, True], groups=8, head=16, embedding=16, frequencies=4,
)


class Res(nn.Module):
    def __init__(s, cin, cout, cfg):
        super().__init__()
        g, e = cfg["groups"], cfg["embedding"]
        s.norm1 = nn.GroupNorm(g, cin, 1e-5); s.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        s.embed = nn.Linear(e, 2 * cout)
        s.norm2 = nn.GroupNorm(g, cout, 1e-5); s.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        s.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None
        with torch.no_grad(): s.conv2.weight.mul_(0.1); s.conv2.bias.zero_(); s.embed.weight.mul_(0.3); s.embed.bias.zero_()
    def forward(s, x, e):
        h = s.conv1(F.silu(s.norm1(x)))
        scale, shift = s.embed(e)[:, :, None, None].chunk(2, 1)
        h = s.conv2(F.silu(s.norm2(h) * (1 + scale) + shift))
        return h + (x if s.shortcut is None else s.shortcut(x))

class Attention(nn.Module):
    def __init__(s, c, cfg):
        super().__init__()
        s.norm = nn.GroupNorm(cfg["groups"], c, 1e-5); s.qkv = nn.Conv2d(c, 3 * c, 1); s.proj = nn.Conv2d(c, c, 1); s.heads = max(1, c // cfg["head"])
        with torch.no_grad(): s.proj.weight.mul_(0.1); s.proj.bias.zero_()
    def forward(s, x):
        b, c, h, w = x.shape
        q, k, v = s.qkv(s.norm(x)).reshape(b, 3, s.heads, c // s.heads, h * w).transpose(-1, -2).unbind(1)
        o = F.scaled_dot_product_attention(q, k, v)
        return x + s.proj(o.transpose(-1, -2).reshape(b, c, h, w))

class Stage(nn.Module):
    def __init__(s, cin, cout, attn, cfg):
        super().__init__(); s.res = Res(cin, cout, cfg); s.attention = Attention(cout, cfg) if attn else None
    def forward(s, x, e):
        x = s.res(x, e); return x if s.attention is None else s.attention(x)

class UNet(nn.Module):
    def __init__(s, cfg):
        super().__init__(); s.cfg = cfg
        ws, p, e = cfg["widths"], cfg["patch"], cfg["embedding"]; c = cfg["channels"] * p * p
        s.embed1 = nn.Linear(2 * cfg["frequencies"], e); s.embed2 = nn.Linear(e, e)
        s.conv_in = nn.Conv2d(c, ws[0], 3, padding=1)
        s.down, s.encoder, s.decoder, s.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, w in enumerate(ws):
            if i: s.down.append(nn.Conv2d(ws[i - 1], w, 3, stride=2, padding=1))
            s.encoder.append(nn.ModuleList(Stage(w, w, cfg["attention"][i], cfg) for _ in range(cfg["depths"][i])))
        s.middle = nn.ModuleList([Stage(ws[-1], ws[-1], True, cfg), Stage(ws[-1], ws[-1], False, cfg)])
        for i, w in enumerate(ws):
            s.decoder.append(nn.ModuleList(Stage(2 * w, w, cfg["attention"][i], cfg) for _ in range(cfg["depths"][i])))
            if i: s.up.append(nn.Conv2d(w, ws[i - 1], 1))
        s.norm_out = nn.GroupNorm(cfg["groups"], ws[0], 1e-5); s.conv_out = nn.Conv2d(ws[0], c, 3, padding=1)
        with torch.no_grad(): s.conv_out.weight.mul_(0.1); s.conv_out.bias.zero_()
    def embedding(s, c_noise):
        f = torch.exp(torch.linspace(math.log(0.5), math.log(64.0), s.cfg["frequencies"], device=c_noise.device))
        a = c_noise[:, None] * f[None]
        return F.silu(s.embed2(F.silu(s.embed1(torch.cat([a.cos(), a.sin()], 1)))))
    def forward(s, x, c_noise):
        e = s.embedding(c_noise)
        h = s.conv_in(F.pixel_unshuffle(x, s.cfg["patch"])); skips = []
        for i, level in enumerate(s.encoder):
            if i: h = s.down[i - 1](h)
            for stage in level: h = stage(h, e); skips.append(h)
        for stage in s.middle: h = stage(h, e)
        for i in reversed(range(len(s.decoder))):
            for stage in s.decoder[i]: h = stage(torch.cat([h, skips.pop()], 1), e)
            if i: h = F.interpolate(s.up[i - 1](h), scale_factor=2.0, mode="nearest")
        return F.pixel_shuffle(s.conv_out(F.silu(s.norm_out(h))), s.cfg["patch"])

def precondition(sigma, sd=0.5):
    return sd**2 / (sigma**2 + sd**2), sigma * sd / (sigma**2 + sd**2).sqrt(), 1 / (sigma**2 + sd**2).sqrt(), sigma.log() / 4

def denoise(net, x, sigma):
    skip, out, cin, noise = precondition(sigma, net.cfg["sigma_data"])
    v = lambda a: a[:, None, None, None]
    return v(skip) * x + v(out) * net(v(cin) * x, noise).float()


if __name__ == "__main__":
    from record import draw
    from safetensors.torch import save_file

    net = UNet(CONFIG)
    with torch.no_grad():
        for name, p in net.named_parameters():
            fan = math.prod(p.shape[1:]) if p.dim() > 1 else 4
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            p.copy_(offset + draw(name, p.shape) / math.sqrt(fan))
    x = draw("x", (2, 2, 12, 8)).requires_grad_()
    y = net(x, torch.full((2,), -0.37))
    (vjp,) = torch.autograd.grad((y * draw("g", y.shape)).sum(), x)
    path = Path(__file__).with_suffix(".safetensors")
    save_file({"y": y.detach().contiguous(), "vjp": vjp.contiguous()}, path, metadata={"config": json.dumps(CONFIG)})
    print(path, y.std().item(), vjp.std().item())
