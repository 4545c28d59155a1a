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
_landslide_fault=""
case "$LANDSLIDE_ROOT" in *:*) _landslide_fault="The checkout is $LANDSLIDE_ROOT. Its path contains ':', which separates the entries of PATH." ;; esac
# In the address of a database, a path ends at '?'; ZenML takes '\' for a separator; MLflow reads %20 as a blank.
case "$LANDSLIDE_HOME" in *[?\\]*) _landslide_fault="LANDSLIDE_HOME is $LANDSLIDE_HOME. Its path contains '?' or '\', which the addresses of databases cannot hold." ;; esac
case "$LANDSLIDE_HOME" in *%[0-9A-Fa-f][0-9A-Fa-f]*) _landslide_fault="LANDSLIDE_HOME is $LANDSLIDE_HOME. MLflow takes '%' and two digits in a path for another character." ;; esac
if [ "$LANDSLIDE_HOME" -ef "$LANDSLIDE_ROOT" ]; then _landslide_fault="LANDSLIDE_HOME is the checkout, whose ./data it would mistake for its own."; fi
if [ -n "$_landslide_fault" ]; then
  printf 'Error: %s\n  -> Choose another path.\n' "$_landslide_fault" >&2
  unset _landslide_fault
  return 1
fi

# Variables of your own that would lead elsewhere: to another ZenML server, MLflow run or git repository.
for _landslide_name in $(env | sed -n 's/^\(ZENML_[A-Za-z0-9_]*\)=.*/\1/p' | grep -Ev '^ZENML_(LOGGING|CONSOLE|CLI|DEBUG)') \
  MLFLOW_RUN_ID MLFLOW_EXPERIMENT_ID MLFLOW_EXPERIMENT_NAME MLFLOW_ACTIVE_MODEL_ID _MLFLOW_ACTIVE_MODEL_ID \
  MLFLOW_TRACKING_DIR MLFLOW_REGISTRY_DIR MLFLOW_WORKSPACE MLFLOW_WORKSPACE_STORE_URI MLFLOW_BACKEND_STORE_URI \
  MLFLOW_REGISTRY_STORE_URI MLFLOW_DEFAULT_ARTIFACT_ROOT MLFLOW_ARTIFACTS_DESTINATION \
  GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_OBJECT_DIRECTORY; do
  unset "$_landslide_name"
done
unset _landslide_name

export ZENML_CONFIG_PATH="$LANDSLIDE_HOME/zenml"
export ZENML_REPOSITORY_PATH="$LANDSLIDE_HOME/zenml"
export ZENML_CUSTOM_SOURCE_ROOT="$LANDSLIDE_ROOT"
export ZENML_ANALYTICS_OPT_IN=false
export ZENML_AUTO_OPEN_DASHBOARD=false
export ZENML_ENABLE_RICH_TRACEBACK=false
export ZENML_LOGGING_COLORS_DISABLED="${ZENML_LOGGING_COLORS_DISABLED:-true}"  # white on white, and escapes in files
export MLFLOW_DISABLE_TELEMETRY=true
export DVC_NO_ANALYTICS=1
export ORT_DISABLE_TELEMETRY=true  # of ONNX Runtime
export DVC_SITE_CACHE_DIR="$LANDSLIDE_HOME/dvc"
export MLFLOW_TRACKING_URI="${LANDSLIDE_TRACKING_URI:-sqlite:///$LANDSLIDE_HOME/mlflow.db}"
export MLFLOW_REGISTRY_URI="$MLFLOW_TRACKING_URI"
export HOME="${HOME:-$LANDSLIDE_HOME}"  # a user without a home directory, as in containers: libraries ask for one
export MPLCONFIGDIR="$LANDSLIDE_HOME/matplotlib"
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

_landslide_was="$(cat "$LANDSLIDE_ROOT/.venv/.complete" 2>/dev/null || true)"
if [ -n "$_landslide_was" ] && ! [ "$_landslide_was" -ef "$LANDSLIDE_ROOT" ]; then
  printf 'Error: This checkout was moved or copied from %s; its .venv would use the code there.\n  -> Run: make setup\n' \
    "$_landslide_was" >&2
  return 1
fi
_landslide_was="$(cat "$LANDSLIDE_HOME/zenml/.stack-registered" 2>/dev/null || true)"
if [ -n "$_landslide_was" ] && ! [ "$_landslide_was" -ef "$LANDSLIDE_HOME" ]; then
  printf 'Error: LANDSLIDE_HOME %s was moved or copied from %s; its databases name files there.\n  -> %s\n' \
    "$LANDSLIDE_HOME" "$_landslide_was" "In a shell with \`source activate.sh\`, run: landslide home relocate" >&2
  return 3
fi
unset _landslide_was
