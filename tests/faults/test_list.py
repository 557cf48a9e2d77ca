"""The faults that a user is promised to be safe from, and the tests that cause each for real."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FAULTS = {
    "a kernel killed at random": ["soak.py::soak", "batch/test_run.py::everything_wrong",
        "faults/test_processes.py::one_of_each",
        "batch/test_grid.py::"
        "test_a_retry_helps_where_a_process_died_and_is_not_wasted_on_an_error"],
    "the runner killed, SIGTERM, ^C": [
        "faults/test_processes.py::"
        "test_a_grid_that_is_stopped_in_its_midst_is_completed_by_a_second_start",
        "faults/test_processes.py::"
        "test_a_batch_killed_three_times_at_random_repeats_no_finished_run",
        "faults/test_processes.py::"
        "test_a_batch_that_is_stopped_while_it_preloads_leaves_nothing",
        "batch/test_run.py::test_a_stopped_batch_leaves_no_process_and_no_half_file"],
    "the process that runs are forked from killed": [
        "faults/test_processes.py::"
        "test_without_the_preloading_process_the_runs_go_on_and_the_rest_are_fresh"],
    "a cell that hangs in C and ignores signals, a missing package, a worker killed": [
        "faults/test_processes.py::one_of_each",
        "faults/test_processes.py::test_each_fault_has_its_status_and_stops_no_other",
        "faults/test_processes.py::"
        "test_after_the_faults_are_mended_a_second_start_does_the_rest"],
    "a child that outlives its cell": [
        "faults/test_processes.py::test_of_no_fault_anything_is_left",
        "batch/test_run.py::test_a_child_that_cuts_itself_off_does_not_outlive_its_lesson"],
    "a cell error": ["batch/test_run.py::test_a_failing_cell_is_kept_for_looking_at",
        "faults/test_processes.py::one_of_each"],
    "memory beyond the limit": [
        "faults/test_processes.py::one_of_each",
        "batch/test_run.py::test_memory_of_a_child_that_cuts_itself_off_is_counted",
        "batch/test_run.py::test_memory_that_processes_share_is_counted_once"],
    "a full disk": ["faults/test_folders.py::test_a_full_disk_is_named_and_the_next_run_goes_on",
                    "batch/test_run.py::test_a_full_disk_keeps_the_output_that_was_there"],
    "a read-only output folder": [
        "faults/test_folders.py::"
        "test_an_output_folder_that_cannot_be_written_is_named_before_anything_runs",
        "faults/test_folders.py::"
        "test_an_output_folder_that_becomes_read_only_is_named_with_what_to_do"],
    "a cell that deletes the output folder": [
        "faults/test_folders.py::test_a_cell_that_deletes_the_output_folder_ends_no_batch"],
    "a broken notebook": [
        "faults/test_folders.py::test_of_broken_notebooks_none_starts_the_batch",
        "faults/test_folders.py::test_a_notebook_without_parameters_runs_and_has_no_grid",
        "batch/test_run.py::test_a_broken_notebook_is_named"],
    "a corrupt archive": [
        "assets/test_fetch.py::test_an_archive_spoilt_in_the_cache_is_named_and_fetched_again"],
    "a truncated model file": [
        "assets/test_fetch.py::test_a_spoilt_folder_is_named_and_built_again"],
    "two batches on one cache and one output folder": [
        "assets/test_fetch.py::test_processes_that_ask_at_once_build_once",
        "faults/test_folders.py::test_of_two_batches_on_one_folder_the_second_is_sent_away"],
    "a checkpoint cut in mid-write": [
        "training/test_resume.py::"
        "test_a_training_killed_at_any_moment_ends_as_one_that_ran_through",
        "faults/test_training.py::"
        "test_a_run_that_was_cut_in_training_ends_as_one_that_was_not"],
    "a loss that becomes NaN": [
        "faults/test_training.py::"
        "test_a_training_that_diverges_ends_the_run_with_the_remedy_and_keeps_the_others",
        "training/test_checks.py::"
        "test_a_loss_that_is_no_number_stops_the_training_with_the_remedy"],
    "a network cut in mid-download": [
        "faults/test_network.py::"
        "test_a_download_that_is_cut_leaves_nothing_and_the_next_is_whole"],
    "an archive member that escapes its folder": [
        "assets/test_fetch.py::test_members_cannot_climb_out_of_their_folder"],
    "pickled weights, and a model that asks for its own code": [
        "faults/test_folders.py::test_pickled_weights_are_refused_and_not_opened",
        "faults/test_folders.py::"
        "test_a_model_that_asks_for_its_own_code_is_refused_without_advice_to_run_it"],
    "a kernel that never answers": [
        "faults/test_processes.py::test_a_kernel_that_never_answers_is_named_and_tried_again"],
    "a clock that jumps": [
        "faults/test_folders.py::"
        "test_a_clock_that_jumps_ends_no_run_early_and_makes_none_endless"],
    "a node of a cluster that is lost": [
        "faults/test_ray.py::"
        "test_a_grid_on_two_nodes_of_which_one_is_killed_ends_as_on_one_machine"],
    "a container with a CPU quota below its cores": [
        "faults/test_folders.py::"
        "test_in_a_container_with_a_quota_below_its_cores_one_run_is_at_work",
        "models/test_hardware.py::test_a_containers_quota_of_processors_is_seen",
        "batch/test_grid.py::test_workers_go_by_cores_and_memory"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_list_is_still_caused_by_its_tests(fault):
    """A test that was renamed or taken away would leave a promise without its proof."""
    for place in FAULTS[fault]:
        file, _, name = place.partition("::")
        names = {node.name for node in ast.parse((TESTS / file).read_text()).body
                 if isinstance(node, ast.FunctionDef)}
        assert name in names, f"{place} is gone"


def test_none_of_them_is_skipped():
    """Ray apart, which `make test-all` installs: a skipped proof looks like one that holds."""
    text = "".join(path.read_text() for path in sorted((TESTS / "faults").glob("*.py"))
                   if path.name not in ("test_ray.py", Path(__file__).name))
    assert not [word for word in ("importorskip", "pytest.skip", "skipif", "xfail") if word in text]
