# One image for the runner and for the steps on Kubeflow: code, locked dependencies, no data, state or secrets.
#
#     docker build --build-arg LANDSLIDE_GIT_COMMIT="$(git rev-parse HEAD)" --tag landslide .
#     docker run --gpus all --volume landslide:/var/lib/landslide --env-file /etc/landslide/environment landslide
#
# To pin the base by digest too, see docs/how-to/build-the-image.md.
FROM python:3.12.13-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# DVC and the lineage of a run need git. Debian serves only the newest build of a package, so versions are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/*

# Compile byte code now, because the user below cannot write it later.
WORKDIR /app
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 \
    && uv pip install --system --no-cache --compile-bytecode --require-hashes -r requirements.lock

RUN useradd --uid 10001 --create-home --shell /bin/bash landslide \
    && install --directory --owner=landslide --group=landslide /app /var/lib/landslide
COPY --chown=landslide:landslide . ./
RUN uv pip install --system --no-cache --no-deps --no-build-isolation --editable .

# The environment that activate.sh sets in a checkout.
ENV LANDSLIDE_ROOT=/app \
    LANDSLIDE_HOME=/var/lib/landslide \
    ZENML_CONFIG_PATH=/var/lib/landslide/zenml \
    ZENML_REPOSITORY_PATH=/var/lib/landslide/zenml \
    ZENML_CUSTOM_SOURCE_ROOT=/app \
    ZENML_ANALYTICS_OPT_IN=false \
    ZENML_AUTO_OPEN_DASHBOARD=false \
    ZENML_ENABLE_RICH_TRACEBACK=false \
    ZENML_LOGGING_COLORS_DISABLED=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    DVC_NO_ANALYTICS=1 \
    ORT_DISABLE_TELEMETRY=true \
    DVC_SITE_CACHE_DIR=/var/lib/landslide/dvc \
    HOME=/var/lib/landslide \
    MPLCONFIGDIR=/var/lib/landslide/matplotlib \
    GOMP_SPINCOUNT=10000 \
    MALLOC_MMAP_THRESHOLD_=8000000000 \
    MALLOC_TRIM_THRESHOLD_=16000000000 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

# The commit of the image, for the lineage of its runs, because the image has no .git.
ARG LANDSLIDE_GIT_COMMIT=unknown
ENV LANDSLIDE_GIT_COMMIT=${LANDSLIDE_GIT_COMMIT}

USER 10001
RUN python -m compileall -q src steps pipelines stacks
VOLUME /var/lib/landslide
HEALTHCHECK --interval=5m --timeout=90s --start-period=2m --retries=2 CMD ["landslide", "health"]
CMD ["zenml", "pipeline", "run", "pipelines.retraining.retraining_pipeline", "-c", "configs/retrain.yaml"]
