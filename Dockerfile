# docker build --target cuda -t lipdub .
# docker build --target cpu -t lipdub --build-arg TORCH_INDEX=ADDRESS .     ADDRESS: of the CPU builds, see pytorch.org
# docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/work" lipdub sync video.mp4 dubbed.wav -o out.mp4
# The same with a GPU: --gpus all. The driver is the host's, all else is in the image.

FROM python:3.11-slim AS base
# what OpenCV's and soundfile's wheels expect of the system
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# caches of whatever user the container is started as
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/tmp/cache NUMBA_CACHE_DIR=/tmp/numba HF_HOME=/tmp/huggingface
WORKDIR /source
COPY . .

FROM base AS cpu
ARG TORCH_INDEX
RUN pip install -c constraints.txt --index-url "${TORCH_INDEX:?give --build-arg TORCH_INDEX}" torch \
    && pip install -c constraints.txt . \
    && lipdub --version
USER nobody
WORKDIR /work
ENTRYPOINT ["lipdub"]

# The PyTorch of the package index brings its CUDA libraries.
FROM base AS cuda
RUN pip install -c constraints.txt . \
    && lipdub --version
USER nobody
WORKDIR /work
ENTRYPOINT ["lipdub"]
