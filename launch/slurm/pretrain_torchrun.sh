#!/bin/bash
# Pretraining on several nodes with torchrun (FSDP2, or ZeRO with --deepspeed): one rank on each GPU.
#
#     sbatch launch/slurm/pretrain_torchrun.sh        # in the project's folder, once the three lines are changed
#
# Before the time limit, and when the job is preempted, the run saves and is queued again under the same job id
# (docs/many-machines.md).
#SBATCH --partition=gpu                               # CHANGE 1: your partition, often also --account=NAME
#SBATCH --nodes=2 --gpus-per-node=8 --time=24:00:00   # CHANGE 2: nodes, GPUs of a node, time limit
#SBATCH --job-name=pretrain --output=%x-%j.log --open-mode=append
#SBATCH --ntasks-per-node=1 --exclusive
#SBATCH --requeue --signal=B:TERM@300
output_dir=runs/mine run=(--shards shards/mine --model modernbert-base --budget_tokens 1e10)  # CHANGE 3: your run

set -u
cd "${SLURM_SUBMIT_DIR:?start this file with sbatch}" || exit 2
source .venv/bin/activate
source launch/slurm/requeue.sh
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

run_and_requeue "$output_dir" srun --kill-on-bad-exit=0 torchrun \
    --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_backend c10d --rdzv_endpoint "$first:$((20000 + SLURM_JOB_ID % 10000))" \
    launch/pretrain.py "${run[@]}" --output_dir "$output_dir"
