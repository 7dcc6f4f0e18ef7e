"""How long tests wait for what has to come. It comes soon, so only a test that fails waits to the end."""

STARTED_SECONDS = 120.0
"""Until a program that was started listens, or says that it is ready."""

HAPPENED_SECONDS = 60.0
"""Until what was caused is seen: a file, a process that ended, another answer."""

ENDED_SECONDS = 300.0
"""Until a program that does its work has ended."""

ANSWERED_SECONDS = 60.0
"""Until a peer answers on a connection. Who is refused is told so at once."""
