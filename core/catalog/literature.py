"""The origin of the systems: the authors' publications, the training data, and the places with copies."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote


@dataclass(frozen=True)
class Work:
    """A publication on which a system is based.

    Args:
        key: the BibTeX key.
        kind: the BibTeX type.
        title: the title.
        authors: the authors, in BibTeX's form.
        year: the year of publication.
        url: the address of the text.
        where: further BibTeX fields, such as the journal.
        code: the authors' repository; empty if there is none.
    """

    key: str
    kind: str
    title: str
    authors: str
    year: int
    url: str
    where: Mapping[str, str]
    code: str = ""

    @property
    def bibtex(self) -> str:
        """The publication as a BibTeX entry."""
        fields = {"title": self.title, "author": self.authors, **self.where}
        fields |= {"year": str(self.year), "url": self.url}
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}\n}}"


def _arxiv(number: str) -> Mapping[str, str]:
    return MappingProxyType({"journal": f"arXiv preprint arXiv:{number}"})


DINOV3 = Work(
    key="simeoni2025dinov3",
    kind="article",
    title="DINOv3",
    authors="Sim{\\'e}oni, Oriane and Vo, Huy V. and Seitzer, Maximilian and Baldassarre, Federico and "
    "Oquab, Maxime and others",
    year=2025,
    url="https://arxiv.org/abs/2508.10104",
    where=_arxiv("2508.10104"),
    code="https://github.com/facebookresearch/dinov3",
)
DINOV2 = Work(
    key="oquab2023dinov2",
    kind="article",
    title="{DINOv2}: Learning Robust Visual Features without Supervision",
    authors="Oquab, Maxime and Darcet, Timoth{\\'e}e and Moutakanni, Th{\\'e}o and Vo, Huy and "
    "Szafraniec, Marc and others",
    year=2023,
    url="https://arxiv.org/abs/2304.07193",
    where=_arxiv("2304.07193"),
    code="https://github.com/facebookresearch/dinov2",
)
REGISTERS = Work(
    key="darcet2023registers",
    kind="article",
    title="Vision Transformers Need Registers",
    authors="Darcet, Timoth{\\'e}e and Oquab, Maxime and Mairal, Julien and Bojanowski, Piotr",
    year=2023,
    url="https://arxiv.org/abs/2309.16588",
    where=_arxiv("2309.16588"),
)
VIT = Work(
    key="dosovitskiy2020vit",
    kind="article",
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    authors="Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and "
    "Zhai, Xiaohua and others",
    year=2020,
    url="https://arxiv.org/abs/2010.11929",
    where=_arxiv("2010.11929"),
    code="https://github.com/google-research/vision_transformer",
)
CONVNEXT = Work(
    key="liu2022convnext",
    kind="inproceedings",
    title="A {ConvNet} for the 2020s",
    authors="Liu, Zhuang and Mao, Hanzi and Wu, Chao-Yuan and Feichtenhofer, Christoph and "
    "Darrell, Trevor and Xie, Saining",
    year=2022,
    url="https://arxiv.org/abs/2201.03545",
    where=MappingProxyType(
        {"booktitle": "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)"}
    ),
    code="https://github.com/facebookresearch/ConvNeXt",
)
TIMM = Work(
    key="rw2019timm",
    kind="misc",
    title="{PyTorch} Image Models",
    authors="Wightman, Ross",
    year=2019,
    url="https://github.com/huggingface/pytorch-image-models",
    where=MappingProxyType({"doi": "10.5281/zenodo.4414861"}),
)


def _word(text: str) -> str:
    """Return a text as one word of a shell, on one line."""
    return shlex.quote(" ".join(text.split()))


@dataclass(frozen=True)
class Mirror:
    """A place that has copies of repositories of the Hugging Face hub.

    Args:
        name: the place's name.
        page: the address of a repository's page.
        command: the command that downloads a repository into a folder.
        needs: the software that the command needs; empty if it needs no further software.
    """

    name: str
    page: str
    command: str
    needs: str = ""

    def page_of(self, repository: str) -> str:
        """Return the address of a repository's page."""
        return self.page.format(repository=quote(repository))

    def command_of(self, repository: str, folder: str) -> str:
        """Return the command that downloads a repository into a folder."""
        return self.command.format(repository=_word(repository), folder=_word(folder))


_HF_DOWNLOAD = "hf download {repository} --local-dir {folder}"
HUGGING_FACE = Mirror("Hugging Face", "https://huggingface.co/{repository}", _HF_DOWNLOAD)
HF_MIRROR = Mirror(
    "hf-mirror",
    "https://hf-mirror.com/{repository}",
    f"HF_ENDPOINT=https://hf-mirror.com {_HF_DOWNLOAD}",
)
MODELSCOPE = Mirror(
    "ModelScope",
    "https://modelscope.cn/models/{repository}",
    "modelscope download --model {repository} --local_dir {folder}",
    needs="modelscope",
)
ATOMGIT = Mirror(
    "AtomGit",
    "https://gitcode.com/hf_mirrors/{repository}",
    "python3 -m atomgit download hf_mirrors/{repository} -d {folder}",
)
LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "dinov3-license": "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
        "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    }
)
"""The text of each licence, by its name in the catalog."""
