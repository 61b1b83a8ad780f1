"""Definition of a family of systems, and of the entries that published configurations share.

A family is one architecture in one library, as its authors published it in several sizes. The family has the
values that all sizes share, and the row of a size has the values that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vconv.catalog import literature
from vconv.catalog.literature import Mirror, Work
from vconv.catalog.published import PublishedFigures
from vconv.types import Config

IMAGENET_1K = "imagenet-1k"
"""The set of classes of the classifiers that were trained on ImageNet (ILSVRC 2012)."""
EVERYWHERE = (literature.HF_MIRROR, literature.MODELSCOPE, literature.ATOMGIT)
"""All the places with copies of repositories."""


def frozen(**values: Any) -> Mapping[str, Any]:
    """Return values that nobody can change."""
    return MappingProxyType(values)


@dataclass(frozen=True)
class Size:
    """One size of a family: a row of its table.

    Args:
        name: the name of the size in the names of the system: ``large``, ``s16``.
        config: the entries of its ``config.json`` that are added to the family's.
        published: figures that others have published for it.
        mirrors: other places with known copies of its repository.
        preprocessor: the entries of its ``preprocessor_config.json`` that replace the family's.
        structure: what distinguishes its structure from that of the other sizes, such as a gated MLP.
    """

    name: str
    config: Config
    published: tuple[PublishedFigures, ...] = ()
    mirrors: tuple[Mirror, ...] = (literature.HF_MIRROR,)
    preprocessor: Config = field(default_factory=dict)
    structure: str = ""


@dataclass(frozen=True)
class Miniature:
    """How a family is shrunk to a network that runs fast and has every kind of tensor.

    Args:
        numbers: the values that replace those of the configuration.
        side: the side of the images that the miniature takes: sixteen patches.
    """

    numbers: Config
    side: int


@dataclass(frozen=True)
class Family:
    """A family of systems.

    Args:
        name: the name of the family's layout, as in the manifest.
        title: the title under which its systems are listed.
        library: the library that builds the originals.
        short: the short name of a system, with ``{size}``.
        repository: the repository of a system on the Hugging Face hub, with ``{size}``.
        config: the entries that every published ``config.json`` of the family has.
        sizes: the table of sizes.
        miniature: how the family is shrunk.
        licence: the licence of the weights.
        works: the authors' publications about the family.
        trained_on: the data that the published weights were trained on.
        preprocessor: the published ``preprocessor_config.json``; timm's families have none.
        gated: whether the hub asks for consent before a download.
        classes: the set of classes of its classifier; empty if it has none.
        structure: what distinguishes its structure from that of other families of the same layout.
    """

    name: str
    title: str
    library: str
    short: str
    repository: str
    config: Config
    sizes: tuple[Size, ...]
    miniature: Miniature
    licence: str
    works: tuple[Work, ...]
    trained_on: str
    preprocessor: Config = field(default_factory=dict)
    gated: bool = False
    classes: str = ""
    structure: str = ""

    def config_of(self, size: Size) -> Config:
        """Return the ``config.json`` of a size; timm's names the architecture and the tag of the weights."""
        config = {**self.config, **size.config}
        if self.library == "timm":
            config["architecture"], _, tag = self.short.format(size=size.name).partition(".")
            own = size.config.get("pretrained_cfg", {})
            config["pretrained_cfg"] = {**self.config["pretrained_cfg"], "tag": tag, **own}
        return MappingProxyType(config)


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""Mean and standard deviation of ImageNet's pixels, by which timm's and most other processors normalise."""
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
"""Mean and standard deviation that bring pixels to values from -1 to 1, as Google's ViT takes them."""


def square(side: int) -> Config:
    """Return a size of images in a ``preprocessor_config.json``."""
    return {"height": side, "width": side}


def processor(kind: str, size: Config, resample: int, normal: Config, **more: Any) -> Config:
    """Return the ``preprocessor_config.json`` of a processor that resizes, rescales and normalises.

    Args:
        kind: the class in transformers.
        size: the size to resize to.
        resample: PIL's number of the filter.
        normal: ``mean`` and ``std``.
        more: further entries.
    """
    return frozen(
        image_processor_type=kind,
        do_resize=True,
        size=size,
        resample=resample,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=normal["mean"],
        image_std=normal["std"],
        **more,
    )


def timm_config(
    pool: str, side: int, license: str, normal: Config = IMAGENET, classes: int = 0, crop: float = 1.0
) -> Config:
    """Return the ``config.json`` of a timm encoder; the architecture, the tag and the width are added later.

    Args:
        pool: timm's name of the pooling.
        side: the side of the images.
        license: the licence of the weights.
        normal: ``mean`` and ``std``.
        classes: number of classes of the classifier; 0 if there is none.
        crop: the part of each side that the crop keeps.
    """
    return frozen(
        num_classes=classes,
        global_pool=pool,
        pretrained_cfg=dict(
            custom_load=False,
            input_size=[3, side, side],
            fixed_input_size=True,
            interpolation="bicubic",
            crop_pct=crop,
            crop_mode="center",
            **normal,
            num_classes=classes,
            pool_size=None,
            first_conv="patch_embed.proj",
            classifier="head",
            license=license,
        ),
    )


def transformer(width: int, blocks: int, heads: int, **more: Any) -> Config:
    """Return the entries that differ between sizes in transformers' configurations."""
    return frozen(hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, **more)


GATED = "gated MLP"
"""The structure of sizes whose MLPs are gated (SwiGLU)."""
SMALL_TIMM = frozen(embed_dim=96, depth=3, num_heads=2, mlp_ratio=2)
"""The numbers of the miniatures of timm's ViTs."""
