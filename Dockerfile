# An image for NVIDIA GPUs. Not built by CI, which has no GPU: see docs/installing.md.
#
#     docker build --tag pretraining-gap .
#     docker run --gpus all --ipc host --volume "$PWD:/data" --workdir /data pretraining-gap gap-pretrain --dry_run true
#
# The -devel image has the CUDA compiler, with which DeepSpeed compiles its optimizers at the first use.
FROM pytorch/pytorch:2.9.1-cuda12.8-cudnn9-devel

# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends g++ make && \
    rm -rf /var/lib/apt/lists/*

WORKDIR /opt/pretraining-gap
COPY pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY runtime ./runtime
COPY shards ./shards
COPY pretraining ./pretraining
COPY finetuning ./finetuning
COPY gap ./gap
COPY launch ./launch
COPY ds_configs ./ds_configs

# The image's own torch, not the pinned one: it is the build for this CUDA.
RUN make install TORCH=system PYTHON=python3 VENV=/opt/venv EXTRAS=jieba

ENV PATH=/opt/venv/bin:$PATH
WORKDIR /data
CMD ["gap-pretrain", "--help"]
