# Sets up a shell for this project; source it from bash or zsh:
#
#     source activate.sh
#
# All generated state stays under LANDSLIDE_HOME. ZenML and MLflow are pointed there, so a configuration of your
# own elsewhere is neither read nor touched.

if [ -n "${BASH_VERSION:-}" ]; then _landslide_this="${BASH_SOURCE[0]}"; else eval '_landslide_this="${(%):-%x}"'; fi
LANDSLIDE_ROOT="$(cd "$(dirname "$_landslide_this")" && pwd)"
unset _landslide_this
export LANDSLIDE_ROOT
export LANDSLIDE_HOME="${LANDSLIDE_HOME:-$LANDSLIDE_ROOT/.landslide}"
case "$LANDSLIDE_HOME" in /*) ;; *) LANDSLIDE_HOME="$PWD/$LANDSLIDE_HOME" ;; esac

export ZENML_CONFIG_PATH="$LANDSLIDE_HOME/zenml"
export ZENML_REPOSITORY_PATH="$LANDSLIDE_HOME/zenml"
export ZENML_CUSTOM_SOURCE_ROOT="$LANDSLIDE_ROOT"
export ZENML_ANALYTICS_OPT_IN=false
export ZENML_AUTO_OPEN_DASHBOARD=false
export ZENML_ENABLE_RICH_TRACEBACK=false
export MLFLOW_DISABLE_TELEMETRY=true
export DVC_NO_ANALYTICS=1
export DVC_SITE_CACHE_DIR="$LANDSLIDE_HOME/dvc"
export MLFLOW_TRACKING_URI="${LANDSLIDE_TRACKING_URI:-sqlite:///$LANDSLIDE_HOME/mlflow.db}"
export MLFLOW_REGISTRY_URI="$MLFLOW_TRACKING_URI"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-10000}"  # threads of several processes that wait for each other by spinning stall
# Memory that is freed is kept, in huge pages: a training step frees and takes the same gigabytes over and over.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-8000000000}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-16000000000}"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
unset PYTHONDONTWRITEBYTECODE  # without byte code every command would compile its imports again

case ":$PATH:" in
  *":$LANDSLIDE_ROOT/.venv/bin:"*) ;;
  *) export PATH="$LANDSLIDE_ROOT/.venv/bin:$PATH" ;;
esac
