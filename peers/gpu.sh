#!/usr/bin/env bash
# Measures everything on a GPU in one go, from the executables of `cargo xtask bundle`, which puts this script and
# PyTorch's programs beside them. The machine needs no Rust, only a driver; PyTorch is measured where python3 has it.
#
#   ./gpu.sh FOLDER [SHAPE..]    SHAPE = TOKENS,D_IN,D_OUT,RANK,EXPERTS; by default the roofline's small grid
#
# FOLDER gets, as tables for docs/benchmarks.md: conformance.md; roofline/ with the device's limits, its calibration and
# the curve of bandwidth, each kernel measured beside predicted, the alternatives and the tuner's best, and the tuning
# file; llama-*.md, what takes how long in a language model; pytorch-*.md, adapters and language models there. A part that
# fails does not stop the others, and is named at the end.
# WGPU_ADAPTER_NAME and WGPU_BACKEND choose the device. Language models get random numbers, but for a model.gguf beside
# this script.
set -uo pipefail

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" || exit
out=$(cd "$1" && pwd)
shift

failed=()
part() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    "$@" >"$out/$name.md" 2>"$out/$name.log" || { failed+=("$name"); tail -n 5 "$out/$name.log"; }
    echo "== $name took $((SECONDS - begin)) s"
}

{ date -u; uname -srm; nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; } >"$out/machine.txt" 2>/dev/null

# First what a table is nothing without: right results, as the adapter's own limits allow.
part conformance "$here/hydralora-conformance" --quiet --skip default-limits --skip downlevel-limits
# Calibrates before it measures.
part roofline "$here/hydralora-roofline" "${@/#/--shape=}" --also alternatives,tuning,linear,step --out "$out/roofline"

for element in f32 bf16; do
    for model in smollm2-135m llama-3.2-1b; do
        # Steps of 256 and of 2,048 tokens.
        for sequence in 64 512; do
            part "llama-$model-$element-$sequence" "$here/hydralora-llama" --shape "$model" --profile --dtype "$element" --sequence "$sequence"
        done
    done
done
if [ -f "$here/model.gguf" ]; then
    part llama-model "$here/hydralora-llama" --model "$here/model.gguf" --profile
fi

if python3 -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null; then
    [ $# -gt 0 ] || set -- 1,4096,4096,8,4 16,4096,4096,8,4 128,4096,4096,8,4 2048,4096,4096,8,4 4096,4096,4096,8,4
    for element in f32 f16 bf16; do
        part "pytorch-$element" python3 "$here/pytorch.py" --device cuda --dtype "$element" "${@/#/--shape=}"
    done
    for element in f32 bf16; do
        for model in smollm2-135m llama-3.2-1b; do
            for sequence in 64 512; do
                part "pytorch-$model-$element-$sequence" python3 "$here/pytorch_llama.py" --device cuda --shape "$model" --dtype "$element" --sequence "$sequence"
            done
        done
    done
    part pytorch-compiled python3 "$here/pytorch_llama.py" --device cuda --dtype bf16 --compile
else
    echo "python3 has no PyTorch that sees a GPU, so PyTorch is left out."
fi

if [ ${#failed[@]} -gt 0 ]; then
    echo "Failed: ${failed[*]}; see the .log files in $out."
    exit 1
fi
echo "All tables are in $out."
