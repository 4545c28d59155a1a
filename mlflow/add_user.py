"""Adds a user to the tracking server; the administrator runs it on the machine of the server.

    python add_user.py NAME [--write]

It asks for the password; without a terminal, the variable MLFLOW_NEW_PASSWORD has it.

Everybody who can log in may read. `--write` lets the user also change records of others: train into the same
experiment, move the aliases of the registered model. The unattended runner and users who promote or roll back need it.
"""

import argparse
import os
import sys
from getpass import getpass

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

# The address inside the server's container.
_SERVER = "http://127.0.0.1:{port}"


def main() -> None:
    """Add the user and grant the requested permissions."""
    parser = argparse.ArgumentParser(description="Add a user to the tracking server.")
    parser.add_argument("name")
    parser.add_argument("--write", action="store_true", help="allow changes to records of others")
    arguments = parser.parse_args()
    password = os.environ.get("MLFLOW_NEW_PASSWORD") or (sys.stdin.isatty() and getpass("Password of the new user: "))
    if not password:
        sys.exit("MLFLOW_NEW_PASSWORD is not set.\n  -> Set it to the new user's password, 12 characters or more.")
    os.environ["MLFLOW_TRACKING_USERNAME"] = "admin"
    os.environ["MLFLOW_TRACKING_PASSWORD"] = os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    client = get_app_client("basic-auth", _SERVER.format(port=os.environ.get("MLFLOW_PORT", "5000")))
    try:
        client.create_user(arguments.name, password)
        for kind in ("experiment", "registered_model") if arguments.write else ():
            client.grant_user_permission(arguments.name, kind, "*", "MANAGE")
    except MlflowException as error:
        sys.exit(f"{arguments.name} was not added: {error}")
    print(f"added {arguments.name}")


if __name__ == "__main__":
    main()
