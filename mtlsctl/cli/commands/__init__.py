"""One file for each command; `mtlsctl.cli.app` loads the one that was asked for."""
