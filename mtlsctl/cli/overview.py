"""The help screen, as text: it must stand before anything slow is loaded. A test holds it against the commands."""

OVERVIEW = """\
mtlsctl - mutual TLS: say who may call whom; plan it, apply it, prove it

Usage: mtlsctl <command> [flags]

Examples:
  mtlsctl init calendar-mtls     start a repository of inventories
  mtlsctl plan                   show what would change, change nothing
  mtlsctl apply                  plan, ask, apply
  mtlsctl verify --embedded      prove the applied files with real handshakes

Everyday:   init  validate  plan  apply  verify  status  inspect  hosts
State:      show  rollback  state  journal
Tooling:    runtimes  schema  explain  completion

Flags of every command: -C DIR  -q  -v  --no-input  --color WHEN  --ascii  -h
                        -i PATH  --state URL  -o FORMAT  where they make sense

Exit codes: 0 ok  1 failed  2 changes pending (with --detailed-exitcode)
            3 some processes failed or blocked  4 verification failed  5 locked
            6 plan refused  7 inventory or policy  64 wrong usage  70 bug
"""
