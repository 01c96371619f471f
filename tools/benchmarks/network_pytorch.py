"""Time the same network in PyTorch: `python -m tools.benchmarks.network_pytorch PRECISION LAYOUT SIZE,BATCH ...`.

Prints images a second as JSON. LAYOUT is contiguous, channels_last, or compiled (channels_last under torch.compile).
With `ceiling` as the only argument it prints the billions of operations a second of a large matrix product instead.
"""

import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional

WARM_UP, STEPS = 2, 7


def two_convolutions(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(channels_out),
    )


class UNet(nn.Module):
    """The course's network, layer for layer; answers with logits."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([two_convolutions(1, 32), two_convolutions(32, 64), two_convolutions(64, 128)])
        self.bottom = two_convolutions(128, 256)
        self.transpose = nn.ModuleList([nn.ConvTranspose2d(2 * n, n, 2, 2) for n in (128, 64, 32)])
        self.up = nn.ModuleList([two_convolutions(2 * n, n) for n in (128, 64, 32)])
        self.mask = nn.Conv2d(32, 1, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for transpose, block in zip(self.transpose, self.up):
            x = block(torch.cat([transpose(x), skips.pop()], dim=1))
        return self.mask(x)


def bce_dice_loss(truth, logits):
    """Return the course's loss, from logits: faster and safer in PyTorch than from probabilities."""
    probability = torch.sigmoid(logits)
    soft_dice = (2 * (truth * probability).sum() + 1) / ((truth**2).sum() + (probability**2).sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth) + 1 - soft_dice


def median_seconds(step):
    times = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


def ceiling():
    """Return GFLOP/s of a square matrix product, by number format."""
    result, size = {}, 3072
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
        result[name] = 2 * size**3 / median_seconds(lambda a=a, b=b: a @ b) / 1e9
    return result


def time_case(size, batch_size, precision, layout):
    """Return images a second in training and in prediction."""
    model, X = UNet(), torch.rand(batch_size, 1, size, size)
    y = (X > 0.95).float()
    if layout != "contiguous":
        model, X = model.to(memory_format=torch.channels_last), X.contiguous(memory_format=torch.channels_last)
    network = torch.compile(model) if layout == "compiled" else model
    optimizer = torch.optim.Adam(model.parameters(), 0.001)
    arithmetic = torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed_bfloat16")

    def train():
        optimizer.zero_grad(set_to_none=True)
        with arithmetic:
            logits = network(X)
        bce_dice_loss(y, logits.float()).backward()
        optimizer.step()

    def predict():
        with torch.inference_mode(), arithmetic:
            return torch.sigmoid(network(X).float())

    training = batch_size / median_seconds(train)
    model.eval()
    return {"training": training, "prediction": batch_size / median_seconds(predict)}


if __name__ == "__main__":
    if sys.argv[1] == "ceiling":
        print(json.dumps(ceiling()))
    else:
        precision, layout, *cases = sys.argv[1:]
        torch.manual_seed(0)
        print(json.dumps({case: time_case(*map(int, case.split(",")), precision, layout) for case in cases}))
