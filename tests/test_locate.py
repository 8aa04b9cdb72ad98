"""Maps of planted encoders are known in closed form; those of a convnet come from plain loops."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import nn

from dimlab import ImageSet
from dimlab._encode import encode
from dimlab._locate import locate
from dimlab.datasets import digits
from dimlab.figures import plot_localisation
from dimlab.figures.house import BLUE, ORANGE
from dimlab.training.checkpoint import Checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import untrained

TINY = replace(TrainConfig.small(), n_dimensions=16)
IMAGENET_STD = np.array([0.229, 0.224, 0.225])  # torchvision's documented channel deviations


class Planted(nn.Module):
    """h_d = <weight_d, image>, or its square; counts the images that pass."""

    def __init__(self, weights, square=False):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(np.asarray(weights), dtype=torch.float32))
        self.square, self.n_seen = square, 0

    def forward(self, images):
        self.n_seen += len(images)
        features = torch.einsum("bchw,dchw->bd", images, self.weights)
        return features.square() if self.square else features


@pytest.fixture
def plant(monkeypatch):
    """Give a checkpoint whose encoder is the module."""

    def planted(module, images, config=TINY):
        checkpoint = replace(untrained(config, images), mask_logits=torch.ones(len(module.weights)))
        network = nn.ModuleDict({"encoder": module})
        monkeypatch.setattr(Checkpoint, "build_network", lambda self: network)
        return checkpoint

    return planted


def random_images(rng, n=9, shape=(3, 6, 8)):
    return ImageSet(
        rng.integers(0, 256, size=(n, *shape), dtype=np.uint8), np.arange(n) % 3, name="noise",
        class_names=("a", "b", "c"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def some():
    return digits("train").take(range(40))


@pytest.fixture(scope="module")
def checkpoint(some):
    return untrained(TINY, some)


def assert_close(found, expected, share):
    """Equal up to a share of the largest value: an untrained network's activations are small."""
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


def brute_force(activation, image, covering, patch, stride):
    """Mean fall over the patches that cover a pixel, by loops; a last patch ends at the border."""
    _, height, width = image.shape
    total, count = np.zeros((height, width)), np.zeros((height, width))
    ys = sorted({*range(0, height - patch + 1, stride), height - patch})
    xs = sorted({*range(0, width - patch + 1, stride), width - patch})
    for y in ys:
        for x in xs:
            covered = image.copy()
            covered[:, y : y + patch, x : x + patch] = covering[:, None, None]
            total[y : y + patch, x : x + patch] += activation(image) - activation(covered)
            count[y : y + patch, x : x + patch] += 1
    assert count.min() >= 1  # patches cover the whole image
    return total / count


def test_by_hand_the_mean_of_a_quadrant(plant):
    # h = mean of the upper left 2 x 2. The first image has 51, 102, 153, 204 there: h = 0.5, and
    # black covers all of it with one patch: the fall is 0.5 on these four pixels, 0 elsewhere
    pixels = np.full((2, 1, 4, 4), 255, np.uint8)
    pixels[0, 0, :2, :2] = [[51, 102], [153, 204]]
    pixels[1, 0, :2, :2] = 0
    images = ImageSet(pixels, np.array([1, 0]), name="x")
    weights = np.zeros((1, 1, 4, 4))
    weights[0, 0, :2, :2] = 1 / 4
    planted = plant(Planted(weights), images)
    result = locate(planted, images, [0], n_images=2, patch=2, stride=2, fill="zero")
    quadrant = np.kron([[1.0, 0], [0, 0]], np.ones((2, 2)))
    assert result.rows.tolist() == [[0, 1]]
    np.testing.assert_allclose(result.activations, [[0.5, 0]], atol=1e-7)
    np.testing.assert_allclose(result.occlusion[0, 0], 0.5 * quadrant, atol=1e-7)
    np.testing.assert_array_equal(result.occlusion[0, 1], 0)
    np.testing.assert_array_equal(result.gradient[0], [quadrant / 4] * 2)
    # both maps are the quadrant: they agree; the second occlusion map is constant
    np.testing.assert_allclose(result.agreement, [[1, np.nan]])
    # covered by the mean pixel, (12 + 12 + 2) / 32 = 26 / 32, the second falls by -26 / 32
    result = locate(planted, images, [0], n_images=2, patch=2, stride=2)
    mean = pixels.mean() / 255
    assert mean == pytest.approx(26 / 32)
    np.testing.assert_allclose(result.occlusion[0, 1], -mean * quadrant, atol=1e-7)
    np.testing.assert_allclose(result.occlusion[0, 0], (0.5 - mean) * quadrant, atol=1e-7)
    assert result.peak.tolist() == [[[-1, -1], [-1, -1]]]


@pytest.mark.parametrize("fill", ["mean", "zero"])
@pytest.mark.parametrize(("patch", "stride"), [(3, 2), (1, 1), (6, 6), (2, 1), (4, 3)])
def test_linear_encoder_has_closed_forms(plant, rng, fill, patch, stride):
    images = random_images(rng)
    weights = rng.normal(size=(5, 3, 6, 8))
    result = locate(
        plant(Planted(weights), images), images, [4, 1], n_images=3, patch=patch, stride=stride,
        fill=fill,
    )  # fmt: skip
    covering = images.images.mean(axis=(0, 2, 3)) / 255 if fill == "mean" else np.zeros(3)
    for place, dimension in enumerate([4, 1]):
        weight = weights[dimension]
        np.testing.assert_allclose(
            result.gradient[place], [np.abs(weight).sum(axis=0)] * 3, rtol=1e-6
        )
        for rank, row in enumerate(result.rows[place]):
            pixels = images.images[row] / 255
            expected = brute_force(
                lambda x, w=weight: (w * x).sum(), pixels, covering, patch, stride
            )
            np.testing.assert_allclose(result.occlusion[place, rank], expected, atol=1e-5)
            if patch == 1:  # a patch of one pixel takes away w (x - fill)
                alone = (weight * (pixels - covering[:, None, None])).sum(axis=0)
                np.testing.assert_allclose(result.occlusion[place, rank], alone, atol=1e-5)


def test_gradient_is_by_the_pixel_of_unit_range_not_by_the_network_input(plant, rng):
    images = random_images(rng)
    weights = rng.normal(size=(1, 3, 6, 8))
    config = replace(TINY, normalisation="imagenet")
    result = locate(plant(Planted(weights), images, config), images, [0], n_images=1)
    expected = (np.abs(weights[0]) / IMAGENET_STD[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(result.gradient[0, 0], expected, rtol=1e-5)


def test_gradient_of_a_square(plant, rng):
    images = random_images(rng)
    weights = rng.normal(size=(2, 3, 6, 8))
    result = locate(plant(Planted(weights, square=True), images), images, [1], n_images=2)
    for rank, row in enumerate(result.rows[0]):
        product = (weights[1] * images.images[row] / 255).sum()
        expected = 2 * np.abs(product) * np.abs(weights[1]).sum(axis=0)
        np.testing.assert_allclose(result.gradient[0, rank], expected, rtol=1e-4)


def test_convnet_agrees_with_loops_and_with_the_jacobian(checkpoint, some):
    encoder = checkpoint.encoder()
    result = locate(checkpoint, some, [2, 9], n_images=2, patch=9, stride=7)
    mean = some.images.mean(axis=(0, 2, 3)) / 255

    def features(pixels):
        with torch.no_grad():
            return encoder(torch.tensor(pixels, dtype=torch.float32)[None]).double().numpy()[0]

    for place, dimension in enumerate([2, 9]):
        for rank, row in enumerate(result.rows[place]):
            pixels = some.images[row] / 255
            expected = brute_force(lambda x, d=dimension: features(x)[d], pixels, mean, 9, 7)
            assert np.abs(expected).max() > 0.01 * result.activations[place, rank]
            assert_close(result.occlusion[place, rank], expected, 1e-4)
            jacobian = torch.autograd.functional.jacobian(
                encoder, torch.tensor(pixels, dtype=torch.float32)[None]
            )
            slopes = jacobian[0, dimension, 0].abs().sum(0).numpy()
            assert_close(result.gradient[place, rank], slopes, 1e-5)


def test_images_are_those_of_largest_activation(checkpoint, some):
    result = locate(checkpoint, some, [5, 0, 11], n_images=40)
    features = encode(checkpoint, some).features[:, [5, 0, 11]].astype(np.float64)
    np.testing.assert_array_equal(result.activations, -np.sort(-features, axis=0).T)
    np.testing.assert_array_equal(result.images, some.images[result.rows])
    np.testing.assert_array_equal(result.labels, some.labels[result.rows])
    np.testing.assert_allclose(result.mean_activation, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.std_activation, features.std(axis=0), rtol=1e-12)
    # all images: their z-scores have mean 0 and mean square 1
    np.testing.assert_allclose(result.z_score.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(np.square(result.z_score).mean(axis=1), 1, rtol=1e-9)
    np.testing.assert_array_equal(
        locate(checkpoint, some, [5, 0, 11], n_images=3).rows, result.rows[:, :3]
    )


def test_along_a_direction_it_is_the_map_of_the_turned_encoder(plant, rng):
    images, weights = random_images(rng), rng.normal(size=(3, 3, 6, 8))
    directions = np.linalg.qr(rng.normal(size=(3, 2)))[0]
    turned = np.einsum("dchw,ds->schw", weights, directions)
    found = locate(plant(Planted(weights), images), images, [1, 0], directions=directions)
    expected = locate(plant(Planted(turned), images), images, [1, 0])
    np.testing.assert_array_equal(found.rows, expected.rows)
    for name in ("activations", "occlusion", "gradient", "mean_activation", "std_activation"):
        assert_close(getattr(found, name), getattr(expected, name), 1e-5)
    for wrong in (directions.T, directions[:, 0], np.empty((3, 0))):
        with pytest.raises(ValueError, match=r"^directions must have shape \(3, S\)"):
            locate(plant(Planted(weights), images), images, [0], directions=wrong)
    with pytest.raises(ValueError, match=r"in \[0, 2\), those of directions; got 2\.$"):
        locate(plant(Planted(weights), images), images, [2], directions=directions)


def test_of_equal_images_the_lower_row_comes_first(plant):
    pixels = np.zeros((5, 1, 4, 4), np.uint8)
    pixels[[1, 3, 4]] = 100
    images = ImageSet(pixels, np.zeros(5, int), name="x")
    planted = plant(Planted(np.ones((1, 1, 4, 4))), images)
    assert locate(planted, images, [0], n_images=5).rows.tolist() == [[1, 3, 4, 0, 2]]


def test_order_of_dimensions_permutes_the_result(checkpoint, some):
    first, second = locate(checkpoint, some, [1, 7, 4]), locate(checkpoint, some, [4, 1, 7])
    for name in ("dimensions", "rows", "activations", "std_activation", "border_share"):
        np.testing.assert_array_equal(getattr(first, name)[[2, 0, 1]], getattr(second, name))
    for name in ("occlusion", "gradient", "agreement"):
        assert_close(getattr(first, name)[[2, 0, 1]], getattr(second, name), 1e-6)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_does_not_matter(checkpoint, some, batch_size):
    few, sizes = some.take(range(8)), {"n_images": 2, "patch": 10, "stride": 9}
    whole = locate(checkpoint, few, [1, 2], **sizes)
    parts = locate(checkpoint, few, [1, 2], **sizes, batch_size=batch_size)
    np.testing.assert_array_equal(parts.rows, whole.rows)
    for name in ("activations", "gradient"):
        assert_close(getattr(parts, name), getattr(whole, name), 1e-6)
    # a fall is a difference of float32 activations: it keeps 1e-6 of those
    tolerance = 1e-6 * whole.activations.max()
    np.testing.assert_allclose(parts.occlusion, whole.occlusion, rtol=0, atol=tolerance)


def test_an_image_is_covered_once_for_all_dimensions(plant, rng):
    images = random_images(rng, n=10)
    # all three dimensions rank the images alike; a fourth ranks them the other way round
    weights = np.ones((4, 3, 6, 8)) * np.array([1.0, 2, 3, -1])[:, None, None, None]
    module = Planted(weights)
    planted = plant(module, images)
    locate(planted, images, [0, 1, 2], n_images=2, patch=2, stride=2)
    n_patches = 3 * 4
    assert module.n_seen == 10 + 2 * (n_patches + 1) + 3 * 2
    module.n_seen = 0
    locate(planted, images, [0, 1, 2, 3], n_images=2, patch=2, stride=2)
    assert module.n_seen == 10 + 4 * (n_patches + 1) + 4 * 2


def test_a_patch_that_changes_nothing_has_no_effect_at_all(checkpoint):
    # the lower half is black already: black patches there leave the image as it is
    pixels = np.zeros((1, 1, 28, 28), np.uint8)
    pixels[0, 0, :10] = np.random.default_rng(0).integers(0, 256, size=(10, 28))
    images = ImageSet(pixels, np.array([0]), name="x")
    result = locate(checkpoint, images, range(16), n_images=1, patch=4, fill="zero")
    np.testing.assert_array_equal(result.occlusion[..., 14:, :], 0)
    assert (np.abs(result.occlusion[..., :10, :]).max(axis=(1, 2, 3)) > 0).any()


def test_nothing_of_the_network_or_of_the_caller_moves(checkpoint, some, monkeypatch):
    network = checkpoint.build_network()
    monkeypatch.setattr(Checkpoint, "build_network", lambda self: network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    needed = [each.requires_grad for each in network.parameters()]
    expected = locate(checkpoint, some, [3], n_images=2)
    with torch.no_grad():
        result = locate(checkpoint, some, [3], n_images=2)
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(result.gradient, expected.gradient)
    assert expected.gradient.max() > 0
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert [each.requires_grad for each in network.parameters()] == needed
    assert all(each.grad is None for each in network.parameters())


def test_a_dead_dimension_has_maps_of_zero_and_no_numbers_made_up(plant, rng):
    images = random_images(rng)
    weights = np.zeros((2, 3, 6, 8))
    weights[1, :, 2, 3] = 1
    result = locate(plant(Planted(weights), images), images, [0, 1], n_images=4)
    np.testing.assert_array_equal(result.rows[0], range(4))
    for values in (result.occlusion[0], result.gradient[0], result.std_activation[0]):
        np.testing.assert_array_equal(values, 0)
    for values in (result.agreement[0], result.z_score[0], result.border_share[0]):
        assert np.isnan(values).all()
    assert (result.peak[0] == -1).all()
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert summary["dimensions"]["0"]["border_share"] is None
    assert summary["dimensions"]["0"]["agreement"] is None
    assert summary["dimensions"]["0"]["z_score"] is None
    assert summary["dimensions"]["1"]["z_score"] == pytest.approx(result.z_score[1, 0])


def test_agreement_is_spearmans_of_the_size_of_the_effect(checkpoint, some):
    result = locate(checkpoint, some, [1, 6], n_images=3)
    for place in np.ndindex(2, 3):
        expected = spearmanr(
            np.abs(result.occlusion[place]).ravel(), result.gradient[place].ravel()
        )
        assert result.agreement[place] == pytest.approx(expected.statistic, abs=1e-9)
    assert (result.occlusion < 0).any()  # else the size would not differ from the effect


def test_border_share_tells_the_border_from_the_middle(plant, rng):
    images = random_images(rng, shape=(1, 8, 8))
    middle = np.zeros((8, 8), bool)
    middle[2:6, 2:6] = True
    weights = np.stack([middle, ~middle, np.ones((8, 8))])[:, None] * 1.0
    result = locate(plant(Planted(weights), images), images, [0, 1, 2], patch=1, fill="zero")
    assert result.border_area == 0.75
    np.testing.assert_allclose(result.border_share[:2], [0, 1], atol=1e-6)
    even = replace(result, occlusion=-np.ones_like(result.occlusion))
    np.testing.assert_allclose(even.border_share, 0.75)
    # per image: 2 of 4 and 0 of 1 in the ring, and one without effect, which does not count
    maps = np.zeros((1, 3, 8, 8))
    maps[0, 0, 0, 0], maps[0, 0, 4, 4], maps[0, 1, 3, 3] = 2, -2, 1
    assert replace(result, occlusion=maps).border_share[0] == 0.25


def test_peak_is_the_place_of_the_largest_fall(plant, rng):
    images = random_images(rng)
    weights = np.zeros((2, 3, 6, 8))
    weights[0, :, 4, 5], weights[1, :, 4, 5] = 1, -1
    planted = plant(Planted(weights), images)
    result = locate(planted, images, [0, 1], n_images=2, patch=1, stride=1, fill="zero")
    assert result.peak.tolist() == [[[4, 5]] * 2, [[-1, -1]] * 2]  # covering only raises the second


def test_frame_has_a_row_a_dimension_and_image(checkpoint, some):
    result = locate(checkpoint, some, [6, 2], n_images=3)
    frame = result.to_frame()
    assert frame["dimension"].tolist() == [6] * 3 + [2] * 3
    assert frame["rank"].tolist() == [1, 2, 3] * 2
    for name, values in (
        ("row", result.rows), ("label", result.labels), ("activation", result.activations),
        ("z_score", result.z_score), ("agreement", result.agreement),
        ("peak_y", result.peak[..., 0]), ("peak_x", result.peak[..., 1]),
    ):  # fmt: skip
        np.testing.assert_array_equal(frame[name], values.ravel())
    named = replace(
        result, class_names=tuple("zero one two three four five six".split()) + ("x",) * 3
    )
    expected = [named.class_names[label] for label in result.labels.ravel()]
    assert named.to_frame()["class_name"].tolist() == expected
    assert set(replace(result, class_names=()).to_frame()["class_name"]) == {""}


def test_summary_says_what_the_images_are(checkpoint, some):
    result = locate(checkpoint, some, [6], n_images=3)
    result = replace(result, labels=np.array([[2, 1, 2]]), class_names=("a", "b", "c"))
    summary = result.summary()
    assert summary["n_samples"] == 40
    assert (summary["n_images"], summary["patch"], summary["stride"]) == (3, 4, 2)
    assert summary["dimensions"]["6"]["class"] == "c"
    assert summary["dimensions"]["6"]["n_of_class"] == 2
    assert replace(result, class_names=()).summary()["dimensions"]["6"]["class"] == 2


def test_default_patch_is_a_seventh_and_fits(plant, rng):
    for side, patch, stride in ((28, 4, 2), (6, 2, 1), (1, 1, 1), (64, 9, 4)):
        images = random_images(rng, n=2, shape=(1, side, side + 3))
        planted = plant(Planted(np.ones((1, 1, side, side + 3))), images)
        result = locate(planted, images, [0], n_images=1)
        assert (result.patch, result.stride) == (patch, stride)


def test_progress_has_one_total_and_reaches_it(checkpoint, some):
    seen = []
    locate(
        checkpoint, some, [1, 2], n_images=3, batch_size=16,
        progress=lambda *numbers: seen.append(numbers),
    )  # fmt: skip
    done, totals = zip(*seen, strict=True)
    assert set(totals) == {len(some) + 6}
    assert done[:3] == (16, 32, len(some))
    assert done[-1] == len(some) + 6
    assert list(done) == sorted(set(done))


@pytest.mark.parametrize(
    ("dimensions", "options", "sentence"),
    [
        ([3, 16], {}, r"^dimensions must lie in \[0, 16\), those of the checkpoint; got 16\.$"),
        ([-1], {}, r"^dimensions must lie in \[0, 16\), those of the checkpoint; got -1\.$"),
        ([], {}, r"^dimensions must be a list of at least one index; got float64 of shape \(0,\)"),
        ([0.5], {}, r"^dimensions must be a list of at least one index; got float64 of shape \(1,"),
        (3, {}, r"^dimensions must be a list of at least one index; got int64 of shape \(\)"),
        ([4, 2, 4], {}, r"^dimensions must differ; got 4 more than once\.$"),
        ([0], {"n_images": 0}, r"^n_images must lie in \[1, 40\], the number of images; got 0\.$"),
        ([0], {"n_images": 41}, r"^n_images must lie in \[1, 40\], the number of images; got 41"),
        ([0], {"patch": 0}, r"^patch must lie in \[1, 28\], the image's shorter side; got 0\.$"),
        ([0], {"patch": 29}, r"^patch must lie in \[1, 28\], the image's shorter side; got 29\.$"),
        ([0], {"stride": 0}, r"^stride must lie in \[1, 4\], the patch, or a gap would .*; got 0"),
        ([0], {"stride": 5}, r"^stride must lie in \[1, 4\], the patch, or a gap would .*; got 5"),
        ([0], {"fill": "blur"}, r"^fill must be one of mean, zero; got 'blur'\.$"),
        ([0], {"batch_size": 0}, r"^n_views must be >= 0 and batch_size >= 1; got 0 and 0\.$"),
    ],
)
def test_bad_input_is_refused(checkpoint, some, dimensions, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        locate(checkpoint, some, dimensions, **options)


def test_images_of_another_shape_are_refused(checkpoint, rng):
    other = random_images(rng)
    with pytest.raises(ValueError, match=r"^images must have shape \(N, 1, 28, 28\)"):
        locate(checkpoint, other, [0])


def tiles_of(ax, result, n_across):
    """Cut the three groups of the first dimension's first row of tiles out of the mosaic."""
    height, width = result.occlusion.shape[2:]
    board, thin = np.asarray(ax.images[0].get_array()), max(1, round(width / 28))
    step = n_across * (width + thin) + 4 * thin
    return [
        [
            board[:height, group * step + k * (width + thin) :][:, :width, :3]
            for k in range(n_across)
        ]
        for group in range(3)
    ]


def test_figure_shows_images_and_maps_of_the_result(checkpoint, some):
    result = locate(checkpoint, some, [6, 2, 3, 9, 11, 1, 0], n_images=6)
    occlusion = result.occlusion.copy()
    occlusion[0, 0] = 0
    occlusion[0, 0, 0, :2] = [9, -9]  # beyond all others: the ends of the scale
    result = replace(result, occlusion=occlusion)
    ax = Figure().subplots()
    assert plot_localisation(result, ax=ax) is ax
    (images, falls, slopes), darkness = tiles_of(ax, result, 4), []
    for rank in range(4):
        grey = result.images[0, rank, 0] / 255
        np.testing.assert_allclose(images[rank], np.repeat(grey[..., None], 3, axis=-1))
        # one colour map on one scale: the darker, the larger the gradient
        darkness.append(1 - slopes[rank].mean(axis=-1).ravel())
        gradient = result.gradient[0, rank].ravel()
        assert np.diff(darkness[rank][np.argsort(gradient)]).min() >= 0
    assert np.max(darkness) > 0.9
    most = np.argmax([each.max() for each in darkness])
    assert most == result.gradient[0, :4].max(axis=(1, 2)).argmax()
    up, down, rest = falls[0][0, 0], falls[0][0, 1], falls[0][5, 5]
    np.testing.assert_allclose(up, to_rgb(BLUE), atol=0.01)
    np.testing.assert_allclose(down, to_rgb(ORANGE), atol=0.01)
    np.testing.assert_allclose(rest, 1, atol=0.01)  # white: no effect
    assert "first 6 of 7 dimensions" in ax.get_title(loc="left")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    shown = result.activations[0, :4]
    assert labels[0] == f"dim. 6\n{shown[-1]:.3g} to {shown[0]:.3g}"
    assert len(labels) == 6
    heads = [label.get_text() for label in ax.get_xticklabels()]
    assert heads == ["image", "occlusion: fall of the activation", "input gradient, absolute"]
    assert ax.images[0].get_interpolation() == "nearest"
    assert "blue: covering the place lowers the activation" in ax.get_xlabel()


def test_figure_of_one_dimension_wraps_its_images_and_keeps_colours(plant, rng):
    images = random_images(rng, shape=(3, 8, 8))
    result = locate(plant(Planted(np.zeros((1, 3, 8, 8))), images), images, [0], n_images=6)
    ax = Figure().subplots()
    plot_localisation(result, ax=ax)  # a dead dimension: no division by zero
    board = np.asarray(ax.images[0].get_array())
    assert board.shape[:2] == (3 * 9 - 1, 3 * (2 * 9 + 4) - 5)  # six tiles as three rows of two
    pictures, falls, slopes = tiles_of(ax, result, 2)
    for rank in range(2):
        np.testing.assert_allclose(pictures[rank], np.moveaxis(images.images[rank], 0, -1) / 255)
        np.testing.assert_allclose(falls[rank], 1, atol=0.01)
        np.testing.assert_allclose(slopes[rank], 1)
    second = board[9:17, :8, :3]
    np.testing.assert_allclose(second, np.moveaxis(images.images[2], 0, -1) / 255)
    assert board[..., 3].min() == 0  # between the groups whatever is behind shows
    assert "first" not in ax.get_title(loc="left")
