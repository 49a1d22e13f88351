#!/bin/bash
# A sweep on all nodes of a SLURM job. Two minutes before its time is up, the job stops the sweep, requeues itself,
# and resumes when it runs again. Change the first lines below, activate the environment that has tune_cnn, and submit:
#
#   sbatch configs/cluster/slurm.sh configs/exp1_1.yaml --storage /shared/ray_results
#
# Arguments after the script's name go to `tune-cnn sweep`. All nodes must see the storage, a folder or s3://...; without
# --storage, it is ray_results in the folder where you submit.
#
# CHANGE: the job's size; to use a line that begins with ##, remove one #.
#SBATCH --job-name=tune-cnn
#SBATCH --nodes=2
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
##SBATCH --gres=gpu:4
##SBATCH --mem=32G
##SBATCH --partition=NAME
##SBATCH --account=NAME
#
# KEEP: one Ray on each node, and how the job continues when its time is up.
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

# Only clients with the token can use this Ray. Each job has its own, in the environment, which other users cannot read.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN

# This script runs on the first node. Some machines resolve their own name to 127.0.1.1, where others can't reach them.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ip=$({ getent ahostsv4 "$first"; hostname -I; } | awk '!/^127\./ {print $1; exit}')
port=$((20000 + 2 * (SLURM_JOB_ID % 5000)))  # this one and the next
export ip port

# Not `ray symmetric-run`: it forwards no signals, refuses nodes where another Ray runs, and its `ray stop` would end the
# Ray of your other jobs too.
srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c '
    options=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)
    if [[ $SLURM_NODEID == 0 ]]; then
        options+=(--ray-client-server-port=$((port + 1)) --include-dashboard=false)
        exec ray start --head --node-ip-address="$ip" --port="$port" "${options[@]}"
    fi
    until (: < "/dev/tcp/$ip/$port") 2> /dev/null; do sleep 1; done
    # The first node answers before it is ready, and Ray gives up after ten seconds.
    for _ in 1 2 3 4 5 6; do ray start --address="$ip:$port" "${options[@]}" && break; sleep 2; done' &
ray=$!
trap 'requeue=yes; kill "${sweep:-$ray}"' USR1  # the time is nearly up; SIGTERM ends a sweep as Ctrl-C does
trap 'kill "${sweep:-$ray}"' TERM               # scancel

until (: < "/dev/tcp/$ip/$port") 2> /dev/null; do
    kill -0 "$ray" || exit 1
    sleep 1
done
tune-cnn sweep --storage "$SLURM_SUBMIT_DIR/ray_results" "$@" --address "$ip:$port" &
sweep=$!
while kill -0 "$sweep" 2> /dev/null; do wait "$sweep"; done  # a signal ends `wait` early
wait "$sweep"
code=$?

if [[ $requeue && $code -gt 128 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"  # SLURM ends Ray with the job
