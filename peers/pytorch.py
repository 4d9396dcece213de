"""The same HydraLoRA adapter in PyTorch, without the frozen layer. Prints the same table as the Rust program.

Needs torch and nothing else; `cargo xtask peers` runs it for the shapes that it has measured in Rust.
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn.functional import linear

ELEMENTS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# The forms' results may differ by this part of the largest.
TOLERANCES = {"f32": 1e-3, "bf16": 5e-2, "f16": 1e-2}
SCALING = 2.0
INPUTS = 3


def official(x, a, router, *b):
    """The operations of the released code: every expert for itself, from x."""
    gates = torch.softmax(linear(x, router), -1, dtype=torch.float32).to(x.dtype)
    y = 0
    for expert, b_i in enumerate(b):
        y = y + gates[:, expert, None] * linear(linear(x, a), b_i) * SCALING
    return y


def concatenated(x, shrink, expand, experts):
    """The fewest operations: A beside the router in one product, all experts in another."""
    h, logits = linear(x, shrink).tensor_split([-experts], -1)
    gates = torch.softmax(logits, -1, dtype=torch.float32).to(x.dtype)
    outer = gates[:, :, None] * (SCALING * h)[:, None, :]
    return linear(outer.flatten(1), expand)


class Contender:
    """A form with its parameters."""

    def __init__(self, name, form, parameters):
        self.name, self.form = name, form
        self.parameters = [parameter.requires_grad_() for parameter in parameters]

    def forward(self, x, g):
        with torch.no_grad():
            return [self.form(x, *self.parameters)]

    def step(self, x, g):
        y = self.form(x, *self.parameters)
        dx, *gradients = torch.autograd.grad(y, [x, *self.parameters], g)
        return [y.detach(), dx, *gradients]


def random(rows, columns, options):
    return torch.rand(rows, columns, dtype=ELEMENTS[options.dtype], device=options.device) * 2 - 1


def contenders(shape, options):
    """Every form of one adapter."""
    _, d_in, d_out, rank, experts = shape

    a, router = [random(rows, d_in, options) * d_in**-0.5 for rows in (rank, experts)]
    b = [random(d_out, rank, options) for _ in range(experts)]
    few = [torch.cat([a, router]), torch.cat(b, 1)]

    def form(x, shrink, expand):
        return concatenated(x, shrink, expand, experts)

    yield Contender("pytorch official", official, [a, router, *b])
    yield Contender("pytorch concatenated", form, few)
    if options.compile:
        # Otherwise the second shape would be compiled for any.
        torch.compiler.reset()
        yield Contender("pytorch compiled", torch.compile(form, dynamic=False), few)


def synchronize(device):
    if device != "cpu":
        torch.accelerator.synchronize()


def measure(passes, inputs, g, options):
    """Median milliseconds of each pass, in turn and on changing inputs; and what each computes."""
    for run in passes:
        for x in 2 * inputs:
            run(x, g)
    synchronize(options.device)
    times = [[] for _ in passes]
    begin, rounds = time.perf_counter(), 0
    while rounds < 5 or time.perf_counter() - begin < options.seconds:
        for run, milliseconds in zip(passes, times):
            start = time.perf_counter()
            run(inputs[rounds % INPUTS], g)
            synchronize(options.device)
            milliseconds.append(1e3 * (time.perf_counter() - start))
        rounds += 1
    return [statistics.median(milliseconds) for milliseconds in times], [run(inputs[0], g) for run in passes]


def check(results, options):
    """All forms compute the same as the first."""
    (y, dx, a, router, *b), *others = results
    expected = [y, dx, torch.cat([a, router]), torch.cat(b, 1)]
    for result in others:
        for name, left, right in zip(["y", "dx", "d[A; W_g]", "dB"], expected, result, strict=True):
            apart, largest = (left - right).abs().max().item(), left.abs().max().item()
            if not apart <= TOLERANCES[options.dtype] * largest:
                raise SystemExit(f"the forms disagree: {name} by {apart} of {largest}")


def rows(shape, options):
    """The table's rows for one shape."""
    tokens, d_in, d_out, _, _ = shape
    forms = list(contenders(shape, options))
    # As in Rust, the gradient of the outputs is one everywhere.
    g = torch.ones(tokens, d_out, dtype=ELEMENTS[options.dtype], device=options.device)
    inputs = [random(tokens, d_in, options).requires_grad_() for _ in range(INPUTS)]
    forwards, _ = measure([form.forward for form in forms], inputs, g, options)
    steps, results = measure([form.step for form in forms], inputs, g, options)
    check(results, options)
    for form, forward, step in zip(forms, forwards, steps):
        yield {
            "implementation": form.name,
            "shape": ",".join(map(str, shape)),
            "element": options.dtype,
            "device": options.name,
            "forward_ms": forward,
            "step_ms": step,
        }


def compiles(options):
    """Whether torch.compile works here; says why not."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=options.device))
    except Exception as error:
        print(f"torch.compile is left out: {str(error).splitlines()[0]}\n")
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape",
        action="append",
        required=True,
        metavar="TOKENS,D_IN,D_OUT,RANK,EXPERTS",
        type=lambda text: tuple(map(int, text.split(","))),
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=ELEMENTS, default="f32")
    parser.add_argument("--seconds", type=float, default=2.0, help="measure each pass for at least this long")
    parser.add_argument("--json", metavar="FILE", help="also write the rows into this file, an object a line")
    options = parser.parse_args()

    torch.manual_seed(0)
    processor = f"the CPU, {torch.get_num_threads()} threads"
    if options.device == "cuda":
        processor = torch.cuda.get_device_name()
    options.name = f"PyTorch {torch.__version__} on {processor}"
    print(f"{options.name}\n")
    options.compile = compiles(options)
    print("| implementation | shape | element | forward ms | forward+backward ms |\n|---|---|---|---|---|")
    file = open(options.json, "w", encoding="utf-8") if options.json else None
    for shape in options.shape:
        for row in rows(shape, options):
            implementation, name, element, _, forward, step = row.values()
            print(f"| {implementation} | {name} | {element} | {forward:.3f} | {step:.3f} |", flush=True)
            if file:
                print(json.dumps(row), file=file, flush=True)


if __name__ == "__main__":
    main()
