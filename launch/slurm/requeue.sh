# Sourced by the job scripts beside it.
#
# run_and_requeue OUTPUT_DIR COMMAND...
# Runs the command, an srun, and ends with its status. A run that was interrupted and has saved, which
# OUTPUT_DIR/INTERRUPTED.json or status 75 says, is queued again under the same job id.
# shellcheck shell=bash

run_and_requeue() {
    local place=$1 marker status step
    case $place in
    s3://* | gs://*) place=runs/${place#*://} ;; # where the run works (docs/object-stores.md)
    esac
    marker=${place%/}/INTERRUPTED.json
    shift
    # torchrun kills its ranks so many seconds after it has passed a signal on; in older versions it is 30 always.
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=280
    rm -f "$marker" # of an earlier job
    # srun kills its tasks when it gets SIGTERM itself; so the signal goes to the ranks, which save.
    trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM
    "$@" &
    step=$!
    wait "$step"
    status=$?
    while kill -0 "$step" 2>/dev/null; do # the wait ended for the signal
        wait "$step"
        status=$?
    done
    # The launchers return 1 whatever their ranks return: then the file tells.
    if [ -e "$marker" ] || [ "$status" -eq 75 ]; then
        echo "interrupted and saved: job $SLURM_JOB_ID is queued again"
        scontrol requeue "$SLURM_JOB_ID" && sleep 300 # SLURM ends the script here
    fi
    return "$status"
}
