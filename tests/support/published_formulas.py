"""DINOv3 and DINOv2 restated from the published descriptions, on weights under the authors' names.

Nothing here is vconv's or the authors' code. DINOv2 (arXiv 2304.07193) is a pre-norm ViT with LayerScale and
learned positions. With registers (arXiv 2309.16588), they follow the class token and have no position. DINOv3
(arXiv 2508.10104) has rotary positions instead: a patch at row k of H has the coordinate 2 (k + 0.5) / H - 1,
likewise for columns; each period turns a pair of channels by 2 pi coordinate / period. The bias of query, key
and value is multiplied by its mask.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
DINOV3, DINOV2 = "dinov3", "dinov2"
PATCH = {DINOV3: 16, DINOV2: 14}
EPSILON = {DINOV3: 1e-5, DINOV2: 1e-6}
WIDTH, HIDDEN, BLOCKS, HEADS, GRID = 96, 192, 3, 2, 4


def drawn(family: str, registers: int = 4, grid: int = GRID, bias: float = 0.3, seed: int = 0) -> State:
    """Draw the weights of a narrow network under the authors' names; ``bias`` scales query, key and value."""
    noise = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 0.1) -> Tensor:
        return torch.randn(shape, generator=noise) * scale

    def norm(name: str) -> State:
        return {f"{name}.weight": 1 + normal(WIDTH), f"{name}.bias": normal(WIDTH)}

    def linear(name: str, outputs: int, inputs: int) -> State:
        return {f"{name}.weight": normal(outputs, inputs), f"{name}.bias": normal(outputs)}

    state = {"cls_token": normal(1, 1, WIDTH), "mask_token": normal(1, WIDTH), **norm("norm")}
    side = PATCH[family]
    state["patch_embed.proj.weight"] = normal(WIDTH, 3, side, side, scale=0.03)
    state["patch_embed.proj.bias"] = normal(WIDTH)
    if registers:
        state["storage_tokens" if family == DINOV3 else "register_tokens"] = normal(1, registers, WIDTH)
    if family == DINOV2:
        state["pos_embed"] = normal(1, 1 + grid * grid, WIDTH)
    else:
        quarter = WIDTH // HEADS // 4
        state["rope_embed.periods"] = (100.0 ** (torch.arange(quarter) / quarter)).bfloat16()
    for i in range(BLOCKS):
        at = f"blocks.{i}"
        state |= {**norm(f"{at}.norm1"), **norm(f"{at}.norm2")}
        state |= {**linear(f"{at}.attn.qkv", 3 * WIDTH, WIDTH), **linear(f"{at}.attn.proj", WIDTH, WIDTH)}
        state[f"{at}.attn.qkv.weight"] *= 2
        state[f"{at}.attn.qkv.bias"] = normal(3 * WIDTH, scale=bias)
        if family == DINOV3:
            state[f"{at}.attn.qkv.bias_mask"] = torch.cat(
                [torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)]
            )
        state |= {**linear(f"{at}.mlp.fc1", HIDDEN, WIDTH), **linear(f"{at}.mlp.fc2", WIDTH, HIDDEN)}
        state |= {f"{at}.ls{place}.gamma": 0.3 + normal(WIDTH) for place in (1, 2)}
    return state


def tokens(family: str, state: State, images: Tensor) -> Tensor:
    """Return class token, registers and patches after the final norm, (B, N, D), of images (B, 3, H, W)."""
    float32 = {name: value.float() for name, value in state.items()}
    side, count = PATCH[family], len(images)
    grid = F.conv2d(images, float32["patch_embed.proj.weight"], float32["patch_embed.proj.bias"], stride=side)
    rows, columns = grid.shape[2:]
    patches = grid.permute(0, 2, 3, 1).reshape(count, rows * columns, -1)
    first = float32["cls_token"].expand(count, -1, -1)
    if family == DINOV2:
        positions = float32["pos_embed"]
        first, patches = first + positions[:, :1], patches + positions[:, 1:]
    registers = float32.get("storage_tokens", float32.get("register_tokens", first[:1, :0]))
    x = torch.cat([first, registers.expand(count, -1, -1), patches], dim=1)
    turn = _turns(float32["rope_embed.periods"], rows, columns) if family == DINOV3 else None
    for i in range(sum(name.endswith(".ls1.gamma") for name in float32)):
        x = _block(
            x, {name.removeprefix(f"blocks.{i}."): value for name, value in float32.items()}, turn, family
        )
    return _norm(x, float32, "norm", family)


def _turns(periods: Tensor, rows: int, columns: int) -> Tensor:
    """Return the turn of every pair of channels at every patch as a complex number, (patches, pairs)."""
    y, x = (2 * (torch.arange(length) + 0.5) / length - 1 for length in (rows, columns))
    angles = [2 * math.pi * axis[:, None] / periods for axis in (y, x)]
    both = [angles[0][:, None].expand(-1, columns, -1), angles[1][None].expand(rows, -1, -1)]
    whole = torch.cat(both, dim=-1).reshape(rows * columns, -1)
    return torch.polar(torch.ones_like(whole), whole)


def _norm(x: Tensor, state: State, name: str, family: str) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + EPSILON[family]).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def _block(x: Tensor, state: State, turn: Tensor | None, family: str) -> Tensor:
    x = x + state["ls1.gamma"] * _attention(_norm(x, state, "norm1", family), state, turn)
    hidden = _norm(x, state, "norm2", family) @ state["mlp.fc1.weight"].T + state["mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return x + state["ls2.gamma"] * (hidden @ state["mlp.fc2.weight"].T + state["mlp.fc2.bias"])


def _attention(x: Tensor, state: State, turn: Tensor | None) -> Tensor:
    bias = state["attn.qkv.bias"] * state.get("attn.qkv.bias_mask", torch.ones(()))
    parts = (x @ state["attn.qkv.weight"].T + bias).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
    if turn is not None:
        query, key = _turned(query, turn), _turned(key, turn)
    weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    return mixed @ state["attn.proj.weight"].T + state["attn.proj.bias"]


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the patches' channels: channel j of the first half of a head is paired with j of the second."""
    rest, patches = x.split([x.shape[2] - len(turn), len(turn)], dim=2)
    real, imaginary = patches.chunk(2, dim=-1)
    pairs = torch.complex(real, imaginary) * turn
    return torch.cat([rest, torch.cat([pairs.real, pairs.imag], dim=-1)], dim=2)
