#!/usr/bin/env python3
"""Loads what `cargo run --example save_lora DIR` has written with PEFT, and compares what its layers compute.

    python3 peers/peft_check.py DIR     needs torch, peft and safetensors
"""
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel, __version__


def model_of(shapes):
    """A model that has nothing but linear layers of zeros with these names."""
    model = torch.nn.Module()
    for name, (d_in, d_out) in shapes.items():
        module = model
        *parents, own = name.split(".")
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        layer = torch.nn.Linear(d_in, d_out, bias=False)
        torch.nn.init.zeros_(layer.weight)
        module.add_module(own, layer)
    return model


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    expected = json.loads((folder / "expected.json").read_text())
    model = model_of({name: (of["d_in"], of["d_out"]) for name, of in expected.items()})
    model = PeftModel.from_pretrained(model, folder).double()
    for name, of in expected.items():
        x = torch.tensor(of["x"], dtype=torch.float32).double().view(-1, of["d_in"])
        y = torch.tensor(of["y"], dtype=torch.float64).view(-1, of["d_out"])
        found = model.base_model.model.get_submodule(name)(x)
        off = ((found - y).norm() / y.norm()).item()
        print(f"{name}: off by {off:.1e}")
        # The scaling is f32 there and alpha / r here.
        if not off < 1e-6 or not y.norm() > 0:
            raise SystemExit(f"PEFT {__version__} computes something else")
    print(f"PEFT {__version__} computes the same")


main()
