"""Starts the team's tracking server: checks its environment, creates the bucket, then runs `mlflow server`.

All settings come from the environment, so no password is in a file or on a command line:

    PGHOST PGUSER PGPASSWORD PGDATABASE     the database of runs, models and users (libpq's own variables)
    MLFLOW_ARTIFACTS_DESTINATION            s3://<bucket>, with AWS_* and MLFLOW_S3_ENDPOINT_URL; or a folder
    MLFLOW_AUTH_ADMIN_PASSWORD              of the user `admin`, who is created at the first start
    MLFLOW_FLASK_SERVER_SECRET_KEY          signs the sessions of the web pages
    MLFLOW_HOST MLFLOW_PORT MLFLOW_WORKERS  address, port, and number of processes
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

REQUIRED = (
    "PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY",
)  # fmt: skip
REQUIRED_FOR_S3 = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def main() -> None:
    """Check, prepare, and hand over to MLflow."""
    destination = urlsplit(os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", ""))
    required = REQUIRED + (REQUIRED_FOR_S3 if destination.scheme == "s3" else ())
    if missing := [name for name in required if not os.environ.get(name)]:
        sys.exit(
            f"The tracking server does not start without {', '.join(missing)}.\n  -> See mlflow/environment.example."
        )
    if destination.scheme == "s3":
        make_bucket(destination.netloc)
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(Path(__file__).with_name("basic_auth.ini"))
    # Background jobs are for language models; they would take nine processes and a gigabyte of memory.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # The empty address makes libpq read the PG* variables.
    options = ("--backend-store-uri", "postgresql://", "--serve-artifacts", "--app-name", "basic-auth")
    os.execvp("mlflow", ("mlflow", "server", *options))


def make_bucket(name: str) -> None:
    """Create the bucket of the artifact storage if it is missing."""
    import boto3

    storage = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    if name not in {bucket["Name"] for bucket in storage.list_buckets()["Buckets"]}:
        storage.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
