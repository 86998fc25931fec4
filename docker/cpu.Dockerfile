# orthoreg on CPUs: docker build -f docker/cpu.Dockerfile -t orthoreg .
# A run: docker run --rm --user "$(id -u)" -v "$PWD/runs:/runs" orthoreg run --config embedded --workdir /runs/embedded
FROM python:3.12-slim

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY orthoreg_jax orthoreg_jax
RUN pip install --no-cache-dir --constraint constraints.txt '.[experiments]' \
    && rm -rf /build \
    && useradd --create-home --uid 10001 orthoreg

USER 10001
WORKDIR /home/orthoreg
ENTRYPOINT ["orthoreg"]
