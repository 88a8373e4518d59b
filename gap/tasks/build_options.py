"""The options of `launch/build_shards.py`: those of a build, and a task in place of --input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetuning.recipes.options.glue import GlueOptions
from runtime.options.declaration import option, option_as_in
from runtime.options.option_rules import idle_beside
from runtime.stores.options import upload_problems
from shards.building.options import TEXT, BuildOptions


@dataclass(frozen=True, kw_only=True)
class TaskBuildOptions(BuildOptions):
    """Options of a build from files, or from the training texts of one task.

    Raises ValueError as `BuildOptions`, and unless exactly one of the two is named.
    """

    input: list[str] = option_as_in([], BuildOptions, "input")
    task: str | None = option(
        None,
        "task whose training texts are the input, as launch/gap.py names it: imdb=classification:aclImdb@1000",
        group=TEXT,
        identity=False,  # its texts are
    )
    data_dir: str | None = option_as_in(
        None, GlueOptions, "data_dir", "folder of GLUE's files, for --task glue:NAME", group=TEXT, identity=False
    )

    def contradictions(self) -> list[str]:
        """Either files or a task, and an output folder."""
        if self.task is None:
            return [*super().contradictions(), *idle_beside(self, ["data_dir"], "--input")]
        problems = upload_problems(self.upload, self.output_dir)
        if not self.output_dir:
            problems.append("--output_dir is needed: where the shards go")
        if self.input:
            problems.append(f"--task {self.task} and --input {self.input[0]}: give one of the two")
        if self.tokenizer and self.vocab_size:
            problems.append(f"--tokenizer {self.tokenizer} and --vocab_size {self.vocab_size}: give one of the two")
        return problems + idle_beside(self, ["document", "text_column"], "--task")

    @property
    def texts_file(self) -> Path:
        """Where the texts of --task are written: next to the shards, whose folder holds no input."""
        folder = Path(self.output_dir).absolute()
        return folder.with_name(f"{folder.name}.texts.jsonl")
