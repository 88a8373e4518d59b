"""Every module that reads a file is listed here with the test that changes its files at random."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch")
READING = {
    *("read_json", "read_file", "read_object", "JsonLines", "sound_lines", "read_foreign_object", "reading_foreign"),
    *("parse_yaml", "parse_json", "parse_bounded", "safe_open", "load_file", "loads", "read_text", "read_bytes"),
    *(
        "read_at_most",
        "numbered_lines",
        "read_records",
        "placed_records",
        "connect",
        "ZipFile",
        "reader",
        "unpacked",
        "read_block",
    ),
    *("ParquetFile", "load_from_disk", "load_dataset"),
}
OF_RUNS = "pretraining/checkpoints/test_file_mutations.py"
OF_FINETUNING = "finetuning/run/test_file_mutations.py"
OF_STUDIES = "gap/cells/test_file_mutations.py"
OF_SOURCES = "shards/text/test_source_mutations.py"
OF_EXAMPLES = "finetuning/examples/test_example_mutations.py"
OF_MODELS = "pretraining/model/source/test_source_fuzz.py"
OF_LIVE_RUNS = "gap/watch/readers/test_file_mutations.py"
OF_BUILDS = "shards/building/test_state.py"
OF_SHARDS = "shards/storage/test_file_mutations.py"
OF_STORES = "runtime/stores/test_folders.py"
NO_FILE = ""  # text of this program, of the kernel, or on a command line; or the low-level part of other readers
FUZZED = {
    "runtime/files/foreign.py": OF_MODELS,
    "runtime/files/json_lines.py": OF_STUDIES,
    "runtime/files/schemas.py": OF_STUDIES,
    "runtime/files/unique_keys.py": "runtime/options/test_file_mutations.py",
    "runtime/files/whole_files.py": OF_STUDIES,
    "runtime/hub_repository.py": NO_FILE,  # bytes that are hashed
    "runtime/model_places.py": OF_STORES,  # a manifest, by the same reader
    "runtime/options/command_line.py": "runtime/options/test_file_mutations.py",
    "runtime/processes/collectives.py": NO_FILE,
    "runtime/processes/interruption.py": NO_FILE,
    "runtime/processes/liveness.py": NO_FILE,
    "runtime/stores/folders.py": OF_STORES,
    "runtime/stores/records.py": NO_FILE,  # bytes that are compared
    "runtime/trackers.py": "runtime/test_trackers.py",
    "shards/building/packing.py": OF_BUILDS,
    "shards/building/state.py": OF_BUILDS,
    "shards/small_world/world.py": "shards/small_world/test_world.py",
    "shards/storage/manifest.py": "shards/storage/test_manifest.py",
    "shards/storage/reader.py": OF_SHARDS,
    "shards/storage/shard_file.py": OF_SHARDS,
    "shards/storage/uploading.py": OF_SHARDS,
    "shards/text/dumps/json_arrays.py": OF_SOURCES,
    "shards/text/dumps/markup.py": OF_SOURCES,
    "shards/text/dumps/web_archives.py": OF_SOURCES,
    "shards/text/dumps/wiki_dumps.py": OF_SOURCES,
    "shards/text/readers.py": OF_SOURCES,
    "shards/text/records.py": OF_SOURCES,
    "shards/text/saved_datasets.py": OF_SOURCES,
    "shards/text/sources.py": OF_SOURCES,
    "shards/tokenization/tokenizer_source.py": OF_MODELS,
    "shards/tokenization/vocabulary.py": NO_FILE,
    "pretraining/checkpoints/checkpoint.py": OF_RUNS,
    "pretraining/checkpoints/mirror.py": NO_FILE,  # series.json, which it uploads as it is
    "pretraining/checkpoints/origin.py": OF_RUNS,
    "pretraining/checkpoints/resumption.py": NO_FILE,  # digests that are compared as bytes
    "pretraining/checkpoints/run_file.py": OF_RUNS,
    "pretraining/checkpoints/series.py": OF_RUNS,
    "pretraining/engines/deepspeed_config.py": "pretraining/engines/test_file_mutations.py",
    "pretraining/loop/journal.py": OF_RUNS,
    "pretraining/model/configuration.py": NO_FILE,
    "pretraining/model/flops.py": NO_FILE,
    "pretraining/model/source/checkpoint.py": OF_MODELS,
    "pretraining/model/source/config.py": OF_MODELS,
    "pretraining/model/source/weights.py": OF_MODELS,
    "pretraining/plan/identity.py": NO_FILE,
    "pretraining/publishing/export.py": NO_FILE,  # what it has just written
    "pretraining/publishing/hub_series.py": "pretraining/publishing/test_hub_series.py",
    "finetuning/recipes/choices/chain.py": OF_FINETUNING,
    "finetuning/examples/dataset_records.py": OF_EXAMPLES,
    "finetuning/examples/record_files.py": OF_EXAMPLES,
    "finetuning/model/heads.py": OF_FINETUNING,
    "finetuning/loop/run_log.py": OF_FINETUNING,
    "finetuning/loop/run_state.py": NO_FILE,
    "finetuning/run/finished.py": OF_FINETUNING,
    "finetuning/run/saved_model.py": OF_FINETUNING,
    "finetuning/sweep/cell_file.py": OF_FINETUNING,
    "finetuning/sweep/runner.py": OF_FINETUNING,
    "finetuning/sweep/sweep.py": "finetuning/sweep/test_file_mutations.py",
    "finetuning/recipes/texts/glue_tasks.py": OF_EXAMPLES,
    "finetuning/recipes/texts/labelled_folders.py": OF_EXAMPLES,
    "finetuning/recipes/texts/labelled_text.py": OF_EXAMPLES,
    "finetuning/recipes/tokens/tagged_files.py": OF_EXAMPLES,
    "gap/analysis/tables/packed_predictions.py": OF_STUDIES,
    "gap/analysis/tables/run_folder.py": OF_STUDIES,
    "gap/cells/code_identity.py": NO_FILE,
    "gap/cells/consistency.py": OF_MODELS,
    "gap/cells/job_list.py": OF_STUDIES,
    "gap/cells/provenance.py": NO_FILE,
    "gap/cells/search/choice.py": OF_STUDIES,
    "gap/cells/store.py": OF_STUDIES,
    "gap/published/results_page.py": NO_FILE,  # Markdown that goes in as it is
    "gap/published/study_folder.py": NO_FILE,  # lines of scores.jsonl that have been read before
    "gap/study/clock.py": NO_FILE,
    "gap/study/until.py": OF_STUDIES,
    "gap/tasks/contamination.py": OF_STUDIES,
    "gap/tasks/kinds/pairs.py": "gap/tasks/kinds/test_pairs.py",
    "gap/tasks/unigram.py": OF_STUDIES,
    "gap/watch/owners.py": OF_LIVE_RUNS,
    "gap/watch/page/server.py": NO_FILE,  # the page's own files
    "gap/watch/readers/pretraining_run.py": OF_LIVE_RUNS,
    "gap/watch/readers/shard_build.py": OF_LIVE_RUNS,
    "gap/watch/readers/study_cells.py": OF_LIVE_RUNS,
    "gap/watch/readers/study_run.py": OF_LIVE_RUNS,
}


def reads(source: str) -> bool:
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(ast.unparse(function).rsplit(".", 1)[-1] in READING for function in calls)


def test_every_module_that_reads_files_is_listed_with_its_fuzzer():
    files = [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")]
    readers = {path.relative_to(ROOT).as_posix() for path in files if reads(path.read_text(encoding="utf-8"))}
    assert sorted(readers - set(FUZZED)) == []
    assert sorted(name for name in FUZZED if not (ROOT / name).is_file()) == []
    for test in sorted(set(FUZZED.values()) - {NO_FILE}):
        assert "refusals(" in (ROOT / "tests" / test).read_text(encoding="utf-8"), test


def test_a_new_reader_would_be_seen():
    assert reads("from runtime.files.schemas import read_object\ndef f(path):\n    return read_object(path, S, 'x')")
    assert not reads("def f(path):\n    return path.exists()")
