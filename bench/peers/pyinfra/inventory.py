"""The fleet, as pyinfra reads it."""

import os
from pathlib import Path

_config = {"ssh_user": "root", "ssh_config_file": os.environ["SSH_CONFIG"], "ssh_strict_host_key_checking": "yes"}
fleet = ([line.split()[0] for line in Path(os.environ["HOSTS"]).read_text().splitlines()], _config)
