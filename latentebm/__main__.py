"""``python -m latentebm``: the command line, which torchrun can start in several processes."""

from latentebm.cli.app import main

if __name__ == "__main__":
    main()
