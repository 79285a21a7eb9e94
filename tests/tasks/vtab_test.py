"""VTAB and FGVC: their data sets, from TFDS's own mock, and their labels."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from subtune_jax.core import registry
from subtune_jax.tasks import fgvc, vtab


def load(name, **arguments):
    return registry.load("tasks", {"name": name, **arguments})


CLASSES = {  # of VTAB's nineteen tasks
    **{"caltech101": 102, "cifar100": 100, "dtd": 47, "flowers102": 102, "pets": 37},
    **{"svhn": 10, "sun397": 397, "camelyon": 2, "eurosat": 10, "resisc45": 45},
    **{"retinopathy": 5, "clevr_count": 8, "clevr_distance": 6, "dmlab": 6, "kitti": 4},
    **{"dsprites_location": 16, "dsprites_orientation": 16},
    **{"smallnorb_azimuth": 18, "smallnorb_elevation": 9},
}


class Scenes(list):
    """A data source of scenes with 3 to 10 objects, as CLEVR and KITTI have them."""

    def __init__(self):
        super().__init__(self.scene(number) for number in range(6))
        self.data_source = self

    def scene(self, number):
        rng = np.random.default_rng(number)
        count = 3 + number
        objects = {
            "size": np.zeros(count),
            "pixel_coords": rng.uniform(7, 12, (count, 3)),
            "type": rng.integers(0, 8, count),
            "location": rng.uniform(0, 60, (count, 3)),
        }
        return {"image": np.zeros((4, 5, 3), np.uint8), "objects": objects}


@pytest.mark.parametrize("dataset", CLASSES)
def test_every_task_of_vtab_is_there(dataset):
    # The mock's random objects have fields of different lengths.
    objects = dataset[:5] in ("clevr", "kitti")
    mocked = {"as_data_source_fn": lambda *_, **__: Scenes()} if objects else {}
    with tfds.testing.mock_data(num_examples=4, **mocked):
        task = load("vtab", dataset=dataset)
    assert len(task.classes) == CLASSES[dataset] == len(set(task.classes))
    for split in (task.train, task.validation, task.test):
        image = split.read(len(split.labels) - 1)["image"]
        assert image.dtype == np.uint8 and image.shape[2] == 3
    assert "tensorflow" not in sys.modules


def test_vtab_has_nineteen_tasks_of_800_and_200_images():
    assert vtab.PRESETS.keys() == CLASSES.keys()
    with tfds.testing.mock_data(num_examples=1001):
        task = load("vtab", dataset="cifar100")
    sizes = [len(split.labels) for split in (task.train, task.validation, task.test)]
    assert sizes == [800, 200, 1001]


@pytest.mark.parametrize("preset", vtab.PRESETS.values())
def test_no_slice_of_vtab_overlaps_with_another(preset):
    def interval(piece):
        split, _, limits = piece.rstrip("]").partition("[")
        low, _, high = limits.partition(":")
        ends = {"": (0, 100), "800": (0, 0)}  # 800 of any train are below its 60 %
        start = 0 if low == "" else int(low.rstrip("%"))
        end = ends[high][1] if high in ends else int(high.rstrip("%"))
        return split, start, end

    pieces = [interval(piece) for piece in preset.slices]
    for one in range(3):
        for other in range(one):
            (a, low, high), (b, start, end) = pieces[one], pieces[other]
            assert a != b or high <= start or end <= low


def last_below(limits, value):
    """VTAB's definition of an interval's number."""
    return int(np.max(np.where(np.array(limits) - value < 0)))


@pytest.mark.parametrize("depth", [0.1, 7.9, 8.0, 8.2, 8.5, 9.3, 9.9, 10.0, 10.1, 50.0])
def test_clevr_distance_is_the_interval_of_the_closest_object(depth):
    objects = {"pixel_coords": np.array([[0, 0, 60.0], [99, 99, depth]])}
    limits = [0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0]
    assert vtab._clevr_distance(objects) == last_below(limits, depth)


@pytest.mark.parametrize("count", range(3, 11))
def test_clevr_count_starts_at_three(count):
    label = vtab._clevr_count({"size": np.zeros(count)})
    assert vtab.PRESETS["clevr_count"].target.classes[label] == str(count)


@pytest.mark.parametrize("seed", range(100))
def test_kitti_distance_is_the_interval_of_the_closest_vehicle(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 5))
    kinds, depths = rng.integers(0, 8, count), rng.choice([3.0, 8.0, 15.0, 40.0], count)
    vehicles = [d for kind, d in zip(kinds, depths, strict=True) if kind in (0, 1, 2)]
    location = np.stack([np.zeros(count), np.zeros(count), depths], axis=1)
    expected = last_below([-100.0, 8.0, 20.0, 999.0], min([*vehicles, 1000.0]))
    assert vtab._kitti_distance({"type": kinds, "location": location}) == expected


@pytest.mark.parametrize("task, original", [("location", 32), ("orientation", 40)])
def test_dsprites_are_in_sixteen_equal_parts(task, original):
    label = vtab.PRESETS[f"dsprites_{task}"].target.label
    for value in range(original):
        assert label(value) == int(np.floor(value / (original / 16)))
    assert {label(value) for value in range(original)} == set(range(16))


@pytest.mark.parametrize("dataset", fgvc.PRESETS)
def test_every_set_of_fgvc_is_there(dataset):
    classes = {"cub": 200, "flowers": 102, "cars": 196, "dogs": 120}
    with tfds.testing.mock_data(num_examples=4):
        task = load("fgvc", dataset=dataset)
    assert len(task.classes) == classes[dataset]
    assert task.train.read(0)["image"].shape[2] == 3
