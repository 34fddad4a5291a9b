"""What the reference scripts of networks share: weights from a formula, and files that hold outputs only."""
import json
import math
from pathlib import Path

import numpy as np
import torch


def draw(name, shape):
    """Numbers in [-1, 1) from the name and the element's index: FNV-1a, then SplitMix64."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def weight(name, shape):
    """A weight: of variance about 1/inputs; normalisations around 1."""
    fan = math.prod(shape[1:]) if len(shape) > 1 else 4
    offset = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
    return offset + draw(name, shape) / math.sqrt(fan)


def fill(net):
    """Gives a network the weights of the formula."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(weight(name, tuple(p.shape)))
    return net.eval()


def record(path, cases):
    """cases: name -> (config, function of x and times, shape of x, times); writes value and gradient of each."""
    from safetensors.torch import save_file

    tensors, configs = {}, {}
    for name, (config, function, shape, times) in cases.items():
        x = draw("x", shape).requires_grad_()
        y = function(x, torch.tensor(times))
        (vjp,) = torch.autograd.grad((y * draw("g", tuple(y.shape))).sum(), x)
        tensors[f"{name}.y"], tensors[f"{name}.vjp"] = y.detach().contiguous(), vjp.contiguous()
        configs[name] = json.dumps(dict(config=config, times=times))
        print(name, tuple(y.shape), y.std().item(), vjp.std().item())
    save_file(tensors, Path(path).with_suffix(".safetensors"), metadata=configs)
