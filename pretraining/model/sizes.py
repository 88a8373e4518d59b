"""Named model sizes: the shapes behind the names that `--model` takes.

BERT: tiny to medium are the miniatures of Turc et al. 2019 (arXiv 1908.08962, table 1), base and large those of
Devlin et al. 2018 (arXiv 1810.04805, section 3). Heads are 64 wide and the feed-forward layer is four hidden widths.

ModernBERT: base and large are those of Warner et al. 2024 (arXiv 2412.13663, table 4). No smaller shapes were
published; ours take BERT's widths, the base model's ratio of 1.5 for the gated feed-forward layer (whose input
projection is twice that) and roughly its ratio of depths (22 layers where BERT has 12), rounded to 3 n + 1
layers so that, as in the published shapes, every third layer and both ends attend globally.
"""

import difflib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model's size: layers, hidden width, attention heads, feed-forward width."""

    num_layers: int
    hidden_width: int
    num_heads: int
    feed_forward_width: int


BERT_SHAPES = {
    "tiny": Shape(2, 128, 2, 512),
    "mini": Shape(4, 256, 4, 1024),
    "small": Shape(4, 512, 8, 2048),
    "medium": Shape(8, 512, 8, 2048),
    "base": Shape(12, 768, 12, 3072),
    "large": Shape(24, 1024, 16, 4096),
}
MODERNBERT_SHAPES = {
    "tiny": Shape(4, 128, 2, 192),
    "mini": Shape(7, 256, 4, 384),
    "small": Shape(7, 512, 8, 768),
    "medium": Shape(13, 512, 8, 768),
    "base": Shape(22, 768, 12, 1152),
    "large": Shape(28, 1024, 16, 2624),
}
NAMED_SHAPES = {"bert": BERT_SHAPES, "modernbert": MODERNBERT_SHAPES}


def size_names() -> tuple[str, ...]:
    """Every name that `--model` takes, smallest first within a family."""
    return tuple(f"{family}-{size}" for family, shapes in NAMED_SHAPES.items() for size in shapes)


def size_settings(name: str) -> tuple[str, dict[str, Any]]:
    """A name such as `bert-mini` -> (`transformers` model type, settings of its configuration)."""
    if name not in size_names():
        near = difflib.get_close_matches(name, size_names(), n=1, cutoff=0.0)[0]
        raise ValueError(
            f"--model {name!r} is not a named size: the nearest is {near!r}; all are {', '.join(size_names())}. "
            "For any other model give --from_config or --model_name_or_path"
        )
    family, size = name.split("-")
    shape = NAMED_SHAPES[family][size]
    return family, {
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_width,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.feed_forward_width,
    }
