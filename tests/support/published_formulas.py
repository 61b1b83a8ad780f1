"""DINOv3 and DINOv2 restated from the published descriptions, on weights under the authors' names.

Nothing here is vconv's or the authors' code. DINOv2 (arXiv 2304.07193) is a pre-norm ViT with LayerScale and
learned positions. With registers (arXiv 2309.16588), they follow the class token and have no position. DINOv3
(arXiv 2508.10104) has rotary positions instead: a patch at row k of H has the coordinate 2 (k + 0.5) / H - 1,
likewise for columns; each period turns a pair of channels by 2 pi coordinate / period. The bias of query, key
and value is multiplied by its mask. Some sizes have the MLP down(SiLU(gate x) * up x) (SwiGLU,
arXiv 2002.05202). A ConvNeXt (arXiv 2201.03545) has a stem of 4x4 patches and stages of depthwise
convolutions of 7x7; DINOv3 takes the mean of its last patches as the class token. For images of another size,
DINOv2 without registers resamples its positions with a cubic kernel (``interpolate_pos_encoding`` of
facebookresearch/dinov2): n rows from N, with the scale (n + 0.1) / N.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
DINOV3, DINOV2, CONVNEXT = "dinov3", "dinov2", "convnext"
PATCH = {DINOV3: 16, DINOV2: 14, CONVNEXT: 32}
EPSILON = {DINOV3: 1e-5, DINOV2: 1e-6, CONVNEXT: 1e-6}
WIDTH, HIDDEN, BLOCKS, HEADS, GRID = 96, 192, 3, 2, 4
STAGES = ((16, 1), (24, 1), (48, 2), (96, 1))
"""Width and number of blocks of each stage of a ConvNeXt."""


def drawn(
    family: str,
    registers: int = 4,
    grid: int = GRID,
    bias: float | None = 0.3,
    hidden: int = HIDDEN,
    gated: bool = False,
) -> State:
    """Draw the weights of a narrow network under the authors' names.

    Args:
        family: DINOV3 or DINOV2.
        registers: number of registers.
        grid: patches in a row of the learned positions.
        bias: scale of the query, key and value biases; None for a network without them.
        hidden: width of the MLPs.
        gated: whether the MLPs are gated.
    """
    seed = 0
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
        del state[f"{at}.attn.qkv.bias"]
        if bias is not None:
            state[f"{at}.attn.qkv.bias"] = normal(3 * WIDTH, scale=bias)
        if family == DINOV3 and bias is not None:
            state[f"{at}.attn.qkv.bias_mask"] = torch.cat(
                [torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)]
            )
        for name, (outputs, inputs) in _mlp(family, hidden, gated).items():
            state |= linear(f"{at}.mlp.{name}", outputs, inputs)
        state |= {f"{at}.ls{place}.gamma": 0.3 + normal(WIDTH) for place in (1, 2)}
    return state


def _mlp(family: str, hidden: int, gated: bool) -> dict[str, tuple[int, int]]:
    """Return the outputs and inputs of each layer of an MLP, by name."""
    if not gated:
        return {"fc1": (hidden, WIDTH), "fc2": (WIDTH, hidden)}
    if family == DINOV3:
        return {"w1": (hidden, WIDTH), "w2": (hidden, WIDTH), "w3": (WIDTH, hidden)}
    return {"w12": (2 * hidden, WIDTH), "w3": (WIDTH, hidden)}


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
        if "register_tokens" not in float32:
            positions = resampled_positions(positions, rows, columns)
        first, patches = first + positions[:, :1], patches + positions[:, 1:]
    registers = float32.get("storage_tokens", float32.get("register_tokens", first[:1, :0]))
    x = torch.cat([first, registers.expand(count, -1, -1), patches], dim=1)
    turn = _turns(float32["rope_embed.periods"], rows, columns) if family == DINOV3 else None
    for i in range(sum(name.endswith(".ls1.gamma") for name in float32)):
        x = _block(
            x, {name.removeprefix(f"blocks.{i}."): value for name, value in float32.items()}, turn, family
        )
    return _norm(x, float32, "norm", family)


def resampled_positions(stored: Tensor, rows: int, columns: int) -> Tensor:
    """Resample the positions of a class token and a square of patches for another grid, in float64.

    A new place i stands at (i + 1/2) / scale - 1/2 of the old ones, and takes the four nearest of them; those
    beyond the border have the values at the border.
    """
    side = math.isqrt(stored.shape[1] - 1)
    if (rows, columns) == (side, side):
        return stored
    square = stored[0, 1:].double().unflatten(0, (side, side))
    for axis, count in enumerate((rows, columns)):
        lines = []
        for place in range(count):
            at = (place + 0.5) * side / (count + 0.1) - 0.5
            near = [math.floor(at) + step for step in (-1, 0, 1, 2)]
            taken = [square.select(axis, min(max(one, 0), side - 1)) * _cubic(at - one) for one in near]
            lines.append(torch.stack(taken).sum(0))
        square = torch.stack(lines, axis)
    return torch.cat([stored[:, :1], square.flatten(0, 1)[None].float()], dim=1)


def _cubic(distance: float) -> float:
    """Return the cubic convolution kernel (Keys 1981) with the parameter -3/4."""
    x = abs(distance)
    return 1.25 * x**3 - 2.25 * x**2 + 1 if x < 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)


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
    return x + state["ls2.gamma"] * _perceptron(_norm(x, state, "norm2", family), state)


def _layer(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _perceptron(x: Tensor, state: State) -> Tensor:
    if "mlp.fc1.weight" in state:
        return _layer(_gelu(_layer(x, state, "mlp.fc1")), state, "mlp.fc2")
    if "mlp.w12.weight" in state:
        gate, up = _layer(x, state, "mlp.w12").chunk(2, dim=-1)
    else:
        gate, up = _layer(x, state, "mlp.w1"), _layer(x, state, "mlp.w2")
    return _layer(gate * torch.sigmoid(gate) * up, state, "mlp.w3")


def _attention(x: Tensor, state: State, turn: Tensor | None) -> Tensor:
    bias = state.get("attn.qkv.bias", torch.zeros(())) * state.get("attn.qkv.bias_mask", torch.ones(()))
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


def drawn_convnext(seed: int = 0) -> State:
    """Draw the weights of a narrow ConvNeXt under the authors' names; the last norm has two names."""
    noise = torch.Generator().manual_seed(seed)

    def both(name: str, *shape: int, scale: float = 0.3) -> State:
        weight = torch.randn(shape, generator=noise) * scale
        if len(shape) == 1:
            weight = 1 + weight
        return {f"{name}.weight": weight, f"{name}.bias": torch.randn(shape[0], generator=noise) * 0.1}

    first, last = STAGES[0][0], STAGES[-1][0]
    state = {**both("downsample_layers.0.0", first, 3, 4, 4), **both("downsample_layers.0.1", first)}
    for s, (width, blocks) in enumerate(STAGES):
        if s:
            state |= both(f"downsample_layers.{s}.0", STAGES[s - 1][0])
            state |= both(f"downsample_layers.{s}.1", width, STAGES[s - 1][0], 2, 2, scale=0.1)
        for b in range(blocks):
            at = f"stages.{s}.{b}"
            state |= {**both(f"{at}.dwconv", width, 1, 7, 7), **both(f"{at}.norm", width)}
            state |= both(f"{at}.pwconv1", 4 * width, width)
            state |= both(f"{at}.pwconv2", width, 4 * width, scale=0.1)
            state[f"{at}.gamma"] = torch.rand(width, generator=noise)
    state |= both("norm", last)
    return state | {f"norms.3.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}


def convnext_tokens(state: State, images: Tensor) -> Tensor:
    """Return the class token and the patches of a ConvNeXt after the final norm, (B, N, D)."""

    def normed(x: Tensor, name: str) -> Tensor:
        return _norm(x.permute(0, 2, 3, 1), state, name, CONVNEXT).permute(0, 3, 1, 2)

    def convolved(x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    x = normed(convolved(images, "downsample_layers.0.0", stride=4), "downsample_layers.0.1")
    for s, (width, blocks) in enumerate(STAGES):
        if s:
            x = convolved(normed(x, f"downsample_layers.{s}.0"), f"downsample_layers.{s}.1", stride=2)
        for b in range(blocks):
            at = f"stages.{s}.{b}"
            mixed = normed(convolved(x, f"{at}.dwconv", padding=3, groups=width), f"{at}.norm")
            hidden = _gelu(_layer(mixed.permute(0, 2, 3, 1), state, f"{at}.pwconv1"))
            x = x + (state[f"{at}.gamma"] * _layer(hidden, state, f"{at}.pwconv2")).permute(0, 3, 1, 2)
    patches = x.flatten(2).transpose(1, 2)
    return _norm(torch.cat([patches.mean(1, keepdim=True), patches], dim=1), state, "norm", CONVNEXT)
