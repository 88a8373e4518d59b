"""The options of each recipe as keywords of `finetune`; tests/project/test_python_api.py keeps them the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Required, TypedDict

from runtime.options.keywords import Several, Words


class FinetuningKeywords(TypedDict, total=False):
    """The fields of `FinetuningOptions` and `PushingOptions`, which every recipe has."""

    train_file: Words | None
    validation_file: Words | None
    test_file: Words | None
    dataset_name: Words | None
    dataset_config_name: Words | None
    max_seq_length: int
    max_train_samples: int | None
    max_eval_samples: int | None
    on_bad_text: Literal["stop", "replace"]
    strict: bool
    model_name_or_path: Words | None
    from_scratch: bool
    dropout: float | None
    num_train_epochs: float
    max_steps: int
    global_batch_rows: int | None
    learning_rate: float
    lr_scheduler_type: Literal["linear", "constant"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    early_stopping_patience: int
    seed: int
    seeds: Sequence[int]
    bf16: Literal["auto", "true", "false"] | bool
    per_device_train_batch_size: int | None
    gradient_accumulation_steps: int | None
    per_device_eval_batch_size: int
    deepspeed: Words | None
    fsdp: Literal["full_shard", "shard_grad_op", "hybrid_shard"]
    output_dir: Words | None
    resume_from_checkpoint: Literal["auto", "false"] | bool
    save_steps: int
    save_model: bool
    report_to: Several
    push_to_hub: bool
    hub_model_id: Words | None
    hub_private_repo: bool
    hub_license: Words | None
    hub_language: Several | None


class TextKeywords(FinetuningKeywords, total=False):
    """The fields of `TextOptions`."""

    pooling: Literal["cls", "mean", "max"] | None
    head_dropout: float | None
    truncation: Literal["head", "tail", "head+tail"]
    label_smoothing: float
    balance_classes: bool


class ClassificationKeywords(TextKeywords, total=False):
    """The fields of `ClassificationOptions`."""

    data: Words | None
    validation_fraction: float
    text_column: Words | None
    text_pair_column: Words | None
    label_column: Words | None
    id_column: Words | None
    selection_metric: Literal["accuracy", "macro_f1", "f1", "matthews_correlation"]


class GlueKeywords(TextKeywords, total=False):
    """The fields of `GlueOptions`."""

    task_name: Several | None
    data_dir: Words | None
    mnli_checkpoint: Words | None


class QAKeywords(FinetuningKeywords, total=False):
    """The fields of `QAOptions`."""

    context_file: Words | None
    doc_stride: int
    n_best_size: int
    max_answer_length: int
    version_2_with_negative: bool
    null_score_diff_threshold: float
    answer_language: Literal["auto", "en", "zh"]


class MultipleChoiceKeywords(QAKeywords, total=False):
    """The fields of `MultipleChoiceOptions`."""

    chain: bool
    qa_model_name_or_path: Words | None
    qa_learning_rate: float | None
    qa_num_train_epochs: float | None


class TokenKeywords(FinetuningKeywords, total=False):
    """The fields of `TokenOptions`."""

    doc_stride: int
    tag_column: Words | None


class PredictionKeywords(TypedDict, total=False):
    """The fields of `PredictionOptions`."""

    test_file: Required[Words]
    context_file: Words | None
    text_column: Words | None
    text_pair_column: Words | None
    label_column: Words | None
    tag_column: Words | None
    id_column: Words | None
    max_seq_length: int | None
    max_eval_samples: int | None
    on_bad_text: Literal["stop", "replace"]
    model_name_or_path: Required[Words]
    per_device_eval_batch_size: int
    bf16: Literal["auto", "true", "false"] | bool
    output_dir: Words
