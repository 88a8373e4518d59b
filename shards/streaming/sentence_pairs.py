"""Next-sentence pairs: the cut of a sequence into two halves, and the replacement of the second in a false pair."""

from dataclasses import dataclass

import numpy as np

from shards.streaming.splitmix import mix

_CUT, _LABEL, _SOURCE = (np.uint64(number) for number in (0x51, 0x52, 0x53))


@dataclass(frozen=True)
class SentencePairs:
    """Pairs of S sequences; the arrays are [S].

    `junctions` int64: tokens of the first half. `sources` int64: where in its block the second half of a false pair
    starts, -1 for a true one. `labels` int64: 1 false, 0 true (as BertForNextSentencePrediction). `weights` float32.
    """

    junctions: np.ndarray
    sources: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def draw_pairs(
    sequence_keys: np.ndarray,
    lengths: np.ndarray,
    starts: np.ndarray,
    which_block: np.ndarray,
    document_starts: list[np.ndarray],
    block_tokens: np.ndarray,
) -> SentencePairs:
    """Cut each sequence inside one document and, on a coin toss, replace the rest by another document's tokens.

    `sequence_keys` uint64, `lengths` (content tokens), `starts` (in the block) and `which_block` int64 [S];
    `document_starts` holds each block's starts, ascending and with 0; `block_tokens` int64 [num_blocks]. The cut is
    drawn before the coin, so it is independent of the label. If the block has no other document to draw from, the
    sequence stays as it is with weight zero, whatever the coin says: weighing the true ones alone would make "true"
    the likelier answer. The same goes for a sequence without two neighbouring tokens of one document. After Devlin et
    al. 2019, section 3.1, with runs of tokens as "sentences".
    """
    bases = np.cumsum(block_tokens) - block_tokens
    edges = np.concatenate([starts_in + base for starts_in, base in zip(document_starts, bases, strict=True)])
    edges = np.append(edges, bases[-1] + block_tokens[-1])
    base = bases[which_block]
    junctions, is_inside = _junctions(sequence_keys, lengths, base + starts, edges)
    document = np.searchsorted(edges, base + starts + np.maximum(junctions, 1) - 1, side="right") - 1
    document = np.minimum(document, len(edges) - 2)
    begin, end = edges[document] - base, edges[document + 1] - base
    rest = lengths - junctions
    limit = np.maximum(block_tokens[which_block] - rest + 1, 0)
    before = np.clip(begin - rest + 1, 0, limit)
    choices = before + np.maximum(limit - end, 0)
    wants_other = (mix(sequence_keys ^ _LABEL) >> np.uint64(63)).astype(bool)
    is_usable = is_inside & (choices > 0)
    is_false = wants_other & is_usable
    drawn = (mix(sequence_keys ^ _SOURCE) % np.maximum(choices, 1).astype(np.uint64)).astype(np.int64)
    sources = np.where(drawn < before, drawn, end + drawn - before)
    return SentencePairs(
        junctions, np.where(is_false, sources, -1), is_false.astype(np.int64), is_usable.astype(np.float32)
    )


def _junctions(
    sequence_keys: np.ndarray, lengths: np.ndarray, starts: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A cut in the middle half of each sequence, moved past a document's start; and whether it is inside one."""
    margin = np.maximum(lengths // 4, 1)
    span = np.maximum(lengths - 2 * margin + 1, 1).astype(np.uint64)
    junctions = np.minimum(margin + (mix(sequence_keys ^ _CUT) % span).astype(np.int64), lengths)
    junctions += _is_edge(starts + junctions, edges) & (junctions + 1 < lengths)
    is_inside = (junctions >= 1) & (junctions < lengths) & ~_is_edge(starts + junctions, edges)
    return junctions, is_inside


def _is_edge(places: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return edges[np.minimum(np.searchsorted(edges, places), len(edges) - 1)] == places
