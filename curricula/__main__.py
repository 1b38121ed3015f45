from curricula.cli.main import main

main()
