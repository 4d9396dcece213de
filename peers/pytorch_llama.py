"""A LLaMA model of random numbers in PyTorch, with HydraLoRA on gate, up and down: a step of training and a token that is
generated, as `hydralora-llama --shape NAME --profile` measures them. Prints a table.

Everything has one element type, where hydralora's activations and adapters are f32. torch.compile has its default mode, without CUDA
graphs. Needs torch and nothing else.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy, embedding, linear, rms_norm, scaled_dot_product_attention, silu

from pytorch import ELEMENTS, compiles, concatenated, official, synchronize

# blocks, width, hidden, heads, heads of keys, elements of a head, tokens
SHAPES = {
    "smollm2-135m": (30, 576, 1536, 9, 3, 64, 49152),
    "llama-3.2-1b": (16, 2048, 8192, 32, 8, 64, 128256),
    "llama-2-7b": (32, 4096, 11008, 32, 32, 128, 32000),
    "llama-3.1-8b": (32, 4096, 14336, 32, 8, 128, 128256),
}
SEQUENCES = 4
RANK, EXPERTS = 4, 4
FORMS = {"official": official, "concatenated": concatenated}


def frozen(rows, columns, options):
    """A matrix that keeps the size of what it is multiplied with."""
    return torch.randn(rows, columns, dtype=options.element, device=options.device) * columns**-0.5


class Adapter(nn.Module):
    """HydraLoRA beside one frozen matrix."""

    def __init__(self, d_in, d_out, form, options):
        super().__init__()
        a, router = [frozen(rows, d_in, options) for rows in (RANK, EXPERTS)]
        b = [torch.zeros(d_out, RANK, dtype=options.element, device=options.device) for _ in range(EXPERTS)]
        few = [torch.cat([a, router]), torch.cat(b, 1)]
        self.form = form
        self.own = nn.ParameterList([a, router, *b] if form == "official" else few)

    def forward(self, x):
        rows = x.flatten(0, 1)
        more = [EXPERTS] if self.form == "concatenated" else []
        return FORMS[self.form](rows, *self.own, *more).view(*x.shape[:2], -1)


class Linear(nn.Module):
    """A frozen matrix, with an adapter or without."""

    def __init__(self, d_in, d_out, form, options):
        super().__init__()
        self.register_buffer("weight", frozen(d_out, d_in, options))
        self.adapter = Adapter(d_in, d_out, form, options) if form else None

    def forward(self, x):
        y = linear(x, self.weight)
        return y if self.adapter is None else y + self.adapter(x)


def turned(x, angles):
    """RoPE, with the pairs of a head half a head apart."""
    cosine, sine = angles
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class Block(nn.Module):
    def __init__(self, shape, form, options):
        super().__init__()
        _, width, hidden, heads, key_heads, head, _ = shape
        self.heads, self.key_heads, self.head = heads, key_heads, head
        for name in ("attention_norm", "norm"):
            self.register_buffer(name, torch.ones(width, dtype=options.element, device=options.device))
        self.query = Linear(width, heads * head, None, options)
        self.key = Linear(width, key_heads * head, None, options)
        self.value = Linear(width, key_heads * head, None, options)
        self.output = Linear(heads * head, width, None, options)
        self.gate = Linear(width, hidden, form, options)
        self.up = Linear(width, hidden, form, options)
        self.down = Linear(hidden, width, form, options)

    def forward(self, x, angles, cache, position):
        def split(y, heads):
            return y.view(*y.shape[:2], heads, self.head).transpose(1, 2)

        h = rms_norm(x, x.shape[-1:], self.attention_norm, 1e-5)
        query = turned(split(self.query(h), self.heads), angles)
        key, value = turned(split(self.key(h), self.key_heads), angles), split(self.value(h), self.key_heads)
        mask = None
        if cache is not None:
            # Of a fixed size, and later places masked, so that it can be compiled.
            cache[0].index_copy_(2, position, key)
            cache[1].index_copy_(2, position, value)
            key, value = cache
            mask = torch.arange(key.shape[2], device=x.device) <= position[:, None]
        # Kernels that know shared keys are those of half precision without a mask.
        members = self.heads // self.key_heads
        shares = members > 1 and mask is None and x.dtype != torch.float32
        if members > 1 and not shares:
            key, value = [each.repeat_interleave(members, 1) for each in (key, value)]
        own = scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, enable_gqa=shares)
        x = x + self.output(own.transpose(1, 2).flatten(2))
        h = rms_norm(x, x.shape[-1:], self.norm, 1e-5)
        return x + self.down(silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, form, options):
        super().__init__()
        blocks, width, _, _, self.key_heads, self.head, tokens = options.shape
        self.register_buffer("table", frozen(tokens, width, options))
        self.register_buffer("norm", torch.ones(width, dtype=options.element, device=options.device))
        self.blocks = nn.ModuleList([Block(options.shape, form, options) for _ in range(blocks)])
        rates = 10000.0 ** (-torch.arange(0, self.head, 2, device=options.device) / self.head)
        self.register_buffer("rates", rates)

    def embed(self, ids):
        return embedding(ids, self.table)

    def forward(self, x, position, caches=None):
        """Logits of embedded tokens at these places."""
        angles = position[:, None] * self.rates
        angles = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for index, block in enumerate(self.blocks):
            x = block(x, angles, caches and caches[index], position)
        # The head is the table of embeddings.
        return linear(rms_norm(x, x.shape[-1:], self.norm, 1e-5), self.table)

    def caches(self, places):
        shape = (1, self.key_heads, places, self.head)
        return [[torch.zeros(shape, dtype=self.table.dtype, device=self.table.device) for _ in "kv"] for _ in self.blocks]


def milliseconds(run, options):
    """The median of a step, by the wall clock."""
    for _ in range(3):
        run()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < options.seconds:
        start = time.perf_counter()
        run()
        synchronize(options.device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def training(model, run, options):
    """Milliseconds of a step; without adapters, of forward and backward through the frozen model."""
    count = options.sequence
    ids = torch.randint(options.shape[-1], (SEQUENCES, count + 1), device=options.device)
    position = torch.arange(count, device=options.device)
    parameters = list(model.parameters())
    optimizer = parameters and torch.optim.AdamW(parameters, 1e-6, weight_decay=0, fused=options.device == "cuda")

    def step():
        x = model.embed(ids[:, :-1])
        # As the library has it: the gradient goes down to the first block's input.
        x.requires_grad_()
        loss = cross_entropy(run(x, position).flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        if optimizer:
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        loss.item()

    return milliseconds(step, options)


@torch.no_grad()
def writing(model, run, options):
    """Milliseconds of a token after a prompt, with the choice of the next on the device."""
    count = options.sequence
    caches = model.caches(2 * count)
    ids = torch.randint(options.shape[-1], (1, count), device=options.device)
    model(model.embed(ids), torch.arange(count, device=options.device), caches)
    position = torch.tensor([count], device=options.device)

    def token():
        run(model.embed(ids[:, :1]), position, caches).argmax(-1).item()

    return milliseconds(token, options)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=ELEMENTS, default="f32")
    parser.add_argument("--sequence", type=int, default=64, help="the tokens of each of a step's four sequences, and of the prompt")
    parser.add_argument("--seconds", type=float, default=5.0, help="measure each for at least this long")
    parser.add_argument("--compile", action="store_true", help="also under torch.compile, which takes minutes")
    options = parser.parse_args()
    options.element = ELEMENTS[options.dtype]
    options.shape_name, options.shape = options.shape, SHAPES[options.shape]

    torch.manual_seed(0)
    processor = torch.cuda.get_device_name() if options.device == "cuda" else f"the CPU, {torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__} on {processor}: {options.shape_name}, {options.dtype}, rank {RANK}, {EXPERTS} experts\n")
    compiled = options.compile and compiles(options)
    tokens = SEQUENCES * options.sequence
    print(f"| adapters | a step of {tokens} tokens | tokens/s | a token after {options.sequence} | tokens/s |")
    print("|---|---:|---:|---:|---:|")
    for form in (None, "official", "concatenated"):
        model = Llama(form, options)
        for how in ["", ", compiled"][: 1 + compiled]:
            run = model
            if how:
                torch.compiler.reset()
                run = torch.compile(model, dynamic=False)
            step, token = training(model, run, options), writing(model, run, options)
            print(
                f"| {form or 'none'}{how} | {step:.1f} ms | {1e3 * tokens / step:.0f} | {token:.2f} ms | {1e3 / token:.1f} |",
                flush=True,
            )
        del model, run


if __name__ == "__main__":
    main()
