"""Which tests are slow besides those that say so themselves, and a third of them."""

import fnmatch

import cpu_budget
import pytest

# Methods that networks other than the fastest are tried with: they need no gradients of
# the base. None is trained there: compiling a step takes most of a network's budget.
TRIED = ("bias", "blocks", "last", "lora", "magnitude", "random", "s2ft")

# Node ids under tests/, with * and ?, () for []; each promise keeps a form that is not
# slow: another plug-in, another network, or the plug-in's own tests.
SLOW = (
    # Four seconds of compilation each: gps and magnitude stand for masks that rest,
    # dps_dense for dps_mix, and the other dynamic methods for two of them.
    "training/immobility_test.py::*(mlp-child_tuning_d-*",
    "training/immobility_test.py::*(mlp-dps_mix-*",
    "training/immobility_test.py::*(mlp-fish-*",
    "methods/methods_test.py::test_a_*_mask_moves_within_its_reach(badam*",
    "methods/methods_test.py::test_a_*_mask_moves_within_its_reach(dps_dense*",
    # Benchmarks of eight to fourteen seconds: that their two sides agree is what
    # subtuning/trials_test.py and study/seed_runs_test.py show of what they measure.
    "study/benches/dynamic_benches_test.py::test_*_masks_are_measured_in_the_stages_of_*",
    "study/benches/dynamic_benches_test.py::test_a_seed_that_shares_programs_is_*",
    "study/benches/image_benches_test.py::test_the_naive_profile_and_ours_find_*",
    "study/benches/step_costs_test.py::test_a_step_of_one_block_costs_what_it_needs*",
    # Trials beside `train` on the networks that compile longest: mlp and vit stay.
    "subtuning/trainer_test.py::*_training_that_train_does(bert-*",
    "subtuning/trainer_test.py::*_training_that_train_does(efficientnet_lite0-*",
    "subtuning/trainer_test.py::*_training_that_train_does(resnet-*",
    "subtuning/trainer_test.py::*_training_that_train_does(vit-first*",
    "subtuning/trials_test.py::test_a_step_costs_what_*(efficientnet_lite0)",
    # One form on every network, all four on mlp; of layers two in Linen, two in nnx.
    "sparse_step/interpreter_test.py::*_on_every_network(bert-any)",
    "sparse_step/interpreter_test.py::*_on_every_network(efficientnet_lite0-any)",
    "sparse_step/interpreter_test.py::*_on_every_network(resnet-any)",
    "sparse_step/interpreter_test.py::*_on_every_network(vit-any)",
    "sparse_step/interpreter_test.py::*_on_every_network(vit-columns)",
    "sparse_step/interpreter_test.py::*_on_every_network(vit-rows)",
    "sparse_step/interpreter_test.py::test_every_layer_of_linen_has_a_site(any)",
    "sparse_step/interpreter_test.py::test_every_layer_of_linen_has_a_site(rows)",
    "sparse_step/interpreter_test.py::test_every_layer_of_nnx_has_a_site(columns)",
    "sparse_step/interpreter_test.py::test_every_layer_of_nnx_has_a_site(neuron)",
    "sparse_step/interpreter_test.py::test_norms_that_*(efficientnet_lite0)",
    "sparse_step/interpreter_test.py::test_norms_that_*(resnet)",
    "sparse_step/interpreter_test.py::test_vectors_may_*(efficientnet_lite0)",
    "sparse_step/interpreter_test.py::test_vectors_may_*(resnet)",
    "sparse_step/sparse_step_test.py::test_masked_compact_and_sparse_agree_*(bert)",
    "sparse_step/sparse_step_test.py::test_masked_compact_and_sparse_agree_*(vit)",
    # Masks that move stay as one of drawn elements and one of positions; eight devices.
    "training/dynamic_run_test.py::test_a_run_killed_in_a_stage_*(dps_mix)",
    "training/dynamic_run_test.py::test_a_run_killed_in_a_stage_*(gmt)",
    "training/dynamic_run_test.py::test_a_run_killed_in_a_stage_*(lisa)",
    "training/parallel_test.py::test_any_number_of_devices_*(*-2)",
    "training/parallel_test.py::test_any_number_of_devices_*(*-4)",
    # On texts one run of classes stays; searches and comparisons stay on images.
    "training/text_run_test.py::test_a_run_on_texts_*(numbers)",
    "training/text_run_test.py::test_a_search_follows_texts_to_their_final_trainings",
    "training/text_run_test.py::test_a_comparison_holds_profiles_and_*_of_numbers",
    # One notebook stays, that of the README's job.
    "colabs_test.py::test_a_notebook_runs_to_its_end(gradients)",
    "colabs_test.py::test_a_notebook_runs_to_its_end(moving)",
    "colabs_test.py::test_a_notebook_runs_to_its_end(subtuning)",
    # Eight devices of one process stay; one kill of a run, of a profile.
    "training/run_test.py::test_two_processes_end_where_one_does",
    "training/run_test.py::test_a_killed_run_resumes_to_the_same_bits(9)",
    "training/parallel_test.py::test_texts_and_a_mask_that_moves_end_*",
    "training/dynamic_run_test.py::test_a_run_killed_in_a_stage_*(child_tuning_f)",
    "optim/additive_test.py::test_an_interrupted_run_resumes_*(ssf)",
    "subtuning/block_search_test.py::test_a_search_killed_at_any_moment_*",
    # Second forms of profiles and searches, and of their configs.
    "subtuning/block_profile_test.py::test_a_regression_of_texts_has_proxies_*",
    "subtuning/block_profile_test.py::test_blocks_can_start_*(full)",
    "subtuning/block_search_test.py::test_a_search_finds_exactly_*(hidden02)",
    "subtuning/trainer_test.py::test_a_trial_may_train_single_arrays(vit)",
    "subtuning/trainer_test.py::*_training_that_train_does_with(half precision)",
    "subtuning/trials_test.py::test_a_step_costs_what_*(vit)",
    "configs_test.py::test_a_config_runs_*(search-subtuning_vtab*",
    "configs_test.py::test_a_config_runs_*(compare-*",
    # Networks that compile long; mlp and vit stay, and the smaller ResNet.
    "backbones/resnet_test.py::test_a_file_gives_*(50-*",
    "backbones/resnet_test.py::test_the_small_network_is_*(8)",
    "serving/multitask_test.py::test_every_task_answers_as_its_own_model(resnet)",
    "sparse_step/interpreter_test.py::*_on_every_network(bert-neuron)",
    "sparse_step/interpreter_test.py::*_on_every_network(resnet-neuron)",
)


def mark(config, items):
    """Marks what SLOW names, and second forms of promises.

    Raises:
      UsageError: a pattern names no test of its file, all of which is here.
    """
    whole = not any("::" in argument for argument in config.args)
    names = {item: _name(item) for item in items}
    for item in filter(_second_form, items):
        item.add_marker(pytest.mark.slow)
    for pattern in SLOW:
        found = [i for i, name in names.items() if fnmatch.fnmatchcase(name, pattern)]
        for item in found:
            item.add_marker(pytest.mark.slow)
        file = pattern.partition("::")[0]
        here = any(name.startswith(f"{file}::") for name in names.values())
        if whole and here and not found:
            raise pytest.UsageError(f"tests/slow_tests.py: no test is {pattern}")


def _second_form(item):
    """Is it a method's promise on a network where others stand for it?"""
    method = cpu_budget.named(item, "methods")
    network = cpu_budget.named(item, "backbones")
    if None in (method, network) or network == cpu_budget.FAST:
        return False
    return method not in TRIED or item.path.parent.name == "training"


def keep_a_third(config, items, commit):
    """Leaves out two thirds of the slow tests; neighbours fall into different ones."""
    slow = sorted((i for i in items if i.get_closest_marker("slow")), key=_name)
    kept = set(slow[int(commit, 16) % 3 :: 3])
    dropped = [item for item in slow if item not in kept]
    config.hook.pytest_deselected(items=dropped)
    gone = set(dropped)
    items[:] = [item for item in items if item not in gone]


def _name(item):
    """The node id below tests/, with brackets that fnmatch reads as themselves."""
    return item.nodeid.removeprefix("tests/").replace("[", "(").replace("]", ")")
