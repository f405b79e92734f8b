# The trainer on a CPU, from a clone:
#   docker build -t tesserl --build-arg TORCH_INDEX=ADDRESS .
#   docker run --rm -v "$PWD:/work" tesserl train configs/ppo/cartpole.yaml
FROM python:3.11-slim

# Address of an index with the CPU builds of torch, see "Start locally" on pytorch.org; without it pip takes those with
# CUDA, which are gigabytes larger.
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1 MPLBACKEND=Agg

COPY constraints.txt /source/
COPY packages /source/packages
WORKDIR /source
RUN pip install hatchling -c constraints.txt \
 && pip wheel --no-deps --no-build-isolation --wheel-dir /wheels \
      ./packages/actor-critic ./packages/analysis ./packages/collectors ./packages/configs \
      ./packages/environments ./packages/grpo ./packages/iqn ./packages/nn-components ./packages/policy ./packages/pqn ./packages/preference-data \
      ./packages/preference-opt ./packages/ranks ./packages/replay ./packages/storage ./packages/trainer ./packages/training \
 && pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --find-links /wheels \
      "tesserl-trainer[box2d,hub,minatar,onnx,pqn,search,video]" \
 && rm -rf /source /wheels

# Runs are written to the current directory, which is mounted here.
WORKDIR /work
ENTRYPOINT ["tesserl"]
CMD ["--help"]
