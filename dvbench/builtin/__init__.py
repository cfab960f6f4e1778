"""The plugins that come with dvbench, registered through the same hooks as anybody's."""

from __future__ import annotations

from dvbench.api import Plugin, hookimpl


@hookimpl
def dvbench_bases() -> list[Plugin]:
    """Offer the bases."""
    return [
        Plugin("identity", "dvbench.builtin.bases:Identity", "no levels: this is DDPM"),
        Plugin("haar", "dvbench.builtin.bases:Haar", "block averages, sides that halve"),
        Plugin("dct", "dvbench.builtin.bases:Dct", "low frequencies of the orthonormal DCT-II, any falling sides"),
        Plugin("pca", "dvbench.builtin.pca:Pca", "principal components of patches, learned from the training split"),
    ]


@hookimpl
def dvbench_schedules() -> list[Plugin]:
    """Offer the schedules."""
    return [
        Plugin("linear", "dvbench.builtin.schedules:Linear", "betas rise linearly (Ho et al. 2020)"),
        Plugin("cosine", "dvbench.builtin.schedules:Cosine", "squared cosine (Nichol and Dhariwal 2021)"),
        Plugin("heat", "dvbench.builtin.schedules:Heat", "bands fade by the heat equation (Hoogeboom & Salimans 2022)"),
        Plugin("shifted", "dvbench.builtin.schedules:Shifted", "cosine, shifted with the side (Hoogeboom et al. 2023)"),
    ]


@hookimpl
def dvbench_backbones() -> list[Plugin]:
    """Offer the backbones."""
    return [
        Plugin("unet", "dvbench.builtin.unet:UNet", "residual U-Net, each level enters at its own resolution"),
        Plugin("perfect", "dvbench.builtin.perfect:Perfect", "the exact posterior mean over the training set"),
    ]


@hookimpl
def dvbench_samplers() -> list[Plugin]:
    """Offer the samplers."""
    return [
        Plugin("ancestral", "dvbench.builtin.samplers:Ancestral", "draws from the posterior (Ho et al. 2020)"),
        Plugin("dpmpp", "dvbench.builtin.samplers:Dpmpp", "DPM-Solver++ 2M, two estimates a step (Lu et al. 2022)"),
        Plugin("ddim", "dvbench.builtin.samplers:Ddim", "implicit, eta from 0 to 1 (Song et al. 2021)"),
    ]


@hookimpl
def dvbench_datasets() -> list[Plugin]:
    """Offer the datasets."""
    return [
        Plugin("cats", "dvbench.builtin.cats:Cats", "cats composited from David Revoy's art, any size from 16 to 256"),
        Plugin("faces", "dvbench.builtin.faces:Faces", "the 400 ORL photographs, split by person"),
        Plugin("folder", "dvbench.builtin.folder:Folder", "a directory or zip of images"),
        Plugin("cifar10", "dvbench.builtin.downloads:Cifar10", "CIFAR-10, downloaded or read from --data"),
        Plugin(
            "fashion-mnist", "dvbench.builtin.downloads:FashionMnist", "Fashion-MNIST, downloaded or read from --data"
        ),
    ]


@hookimpl
def dvbench_detectors() -> list[Plugin]:
    """Offer the detectors."""
    return [
        Plugin("lite0", "dvbench.builtin.lite0:Lite0", "EfficientNet-Lite0's features, weights from a package"),
        Plugin("inception", "dvbench.builtin.inception:Inception", "clean-fid's InceptionV3, mode clean: FID itself"),
    ]
