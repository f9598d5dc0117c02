#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, in at most 8 minutes: train on photographs with DEVICE=cuda, then compare ONNX Runtime's
# CUDA provider with its CPU provider, batch 1 to 64: the same probabilities? how many pictures a second?
#
#   bash tests/load/gpu.sh prepare              # where there is internet: wheels of this Python to .gpu-wheels/
#   bash tests/load/gpu.sh run PHOTOS           # on the GPU machine, nothing is downloaded; PHOTOS: CLASS/NAME.jpg
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=.gpu-wheels
python=${PYTHON:-python3}

case ${1:-} in
  prepare)
    # The CUDA build of onnxruntime takes the place of the CPU build in an environment of its own.
    grep -hE '^[a-z0-9._-]+==' requirements.lock requirements-torch.lock | grep -v '^onnxruntime==' | sed 's/ .*//' > "$wheels.txt"
    "$python" -m pip download --dest "$wheels" --no-deps --only-binary :all: -r "$wheels.txt" 'onnxruntime-gpu>=1.20'
    ;;
  run)
    photos=$(realpath "${2:?name the folder of the photographs}")
    nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
    "$python" -m venv .venv-gpu
    .venv-gpu/bin/python -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
    export PATH=$PWD/.venv-gpu/bin:$PATH DEVICE=cuda BENTOML_DO_NOT_TRACK=true
    sed -i "s|^  source: .*|  source: folder|; s|^  path: .*|  path: $photos|" params.yaml
    for stage in data.fetch data.prepare training.train training.evaluate training.export; do
      begun=$SECONDS
      timeout 300 python -m "$stage"
      echo "$stage: $((SECONDS - begun)) s"
    done
    grep -q '"device": "cuda' models/training.json
    python -m tests.load.gpu
    ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
