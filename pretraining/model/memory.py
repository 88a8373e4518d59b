"""Estimate of a rank's memory before anything is built: model states exactly, activations by tracing shapes.

Model states follow Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054, section 3) with the sizes that the two engines
use: DeepSpeed keeps weights in the training precision and, from stage 1 on, an fp32 copy of this rank's share next to
them; FSDP2 shards the fp32 master weights and gathers one layer at a time in the training precision. Memory that
the allocator wastes and that libraries use (about 1 GB on a GPU) is not included.
"""

from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedConfig

from pretraining.model.activations import activations
from pretraining.model.families import num_parameters, repeated_layers, shape_only

SHARDINGS = ("none", "zero0", "zero1", "zero2", "zero3", "full_shard", "shard_grad_op", "hybrid_shard")
REDUCE_BUCKET_ELEMENTS = 500_000_000  # DeepSpeed's default `reduce_bucket_size`
COPY_FOR_UPDATE = "fp32 gradients of this share"
COPY_FOR_SAVING = "copy that is saved"
LIVE_PARAMETERS = 1_000_000_000  # DeepSpeed's default `stage3_max_live_parameters`


@dataclass(frozen=True)
class Sharding:
    """How the model states are spread: `mode`, over `shards` ranks (hybrid: those that share one copy)."""

    mode: str = "none"
    shards: int = 1
    bf16: bool = False
    fp16: bool = False
    offload_optimizer: bool = False
    offload_parameters: bool = False
    reduce_bucket_elements: int = REDUCE_BUCKET_ELEMENTS

    def __post_init__(self) -> None:
        if self.mode not in SHARDINGS:
            raise ValueError(f"sharding {self.mode!r} is not known: use one of {', '.join(SHARDINGS)}")
        if self.mode == "zero0" and self.half:
            remedy = "--bf16 false" if self.bf16 else "leave out --fp16"
            raise ValueError(
                f"ZeRO stage 0 does not train in {self.half} as stages 1 to 3 do: use stage 1, or {remedy}"
            )

    @property
    def half(self) -> str:
        """The 16-bit type of the products; empty: all in fp32."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else ""


@dataclass
class MemoryEstimate:
    """Bytes of one rank, by what they hold, on the device and in host memory."""

    device: dict[str, int] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)

    @property
    def device_bytes(self) -> int:
        return sum(self.device.values())

    @property
    def host_bytes(self) -> int:
        return sum(self.host.values())

    def sentence(self) -> str:
        """Both sums in GB (10^9 bytes), and what of the host's is the copy that is saved."""
        copy = self.host.get(COPY_FOR_SAVING, 0)
        return (
            f"{self.device_bytes / 1e9:.2f} GB per rank on the device, {self.host_bytes / 1e9:.2f} GB on the host "
            "(estimate)" + (f"; of the latter {copy / 1e9:.2f} GB for the copy that is saved" if copy else "")
        )

    def table(self) -> str:
        """A table with a row per item and a sum, in MB (10^6 bytes)."""
        places = [("device", self.device)] + ([("host", self.host)] if self.host else [])
        width = max(len(name) for _, rows in places for name in (*rows, "sum on the device"))
        lines = []
        for place, rows in places:
            lines += [f"{name:<{width}}  {size / 1e6:>12,.1f} MB" for name, size in rows.items() if size]
            lines.append(f"{f'sum on the {place}':<{width}}  {sum(rows.values()) / 1e6:>12,.1f} MB")
        return "\n".join(lines)


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model: all, those of its largest layer, those outside its layers, the largest tensor's.

    `matrices` counts those of the matrices of its layers, which Muon takes.
    """

    total: int
    largest_layer: int
    outside: int
    largest: int = 0
    matrices: int = 0

    def moments(self, *, muon: bool) -> int:
        """Numbers that the optimizer keeps: two for each parameter, one for each that Muon takes."""
        return 2 * self.total - (self.matrices if muon else 0)


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count each tied parameter once."""
    layers = repeated_layers(model)
    sizes = [num_parameters(layer) for layer in layers]
    total = num_parameters(model)
    largest = max((parameter.numel() for parameter in model.parameters()), default=0)
    inside = [parameter for layer in layers for parameter in layer.parameters() if parameter.ndim == 2]
    return ParameterCounts(
        total, max(sizes, default=0), total - sum(sizes), largest, sum(matrix.numel() for matrix in inside)
    )


def checkpoint_shares(model: nn.Module, num_ranks: int, *, muon: bool = False) -> list[int]:
    """Bytes of each rank's share of a checkpoint: its fp32 tensors are dealt to the ranks in turn."""
    single = {parameter for layer in repeated_layers(model) for parameter in layer.parameters() if parameter.ndim == 2}
    tensors = {parameter: 2 if muon and parameter in single else 3 for parameter in model.parameters()}
    sizes = [4 * parameter.numel() for parameter, count in tensors.items() for _ in range(count)]
    return [sum(sizes[rank::num_ranks]) for rank in range(num_ranks)]


def model_states(counts: ParameterCounts, sharding: Sharding, *, muon: bool = False) -> MemoryEstimate:
    """Weights, gradients, fp32 masters and the optimizer's moments of one rank.

    A share is rounded up; engines pad theirs by a few elements per tensor or group. What Muon computes with, a few
    copies of one matrix, fits where the activations were.
    """
    if sharding.mode.startswith("zero"):
        return _zero_states(counts, sharding, muon=muon)
    total, share = counts.total, -(-counts.total // sharding.shards)
    if sharding.mode == "none":
        rows = {"weights": 4 * total, "gradients": 4 * total, "moments": 4 * counts.moments(muon=muon)}
        if sharding.half:
            rows[f"weights cast to {sharding.half}"] = 2 * total
        return MemoryEstimate(rows)
    moments = 4 * -(-counts.moments(muon=muon) // sharding.shards)
    states = {"weights": 4 * share, "gradients": 4 * share, "moments": moments}
    # Outside the layers weights stay gathered from forward to backward; of the layers this one and the next.
    gathered = (2 if sharding.half else 4) * min(total, counts.outside + 2 * counts.largest_layer)
    moving = {"gathered weights": gathered, "gathered gradients": gathered}
    if sharding.offload_optimizer or sharding.offload_parameters:
        return MemoryEstimate(moving, states)
    return MemoryEstimate({**states, **moving})


def _zero_states(counts: ParameterCounts, sharding: Sharding, *, muon: bool) -> MemoryEstimate:
    stage, total = int(sharding.mode[-1]), counts.total
    share = -(-total // sharding.shards)
    itemsize = 2 if sharding.half else 4
    if stage == 0:
        return MemoryEstimate({"weights": 4 * total, "gradients": 4 * total, "moments": 4 * counts.moments(muon=muon)})
    estimate = MemoryEstimate()
    weights = {"weights": itemsize * (share if stage == 3 else total)}
    (estimate.host if sharding.offload_parameters else estimate.device).update(weights)
    estimate.device["gradients"] = itemsize * (total if stage == 1 else share)
    if stage >= 2:
        estimate.device["reduction bucket"] = itemsize * min(total, sharding.reduce_bucket_elements)
    if stage == 3:
        # reduce_scatter_coalesced of DeepSpeed orders a full bucket by rank, in a copy of it.
        estimate.device["bucket ordered by rank"] = estimate.device["reduction bucket"]
        estimate.device["gathered weights"] = itemsize * min(total, LIVE_PARAMETERS)
    optimizer = {
        "fp32 masters": 4 * share,
        COPY_FOR_UPDATE: 4 * share,
        "moments": 8 * share,
    }
    (estimate.host if sharding.offload_optimizer else estimate.device).update(optimizer)
    return estimate


def estimate_memory(
    config: PreTrainedConfig,
    sharding: Sharding,
    *,
    num_sequences: int,
    sequence_length: int,
    num_masked_per_sequence: int,
    gradient_checkpointing: bool = False,
    next_sentence: bool = False,
    muon: bool = False,
    num_micro_batches: int = 1,
    saving_ranks: int = 0,
    attention: str = "sdpa",
) -> MemoryEstimate:
    """Peak memory of a rank during a micro-batch of `num_sequences` sequences; builds nothing.

    `num_micro_batches`: of a rank in one update. `saving_ranks`: ranks that share out the tensors of a checkpoint,
    each copying its share to the host first; 0: no checkpoint is counted.
    """
    shapes = shape_only(config, next_sentence=next_sentence)
    counts = count_parameters(shapes)
    estimate = model_states(counts, sharding, muon=muon)
    kept = activations(
        config,
        num_sequences=num_sequences,
        sequence_length=sequence_length,
        num_masked_per_sequence=num_masked_per_sequence,
        bf16=bool(sharding.half),
        gradient_checkpointing=gradient_checkpointing,
        next_sentence=next_sentence,
        attention=attention,
    )
    if saving_ranks:
        estimate.host[COPY_FOR_SAVING] = max(checkpoint_shares(shapes, saving_ranks, muon=muon))
    estimate.device["activations"] = kept.saved
    estimate.device["gradient of the logits"] = kept.logits
    # The largest parameter, a table of embeddings, gets its gradient last and whole, before it is shared out.
    itemsize = 2 if sharding.half and sharding.mode.startswith("zero") else 4
    estimate.device["largest gradient"] = itemsize * counts.largest
    device = estimate.device
    of_backward = sum(device[name] for name in ("activations", "gradient of the logits", "largest gradient"))
    if sharding.mode == "zero0":
        # Behind the backward pass, whose memory is free again, DeepSpeed flattens all gradients to reduce them.
        device["reduction bucket"] = max(0, itemsize * min(counts.total, REDUCE_BUCKET_ELEMENTS) - of_backward)
    if sharding.mode == "shard_grad_op":
        _gather_once(device, counts, sharding, accumulates=num_micro_batches > 1)
    if not sharding.half and COPY_FOR_UPDATE in device:
        # In fp32 the copy is made for the update alone, when what the backward pass needed is free again.
        free = of_backward + sum(device.get(name, 0) for name in ("reduction bucket", "bucket ordered by rank"))
        device[COPY_FOR_UPDATE] = max(0, device[COPY_FOR_UPDATE] - free)
    return estimate


def _gather_once(device: dict[str, int], counts: ParameterCounts, sharding: Sharding, *, accumulates: bool) -> None:
    """`shard_grad_op` gathers all weights once and gives them back, layer by layer, in the backward pass.

    What that pass alone needs takes their place. With several micro-batches an update the gradients stay whole and in
    fp32 until the last one.
    """
    share = device.get("gradients", 0)  # none where they lie on the host
    if accumulates:
        device["gathered gradients"] = max(device["gathered gradients"], 4 * counts.total - share)
    later = device["largest gradient"] + (0 if accumulates else device["gathered gradients"] + share)
    whole = (2 if sharding.half else 4) * counts.total
    device["gathered weights"] = max(device["gathered weights"], whole - later)
