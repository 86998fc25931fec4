# orthoreg on NVIDIA GPUs, with a driver for CUDA 13 (580 or later) and NVIDIA's container toolkit:
#     docker build -f docker/gpu.Dockerfile -t orthoreg:gpu .
#     docker run --rm --user "$(id -u)" --gpus all -v "$PWD/runs:/runs" orthoreg:gpu \
#         run --config embedded --workdir /runs/embedded
# JAX's own packages bring CUDA's libraries, so that the small image is base enough.
# For older drivers: --build-arg CUDA=12.9.1 --build-arg EXTRA=cuda12
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04

ARG EXTRA=cuda13
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/orthoreg \
    && useradd --create-home --uid 10001 orthoreg
ENV PATH=/opt/orthoreg/bin:$PATH

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY orthoreg_jax orthoreg_jax
RUN pip install --no-cache-dir --constraint constraints.txt ".[experiments,${EXTRA}]" \
    && rm -rf /build

USER 10001
WORKDIR /home/orthoreg
ENTRYPOINT ["orthoreg"]
