"""Reference of src/prior/network/guided.rs: the U-net of guided-diffusion (ADM), written down from the paper (Dhariwal &
Nichol 2021) and the names in its published files.

    python tests/reference/guided.py             # needs torch, safetensors
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from record import fill, record


class Pass(nn.Module):
    """Holds a place in a sequence."""
    def forward(self, x):
        return x


class Block(nn.Module):
    def __init__(self, cin, cout, emb, scale_shift, resample=None):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * cout if scale_shift else cout))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, cout), nn.SiLU(), Pass(), nn.Conv2d(cout, cout, 3, padding=1))
        self.skip_connection = Pass() if cin == cout else nn.Conv2d(cin, cout, 1)
        self.scale_shift, self.resample = scale_shift, resample

    def forward(self, x, emb):
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.in_layers[2](h)
        e = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + e)
        return self.skip_connection(x) + self.out_layers[1:](h)


class Attention(nn.Module):
    def __init__(self, c, heads, new_order):
        super().__init__()
        self.norm, self.qkv, self.proj_out = nn.GroupNorm(32, c), nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1)
        self.heads, self.new_order = heads, new_order

    def forward(self, x):
        b, c, h, w = x.shape
        flat = x.reshape(b, c, h * w)
        qkv, d = self.qkv(self.norm(flat)), c // self.heads
        if self.new_order:  # q of all heads, k of all heads, v of all heads
            q, k, v = qkv.reshape(b, 3, self.heads, d, h * w).unbind(1)
        else:  # q, k, v of each head
            q, k, v = qkv.reshape(b, self.heads, 3, d, h * w).unbind(2)
        weights = torch.einsum("bhct,bhcs->bhts", q, k).div(math.sqrt(d)).softmax(-1)
        out = torch.einsum("bhts,bhcs->bhct", weights, v).reshape(b, c, h * w)
        return (flat + self.proj_out(out)).reshape(b, c, h, w)


class Down(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, stride=2, padding=1)
    def forward(self, x):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2))


class Parts(nn.Sequential):
    def forward(self, x, emb):
        for part in self:
            x = part(x, emb) if isinstance(part, Block) else part(x)
        return x


class UNet(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        ch, mult = cfg["num_channels"], [int(m) for m in cfg["channel_mult"].split(",")]
        emb, n = 4 * ch, cfg["num_res_blocks"]
        ds_attention = [cfg["image_size"] // int(r) for r in cfg["attention_resolutions"].split(",")]
        self.ch = ch
        self.time_embed = nn.Sequential(nn.Linear(ch, emb), nn.SiLU(), nn.Linear(emb, emb))
        if cfg.get("class_cond"):
            self.label_emb = nn.Embedding(1000, emb)
        def block(cin, cout, resample=None):
            return Block(cin, cout, emb, cfg["use_scale_shift_norm"], resample)
        def attention(c):
            heads = c // cfg["num_head_channels"] if cfg.get("num_head_channels", -1) > 0 else cfg["num_heads"]
            return Attention(c, heads, cfg["use_new_attention_order"])
        c = mult[0] * ch
        self.input_blocks, self.output_blocks = nn.ModuleList(), nn.ModuleList()
        self.input_blocks.append(Parts(nn.Conv2d(cfg["in_channels"], c, 3, padding=1)))
        skips, ds = [c], 1
        for level, m in enumerate(mult):
            for _ in range(n):
                parts = [block(c, m * ch)]
                c = m * ch
                if ds in ds_attention:
                    parts.append(attention(c))
                self.input_blocks.append(Parts(*parts))
                skips.append(c)
            if level + 1 < len(mult):
                self.input_blocks.append(Parts(block(c, c, "down") if cfg["resblock_updown"] else Down(c)))
                skips.append(c)
                ds *= 2
        self.middle_block = Parts(block(c, c), attention(c), block(c, c))
        for level, m in reversed(list(enumerate(mult))):
            for j in range(n + 1):
                parts = [block(c + skips.pop(), m * ch)]
                c = m * ch
                if ds in ds_attention:
                    parts.append(attention(c))
                if level and j == n:
                    parts.append(block(c, c, "up") if cfg["resblock_updown"] else Up(c))
                    ds //= 2
                self.output_blocks.append(Parts(*parts))
        out = cfg["in_channels"] * (2 if cfg["learn_sigma"] else 1)
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, out, 3, padding=1))

    def forward(self, x, t, label=None):
        half = self.ch // 2
        a = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
        emb = self.time_embed(torch.cat([a.cos(), a.sin()], 1))
        if label is not None:
            emb = emb + self.label_emb(torch.full((len(x),), label))
        h, hs = x, []
        for part in self.input_blocks:
            h = part(h, emb)
            hs.append(h)
        h = self.middle_block(h, emb)
        for part in self.output_blocks:
            h = part(torch.cat([h, hs.pop()], 1), emb)
        return self.out(h)


SMALL = dict(
    image_size=16, in_channels=1, num_channels=32, num_res_blocks=1, channel_mult="1,2", attention_resolutions="8", num_heads=2,
    use_scale_shift_norm=True, resblock_updown=True, use_new_attention_order=False, learn_sigma=True,
)
CASES = dict(
    legacy=SMALL,
    plain=dict(
        SMALL, in_channels=2, num_res_blocks=2, channel_mult="1,1", use_scale_shift_norm=False, resblock_updown=False,
        use_new_attention_order=True, num_head_channels=16, learn_sigma=False, attention_resolutions="16,8",
    ),
)


def case(config):
    net = fill(UNet(config))
    return config, net, (2, config["in_channels"], 16, 16), [37.0, 512.0]


if __name__ == "__main__":
    record(__file__, {name: case(config) for name, config in CASES.items()})
