"""Reads what a merge is made of and what it made: tensors on disk, and the NF4 weights of a loaded model."""

import copy

import torch


def tensors_of(folder):
    from safetensors.torch import load_file

    return {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}


def dequantised(module) -> torch.Tensor:
    """fp32 values of a really loaded Linear4bit."""
    from bitsandbytes.functional import dequantize_4bit

    state = copy.deepcopy(module.weight.quant_state)
    state.dtype = torch.float32
    return dequantize_4bit(module.weight.data, state)


def quantised_modules(model):
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
