"""Classes of faults: the possible causes of a failure, as checks and hypotheses name them."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.network import Network, TensorSpec

CLASSES: Mapping[str, str] = {
    "files": "there is a file that the manifest does not list",
    "source": "the original is not the one that was exported",
    "recording": "the recorded outputs are not the original's",
    "variants": "a variant is missing",
    "image size": "it is made for images of another size",
    "resampling": "an operator that engines compute differently, such as Resize, was left in a graph",
    "traced size": "it computes only images of the size with which it was traced",
    "registers": "register tokens are missing, or are not the network's",
    "output names": "an output has another output's name",
    "final norm": "an output of a block lacks the final norm, or has one that it should not have",
    "activation": "a GELU is not the exact one",
    "epsilon": "a LayerNorm has another epsilon",
    "position embedding": "the position embedding is not the network's",
    "bias": "a bias was dropped or altered",
    "transposed weight": "a weight is stored transposed",
    "pooling": "tokens are pooled in another way",
    "weights": "weights are not the original's",
    "rope periods": "the RoPE periods are the library's, not the authors'",
    "normalisation": "images are normalised with another mean or deviation",
    "channel order": "the channels of the images are in another order",
    "interpolation": "images are resized in another way",
    "height and width": "height and width are swapped",
    "token order": "tokens are in another order",
    "architecture": "the configuration describes another network",
    "graph": "the graph is not one that vconv exports",
    "overflow": "a value is too large for the type in which it is computed",
    "saturation": "values beyond a quantised range are cut off",
    "zero point": "the number that stands for zero is another one",
    "scale": "a scale is not that of its values, or is shared by outputs that need their own",
    "manifest": "the manifest says what the files do not",
    "compiler's report": "what CANN's compiler reported of an offline model cannot be read",
    "operator": "an operator computes something else",
}
"""Every class, with its meaning; the classes that explain most come first."""

_OF_NUMBERS: Mapping[str, str] = {
    "epsilon": "epsilon",
    "exact_gelu": "activation",
    "image": "image size",
    "pooling": "pooling",
    "positions": "position embedding",
    "registers": "registers",
    "rope_base": "rope periods",
}
"""By field of :class:`Numbers`: the class of a difference in it; other fields belong to the architecture."""


def of_number(field: str) -> str:
    """Return the class of fault of a difference in one number of an architecture."""
    return _OF_NUMBERS.get(field, "architecture")


def of_tensor(network: Network, key: str) -> str:
    """Return the class of fault of a missing, unused or altered tensor, by the tensor's role."""
    tensors = {network.stored_key(tensor): tensor for tensor in network.tensors().values()}
    tensor = tensors.get(key)
    if key.endswith(".bias") and (tensor is None or tensor.block is not None):
        return "bias"
    return "weights" if tensor is None else _of_role(tensor, network)


def _of_role(tensor: TensorSpec, network: Network) -> str:
    if tensor.role == "token" and network.registers and tensor.shape[1:2] == (network.registers,):
        return "registers"
    return {"position": "position embedding", "head": "pooling", "fc_norm": "pooling"}.get(
        tensor.role, "weights"
    )
