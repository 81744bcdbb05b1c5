"""The archives of MNIST, Fashion-MNIST and KMNIST: mirrors, sizes, digests.

Sources: sizes and SHA-256 are those of TensorFlow Datasets (`url_checksums/mnist.txt`,
`fashion_mnist.txt`, `kmnist.txt`), and the digests also those of torchvision's prototype
datasets (`prototype/datasets/_builtin/mnist.py`). Mirrors are torchvision's 0.28, and those of
TensorFlow Datasets and of the datasets' own projects.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt.train.data.download import PublishedFile

# All three have 60,000 images to train on and 10,000 to test, of 28x28 bytes.
_UNPACKED = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDataset:
    """A dataset to download; torchvision's folder has its files in ``raw``.

    Mirrors are beginnings of URLs, tried in this order; `archives` are by the file in each.
    """

    folder: str
    title: str
    mirrors: tuple[str, ...]
    archives: Mapping[str, PublishedFile]


def _archives(*pins: tuple[int, str]) -> dict[str, PublishedFile]:
    """In the order of `_UNPACKED`: bytes of the archive, and its SHA-256."""
    return {
        name: PublishedFile(name=f"{name}.gz", nbytes=nbytes, sha256=sha256, unpacked=unpacked)
        for (name, unpacked), (nbytes, sha256) in zip(_UNPACKED.items(), pins, strict=True)
    }


PUBLISHED = {
    "mnist": PublishedDataset(
        folder="MNIST",
        title="MNIST",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        archives=_archives(
            (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    ),
    "fashion-mnist": PublishedDataset(
        folder="FashionMNIST",
        title="Fashion-MNIST",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        archives=_archives(
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
    ),
    "kmnist": PublishedDataset(
        folder="KMNIST",
        title="KMNIST",
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
        archives=_archives(
            (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ),
    ),
}
