"""The options of a stream and the shapes that follow from them."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from shards.streaming.masking import MaskOptions

OBJECTIVES = ("mlm", "mlm+nsp")


@dataclass(frozen=True)
class StreamOptions:
    """The shapes and order of a run's batches; all but `micro_batch_rows` affect which tokens come when.

    `lengths` is the schedule: (first global row, sequence length) pairs. An update has the length in force at its
    first row. `row_tokens` (0: derived) is the number of stored tokens per row at any length: with lengths 128 and 512
    it is 4 x 126, so that the long sequences have 506 tokens.
    """

    seed: int = 0
    global_batch_rows: int = 48
    micro_batch_rows: int = 8
    lengths: tuple[tuple[int, int], ...] = ((0, 128),)
    row_tokens: int = 0
    objective: str = "mlm"
    mask_rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_word: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective {self.objective!r}: use one of {', '.join(OBJECTIVES)}")
        for name in ("global_batch_rows", "micro_batch_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: use at least 1")
        firsts = [first for first, _ in self.lengths]
        if not firsts or firsts[0] != 0 or any(later <= sooner for sooner, later in pairwise(firsts)):
            raise ValueError(
                f"lengths {self.lengths}: the first entry starts at row 0 and the others at later and later rows"
            )
        shortest, longest = min(length for _, length in self.lengths), max(length for _, length in self.lengths)
        if shortest < self.overhead + 2 or longest > 1 << 16:
            raise ValueError(f"lengths {self.lengths}: a sequence has {self.overhead + 2} to {1 << 16} tokens")
        if self.row_tokens < 0:
            raise ValueError(f"row_tokens {self.row_tokens}: use 0 (derived) or a positive number")
        self.mask_options()

    @property
    def overhead(self) -> int:
        """Special tokens of a sequence: [CLS] content [SEP], or [CLS] first half [SEP] second half [SEP]."""
        return 3 if self.has_pairs else 2

    @property
    def has_pairs(self) -> bool:
        """Whether sequences are next-sentence pairs."""
        return self.objective == "mlm+nsp"

    @property
    def tokens_per_row(self) -> int:
        """Stored tokens of one row: `row_tokens`, or as many of the shortest contents as fit the longest."""
        contents = [length - self.overhead for _, length in self.lengths]
        return self.row_tokens or max(contents) // min(contents) * min(contents)

    def mask_options(self) -> MaskOptions:
        """The options of masking."""
        return MaskOptions(self.mask_rate, self.mask_share, self.random_share, self.whole_word)

    def length_at(self, row: int) -> int:
        """The scheduled sequence length of the update that global row `row` belongs to."""
        return self.lengths[self.phase_at(row)][1]

    def phase_at(self, row: int) -> int:
        """Which entry of `lengths` holds for the update that global row `row` belongs to."""
        first = row - row % self.global_batch_rows
        return bisect_right(self.lengths, first, key=lambda entry: entry[0]) - 1

    def sequence_shape(self, length: int) -> tuple[int, int]:
        """Sequences per row and stored tokens per sequence, for a scheduled length; no longer than it, and even."""
        sequences = -(-self.tokens_per_row // (length - self.overhead))
        return sequences, -(-self.tokens_per_row // sequences)
