"""TaskData, the base class of the kinds of task: a task's examples and how they are encoded and scored."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from finetuning.examples.recipe import Feature, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Record = dict[str, Any]


@dataclass(frozen=True)
class TaskSpec:
    """`[NAME=]KIND:PLACE[@N]`, see `gap.tasks.specification.parse_tasks`.

    N is the largest number of training examples, and of minimal pairs that of the pairs of a paradigm. PLACE is a
    folder with train and test files, TRAIN+TEST, one file, or the name of a data set.
    """

    name: str
    kind: str
    place: str
    max_train_samples: int | None = None


@dataclass(frozen=True)
class ReadingOptions:
    """Options for reading examples."""

    data_dir: str | None = None  # with GLUE's files
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    on_overlap: str = "stop"


@dataclass(frozen=True)
class RowOptions:
    """Options for encoding examples into rows."""

    max_seq_length: int = 384
    doc_stride: int = 128
    pooling: str = "cls"
    max_answer_length: int = 30  # tokens


@dataclass(frozen=True)
class TaskData(ABC):
    """A task's training and scored examples; `clusters` give the examples that share an article, a paragraph or a text.

    A kind of task is a subclass: `gap.tasks.specification.KINDS` lists them by the KIND of a specification.
    """

    spec: TaskSpec
    metric: str  # of scores.jsonl
    train: Mapping[str, Any]  # example id -> example
    scored: Mapping[str, Any]
    train_clusters: Mapping[str, str]
    scored_clusters: Mapping[str, str]

    places: ClassVar[Collection[str] | None] = None  # all possible values of PLACE; None: see `TaskSpec`
    windowed: ClassVar[bool] = False  # a long example becomes several rows instead of being cut
    in_small_world: ClassVar[bool] = True  # the embedded small world has such a task
    small_world_examples: ClassVar[int | None] = None  # largest number of its training examples; None: all
    zero_shot: ClassVar[bool] = False  # the pretrained model is scored as it is: no training examples, no fine-tuning

    @classmethod
    @abstractmethod
    def read(cls, spec: TaskSpec, options: ReadingOptions) -> Self:
        """Read the examples. Raises ValueError for files that cannot be read."""

    @abstractmethod
    def encode(
        self,
        splits: Mapping[str, Sequence[Any]],
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        options: RowOptions,
    ) -> Recipe:
        """The recipe with the rows of the examples in `splits`, of at most `longest` tokens."""

    @abstractmethod
    def record(self, example: Any, prediction: Mapping[str, Any]) -> Record:
        """A cell's record of one example: "score" in 0..1, and any of "confidence", "label", "prediction", ...

        `gap/cells/store.py` describes them; id and cluster are added to them.
        """

    @abstractmethod
    def passage(self, example: Any) -> str:
        """The text of an example that a pretraining corpus could contain."""

    @abstractmethod
    def row_texts(self, example: Any) -> list[str]:
        """The text of each row that an example becomes when it is not too long, to estimate the cost of training."""

    def text_fields(self, example: Any) -> list[str]:
        """All texts of an example, first the one that it may share with others; no label and no answer."""
        return [self.passage(example)]

    def metrics(self, scores: Mapping[str, float], records: Sequence[Record]) -> dict[str, float]:
        """A cell's metrics, `self.metric` among them, from the recipe's scores under their plain names."""
        return dict(scores)

    def shuffled(self, rows: Sequence[Feature], random: np.random.Generator) -> list[Feature]:
        """The same rows with meaningless, permuted labels."""
        order = random.permutation(len(rows))
        return [{**row, "label": rows[j]["label"]} for row, j in zip(rows, order, strict=True)]

    @property
    def grouping(self) -> str:
        """What a cluster is, in one word in the singular."""
        return "text"

    @property
    def digest(self) -> str:
        """sha256 of every example, in order, and of the clusters: they decide what a search holds out."""
        digest = hashlib.sha256()
        for example in (*self.train.values(), "scored", *self.scored.values()):
            digest.update(repr(example).encode())
        for cluster in (*self.train_clusters.values(), "scored", *self.scored_clusters.values()):
            digest.update(f"\n{cluster}".encode())
        return digest.hexdigest()

    def text_key(self, example: Any, cluster: str) -> str:
        """What must not occur both in training and among the scored examples: the cluster, which is a text."""
        return cluster

    @property
    def shared_texts(self) -> set[str]:
        """Texts (paragraphs of questions) that occur both in training and among the scored examples."""
        trained = {self.text_key(example, self.train_clusters[name]) for name, example in self.train.items()}
        scored = {self.text_key(example, self.scored_clusters[name]) for name, example in self.scored.items()}
        return trained & scored
