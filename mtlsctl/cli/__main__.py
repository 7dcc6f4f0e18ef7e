from mtlsctl.cli.main import main

main()
