"""Shards from Python: `build`, which launch/build_shards.py calls too, and `stream`, batches for a loop of one's own.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack, overload

from runtime.options.keywords import Several, Words, options_of
from runtime.processes.interruption import forget_interruption, stopping_at_once
from runtime.processes.ranks import Ranks, read_ranks
from runtime.stores.options import in_local_folder
from shards.building.options import BuildOptions

if TYPE_CHECKING:
    import numpy as np
    import torch

    from shards.building.builder import Summary
    from shards.streaming.micro_batch import MicroBatch
    from shards.streaming.options import StreamOptions

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # the postfix has the rate, of text
NOT_PREDICTED = -100  # the label that the losses of torch and transformers leave out


class BuildKeywords(TypedDict, total=False):
    """What a call takes: the fields of `BuildOptions`, some of wider types, such as a path object or a list."""

    input: Required[Words | Sequence[Words]]
    document: Literal["file", "line", "paragraph"]
    text_column: Words
    max_document_mb: int
    on_bad_text: Literal["stop", "replace"]
    min_characters: int
    language: Several
    language_confidence: float
    nfc: bool
    html_entities: bool
    tokenizer: Words | None
    vocab_size: int | None
    vocabulary: Literal["wordpiece", "byte_bpe"]
    lowercase: bool
    vocabulary_sample_mb: int
    drop_duplicates: bool
    near_duplicates: Literal["drop", "separate", "ignore"]
    near_duplicate_threshold: float
    index_memory_mb: int
    validation_fraction: float
    words: Literal["none", "jieba"]
    block_tokens: int
    blocks_per_shard: int
    output_dir: Required[Words]
    upload: Words | None
    processes: int


@overload
def build(options: BuildOptions, /, *, progress: bool = ...) -> Summary: ...


@overload
def build(*, progress: bool = ..., **keywords: Unpack[BuildKeywords]) -> Summary: ...


def build(options: BuildOptions | None = None, /, *, progress: bool = True, **keywords: Any) -> Summary:
    """Turn text into token shards with a tokenizer and a manifest, as launch/build_shards.py does.

    The keywords are the options of the command, under the same names and with the same defaults (`--help` describes
    them); or give one object, `build(BuildOptions(...))`. An interrupted build is continued and a finished one kept
    when the same call is made again. `progress` shows a bar.

    With several `processes` (the default: one for each core) a script calls it below `if __name__ == "__main__":`,
    because each of them imports the script again. Only one rank of a launcher may call it.

    Returns the build in figures: `manifest` (`manifest.split("train").tokens`), `seconds`, `text_bytes`,
    `already_built`. Raises TypeError for an unknown keyword or a value of another type; ValueError for options or input
    that cannot be used, no text that is left, a folder with other shards; Failed when a worker process died;
    Interrupted on SIGTERM, SIGUSR1 or Ctrl-C, after which the same call continues; OSError of the disk.
    """
    wanted = in_local_folder(options_of(BuildOptions, options, keywords, function="build"))
    from tqdm import tqdm

    from runtime.stores.store import Store
    from shards.building.builder import build_shards
    from shards.building.report import progress_reporter
    from shards.storage.uploading import upload_shards

    look: dict[str, Any] = {"unit": "B", "unit_scale": True, "bar_format": BAR, "mininterval": 0.5, "delay": 0.5}
    bar = tqdm(desc="shards", disable=not progress, **look)
    forget_interruption(wanted.output_dir)
    with stopping_at_once(), bar:
        summary = build_shards(wanted, report=progress_reporter(bar))
        if wanted.upload is not None:
            bar.set_description("upload")
            upload_shards(Path(wanted.output_dir), Store(wanted.upload))
    return summary


def stream(
    shards: Words,
    *,
    batch_rows: int = 48,
    position: int = 0,
    seed: int = 0,
    max_seq_length: int = 128,
    mask_rate: float = 0.3,
    mask_token_rate: float = 0.8,
    random_token_rate: float = 0.1,
    whole_word_masking: bool = False,
    objective: Literal["mlm", "mlm+nsp"] = "mlm",
    split: Literal["train", "validation"] = "train",
    validation_rows: int = 384,
    num_workers: int = 0,
    return_tensors: Literal["pt", "np"] = "pt",
    rank: int | None = None,
    world_size: int | None = None,
) -> MaskedBatches:
    """Masked batches of a shard directory (or of its https address) for a training loop of one's own.

    The training split goes on forever, each row once per epoch; its whole state is `position`, the number of rows that
    were given out. Which tokens and masks a row has depends on `seed` and its number alone: not on the batch, the
    ranks or the workers. They are those of `pretrain` with these options.

    - `shards`: what `build` has made.
    - `batch_rows`: rows of a batch over all ranks together, of which each rank gets its share.
    - `position`: the row to begin at, a multiple of `batch_rows`: `MaskedBatches.position` of an earlier stream.
    - `seed`: of the order, the masks and the random tokens.
    - `max_seq_length`: tokens of a row, [CLS] and [SEP] included.
    - `mask_rate`: share of the tokens that are predicted. Of these, `mask_token_rate` become [MASK] and
      `random_token_rate` a random token; the rest is unchanged.
    - `whole_word_masking`: mask whole words.
    - `objective`: "mlm+nsp" gives pairs for next-sentence prediction too.
    - `split`: "validation" gives the first `validation_rows` held-out rows, each once, the same in every call.
    - `num_workers`: processes that read and mask; 0: this one.
    - `return_tensors`: "pt" for torch tensors, "np" for numpy arrays.
    - `rank`, `world_size`: this process among those that share the batches, both or neither; default: as a launcher
      says, or 0 of 1.

    Raises ValueError for shards that are damaged or missing, and for values outside their ranges.
    """
    from shards.streaming.options import StreamOptions

    if rank is None and world_size is None:
        ranks = read_ranks()
    elif rank is None or world_size is None:  # under a launcher every process would be rank 0
        raise ValueError(f"rank {rank} and world_size {world_size}: give both or neither")
    else:
        ranks = Ranks(rank, 0, world_size)
    options = StreamOptions(
        seed=seed,
        global_batch_rows=batch_rows,
        lengths=((0, max_seq_length),),
        objective=objective,
        mask_rate=mask_rate,
        mask_share=mask_token_rate,
        random_share=random_token_rate,
        whole_word=whole_word_masking,
    )
    if split not in ("train", "validation"):
        raise ValueError(f"split {split!r}: use train or validation")
    if return_tensors not in ("pt", "np"):
        raise ValueError(f"return_tensors {return_tensors!r}: use pt or np")
    return MaskedBatches(
        Path(shards) if "://" not in str(shards) else str(shards),
        options,
        ranks,
        position=position,
        validation_rows=validation_rows if split == "validation" else None,
        num_workers=num_workers,
        as_torch=return_tensors == "pt",
    )


class MaskedBatches:
    """The batches of `stream`, an iterable of dicts that `model(**batch)` takes; R rows of T tokens, int64.

    `input_ids` [R, T], with masks; `attention_mask` [R, T], 0 at padding; `labels` [R, T], the token that was masked
    and -100 elsewhere; with next-sentence pairs `token_type_ids` [R, T] and `next_sentence_label` [R] (1: a false
    pair, -100: not a pair). `position` counts the rows that were given out, over all ranks.
    """

    def __init__(
        self,
        shards: Path | str,
        options: StreamOptions,
        ranks: Ranks,
        *,
        position: int = 0,
        validation_rows: int | None = None,
        num_workers: int = 0,
        as_torch: bool = True,
    ) -> None:
        """Open and check the shards; `validation_rows` names the validation split."""
        from dataclasses import replace

        from shards.storage.location import open_location
        from shards.streaming.order import lanes_for, rows_per_rank
        from shards.streaming.stream import MaskedStream

        rows = options.global_batch_rows
        if position < 0 or position % rows or (position and validation_rows is not None):
            raise ValueError(
                f"position {position}: a stream of training rows goes on at a multiple of batch_rows, {rows}, and that "
                "of the validation split always begins at 0; give the position of a stream with the same batch_rows"
            )
        self._options = replace(options, micro_batch_rows=rows_per_rank(ranks.world_size, lanes_for(rows), rows))
        self._ranks, self._validation_rows, self._num_workers = ranks, validation_rows, num_workers
        self._as_torch, self._position = as_torch, position
        self._location = open_location(shards)
        self._stream = MaskedStream(self._location, self._options, ranks.rank, ranks.world_size)

    @property
    def position(self) -> int:
        """Rows given out so far, over all ranks: where this stream, or another with the same options, goes on."""
        return self._position

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the training split."""
        return self._stream.rows_per_epoch

    @property
    def vocab_size(self) -> int:
        """Size of the tokenizer's vocabulary, for the configuration of a model."""
        return self._location.manifest.tokenizer.vocab_size

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer, for `AutoTokenizer.from_pretrained`."""
        return self._location.directory / self._location.manifest.tokenizer.path

    def __iter__(self) -> Iterator[dict[str, torch.Tensor] | dict[str, np.ndarray]]:
        """From `position` on, forever; of the validation split from its beginning to its end."""
        if self._validation_rows is not None:
            yield from map(self._given_out, self._validation())
            return
        for batch in self._stream.batches(self._position, self._num_workers):
            self._position += self._options.global_batch_rows
            yield self._given_out(batch)

    def _validation(self) -> Iterator[MicroBatch]:
        from shards.streaming.stream import validation_batches

        ranks, rows = self._ranks, self._validation_rows or 0
        return validation_batches(
            self._location,
            self._options,
            ranks.rank,
            ranks.world_size,
            rows,
            vocabulary=self._stream.vocabulary,
        )

    def _given_out(self, batch: MicroBatch) -> dict[str, Any]:
        arrays = as_arrays(batch)
        if not self._as_torch:
            return arrays
        import torch

        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def as_arrays(batch: MicroBatch) -> dict[str, np.ndarray]:
    """A micro-batch as the arrays of `MaskedBatches`, its padding rows left out."""
    import numpy as np

    num_sequences = len(batch.input_ids)
    kept = np.repeat(batch.rows >= 0, num_sequences // len(batch.rows))
    labels = np.full_like(batch.input_ids, NOT_PREDICTED)
    sequence, slot = np.nonzero(batch.mask_weights)
    labels[sequence, batch.mask_positions[sequence, slot]] = batch.mask_labels[sequence, slot]
    mask = np.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
    arrays = {"input_ids": batch.input_ids, "attention_mask": mask, "labels": labels}
    if batch.token_type_ids is not None:
        arrays["token_type_ids"] = batch.token_type_ids
    if batch.next_sentence_labels is not None and batch.next_sentence_weights is not None:
        of_pairs = np.where(batch.next_sentence_weights > 0, batch.next_sentence_labels, NOT_PREDICTED)
        arrays["next_sentence_label"] = of_pairs
    return {name: array[kept] for name, array in arrays.items()}
