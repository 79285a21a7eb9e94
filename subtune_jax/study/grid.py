"""The grid of a comparison: which runs there are, and what each of them is set to."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from subtune_jax.training.settings import Settings, with_changes

Change = Mapping[str, Any]
Place = tuple[str, str, str]  # task, network, method


class GridOptions(NamedTuple):
    """What is compared; see `make`."""

    tasks: Mapping[str, Change]
    networks: Mapping[str, Change]
    methods: Mapping[str, Change]
    seeds: tuple[int, ...]
    profiles: Change | None
    searches: Change | None
    proxies: str | None
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    rate_seeds: int


def make(
    tasks: Mapping[str, Change] | None = None,
    networks: Mapping[str, Change] | None = None,
    methods: Mapping[str, Change] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    profiles: Change | None = None,
    searches: Change | None = None,
    proxies: str | None = None,
    sizes: Sequence[int] = (),
    rates: Sequence[float] | None = None,
    rate_seeds: int | None = None,
) -> GridOptions:
    """Options of a comparison; a change is a dict of config keys, parts included.

    Args:
      tasks: label -> change of the config; None for the config's own task.
      networks: label -> change, likewise.
      methods: label -> change, a training for every seed.
      seeds: of trainings and searches.
      profiles: change for a profile of every task and network, over all seeds; None
        for no profiles.
      searches: change for a search of every task, network and seed; None for none.
        The first seed's has all `baselines`, repeated for every seed; the others train
        what they selected.
      proxies: cheap scores to compare with profiles, `all` or `NAME,NAME`; None for
        none.
      sizes: of further searches with the first seed: numbers of training and
        validation examples together, seven to three.
      rates: factors of the learning rate that the config gives a method. All methods
        alike train at each of them on every task and network; the one with the best
        validation metric is used, the smallest on a tie. A factor at which training
        fails is the worst. None or empty: the config's own rate.
      rate_seeds: how many seeds, the first ones, choose by their mean validation
        metric; None for one. What the others would have cost is saved: they train at
        the chosen rate alone.

    Raises:
      ValueError: no seeds, or rates that are no distinct positive factors or have
        no methods or too few seeds.
    """
    if not seeds:
        raise ValueError("grid.seeds=(); at least one is needed")
    factors = _rates(rates)
    if factors and not methods:
        problem = f"grid.rates={factors} without grid.methods"
        raise ValueError(f"{problem}; of a search they are baselines.rates")
    count = 1 if rate_seeds is None else rate_seeds
    if count not in range(1, len(seeds) + 1):
        problem = f"grid.rate_seeds={count}"
        raise ValueError(f"{problem}; it must be in [1, {len(seeds)}], the seeds")
    return GridOptions(
        tasks or {"": {}}, networks or {"": {}}, methods or {}, tuple(seeds),
        profiles, searches, proxies, tuple(sizes), factors, count,
    )  # fmt: skip


def _rates(rates: Any) -> tuple[float, ...]:
    """The factors, checked; folders are named by six of their digits."""
    factors = () if rates is None else rates
    fine = isinstance(factors, tuple | list)
    fine = fine and all(isinstance(f, int | float) and f > 0 for f in factors)
    if not fine or len({_label(factor) for factor in factors}) < len(factors):
        raise ValueError(f"grid.rates={rates}; they must be distinct positive factors")
    return tuple(factors)


def _label(rate: float) -> str:
    return f"{rate:g}"


class Job(NamedTuple):
    """One run: its command, its folder, its place in the grid, its changes.

    Attributes:
      rate: factor of the learning rate; None for the config's own.
      votes: whether it is run before rates are chosen, to choose among them where it
        has one; the others are run if theirs is chosen.
    """

    command: str
    folder: str
    task: str
    network: str
    method: str
    seed: int
    changes: tuple[Change, ...]
    rate: float | None = None
    votes: bool = True


def jobs(options: GridOptions) -> Iterator[Job]:
    """All runs; each kind for every task and network before the next kind."""
    first, count = options.seeds[0], len(options.seeds)

    def everywhere(
        command: str, name: str, seed: int, *changes: Change
    ) -> Iterator[Job]:
        for task, on in options.tasks.items():
            for network, of in options.networks.items():
                where = "_".join(part for part in (task, network) if part) or "all"
                yield Job(
                    command, f"{where}/{name}", task, network, "", seed,
                    (on, of, *changes, {"seed": seed}),
                )  # fmt: skip

    if options.profiles is not None:
        more = {"trials": {"seeds": count}}
        yield from everywhere("profile", "profile", first, options.profiles, more)
    if options.searches is not None:
        for seed in options.seeds:
            more = {"baselines": {"repeats": count} if seed == first else ONE}
            name = f"search{seed}"
            yield from everywhere("search", name, seed, options.searches, more)
        for size in options.sizes:
            counts = {"validation_examples": size * 3 // 10}
            counts["train_examples"] = size - size * 3 // 10
            more = {**counts, "baselines": FEW}
            name = f"examples{size}"
            yield from everywhere("search", name, first, options.searches, more)
    for method, change in options.methods.items():
        for seed in options.seeds:
            votes = seed in options.seeds[: options.rate_seeds]
            for rate in options.rates or (None,):
                end = f"{seed}" if rate is None else f"_rate{_label(rate)}_seed{seed}"
                for job in everywhere("train", f"{method}{end}", seed, change):
                    early = votes or rate is None
                    yield job._replace(method=method, rate=rate, votes=early)


ONE = {"rows": ("selected",), "repeats": 1}
FEW = {"rows": ("selected", "head", "full"), "repeats": 1}


def place(job: Job) -> Place:
    """Task, network and method: what a rate is chosen for."""
    return job.task, job.network, job.method


def complete(plain: Settings, job: Job) -> Settings:
    """All settings of a job; `plain` are those that its changes are of.

    Raises:
      ValueError: an unknown key or plug-in name.
    """
    settings = with_changes(plain, *job.changes)
    if job.rate is None:
        return settings
    rate = job.rate * settings["optimizer"]["learning_rate"]
    return with_changes(settings, {"optimizer": {"learning_rate": rate}})


def best(values: Mapping[float, Sequence[float]]) -> float:
    """The learning rate with the largest mean value, the smallest on a tie.

    >>> best({3.0: [0.5, 0.75], 1.0: [0.75, 0.5], 0.3: [0.5, 0.5]})
    1.0

    Args:
      values: rate -> validation metrics, one a seed; -inf where training failed.

    Raises:
      FloatingPointError: training failed at every rate.
    """
    means = {rate: statistics.fmean(values[rate]) for rate in sorted(values)}
    if max(means.values()) == -math.inf:
        rates = ", ".join(map(_label, means))
        raise FloatingPointError(f"training failed at every learning rate: {rates}")
    return max(means, key=lambda rate: means[rate])
